"""The page that compares runs with the published rows, as a user writes and reads it."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from cifar_lab import report
from cifar_lab.report import command
from cifar_lab.report.claims.evidence import VERDICTS as CLAIM_VERDICTS
from cifar_lab.report.published import _SCALES, FULL, Scale, tables
from cifar_lab.report.reproduction import VERDICTS
from tests.claim_runs import CLAIMS, leave_seeds, row
from tests.conftest import holds, quick, refusal
from tests.landscape_runs import diverge, leave_band, leave_probed
from tests.published_runs import leave_run

WITHIN_NOISE, LOWER, _, DIVERGED, NONE_PUBLISHED, NOT_RUN = VERDICTS
QUICK = _SCALES[Scale.QUICK]
# Columns of the page's tables, whatever their headings.
ROW, PUBLISHED, BEST, LAST, JUDGED, CHOSEN, _, PARAMETERS, _, MACHINE, STATE = range(11)


@pytest.fixture(scope="module")
def parameters() -> dict[str, int]:
    return report.parameters()


@pytest.fixture(autouse=True)
def _networks_are_counted_once(monkeypatch: pytest.MonkeyPatch, parameters: dict[str, int]) -> None:
    monkeypatch.setattr(command, "parameters", lambda: parameters)


def _leave_runs(folder: Path) -> None:
    """Write runs of every kind."""
    for name, accuracy in (("leaky_relu", 0.894), ("relu", 0.893), ("elu", 0.860)):
        leave_seeds(folder, row(f"activation_{name}"), accuracy, spread=0.0004)
    leave_run(folder / "holdout", row("activation_relu"), 0.871, protocol="holdout")
    leave_run(folder / "adam", row("optimizer_adam"), 0.8836)
    leave_run(folder / "sign", row("optimizer_sign_sgd"), 0.7, finished=False)
    leave_run(folder / "sgd", row("optimizer_sgd"), 0.7)
    leave_run(folder / "no dropout", row("optimizer_sgd").hypotheses[0].row, 0.78)
    leave_run(folder / "swa", row("swa"), 0.8, scale=Scale.QUICK)
    leave_run(folder / "vgg", row("vgg_a,optimizer.lr=1e-3"), 0.8)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a report on these runs."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        _leave_runs(folder / "runs")
        report.report([folder / "runs"], folder / "report", folder / "results", keep=True)
    return folder


@pytest.fixture
def page(outputs: Path) -> "Page":
    return Page(outputs / "report")


class Page:
    """A page's tables as lists of rows of cells, all and by section, and the addresses that the page refers to."""

    def __init__(self, folder: Path) -> None:
        self.text = (folder / "index.html").read_text(encoding="utf-8")
        root = ElementTree.fromstring(re.sub(r"(<(?:meta|img|br)\b[^>]*)>", r"\1/>", self.text))
        self.tables = _tables(root)
        self.of = {section.get("id"): _tables(section) for section in root.iter("section")}
        self.addresses = [part.attrib[name] for part in root.iter() for name in ("href", "src") if name in part.attrib]

    def section(self, name: str) -> str:
        """Return the text from a section's start to the next section or its own end."""
        return re.split("<section|</section>", self.text.partition(f'<section id="{name}')[2])[0]

    @property
    def header(self) -> str:
        return self.text.partition("</header>")[0].partition("<header>")[2]


def _tables(part: ElementTree.Element) -> list[list[list[str]]]:
    return [[["".join(cell.itertext()) for cell in row] for row in table.iter("tr")] for table in part.iter("table")]


def _report_page(folder: Path) -> Page:
    """Report on the runs in a folder and return the page."""
    report.report([folder / "runs"], folder / "report", folder / "results")
    return Page(folder / "report")


def test_published_and_measured_accuracies_are_side_by_side(page: Page) -> None:
    activation, differences, *_ = page.of["activation"]
    _, _, relu, elu = activation
    known = {ROW: "ReLU", PUBLISHED: "89.31", PARAMETERS: "2,603,274", MACHINE: "a processor"}
    known |= {BEST: "89.30 ± 0.06 (5)", LAST: "88.30 ± 0.06 (5)", CHOSEN: "87.10 (1)"}
    assert {column: relu[column] for column in known} == known
    assert relu[JUDGED].startswith(WITHIN_NOISE)
    holds(relu[JUDGED], "95 %", "n = 5")
    assert elu[JUDGED].startswith(LOWER)
    assert [line[-1] for line in differences[1:]] == ["yes", "yes", "yes"]
    _, adam, _, unfinished = page.of["optimizer"][0]
    assert adam[BEST] == "88.36 (1)"
    holds(adam[JUDGED], "n = 1")
    assert (unfinished[BEST], unfinished[JUDGED]) == ("-", NOT_RUN)
    holds(unfinished[STATE], "seed 0", "report", "dead")


def test_the_head_counts_the_verdicts_and_states_the_effect_of_choosing_the_epoch_once(
    outputs: Path, page: Page
) -> None:
    frame = pd.read_csv(outputs / "report" / "tables.csv")
    verdicts = frame[(frame["length"] == FULL) & frame["hypothesis"].isna()]["verdict"].value_counts()
    found = [line[3] for line in page.of["claims"][0][1:]]
    claims = pd.Series([word for cell in found for word in CLAIM_VERDICTS if cell.startswith(word)]).value_counts()
    assert claims.sum() == len(CLAIMS)
    assert set(verdicts.index) == {WITHIN_NOISE, LOWER, NONE_PUBLISHED, NOT_RUN}
    assert set(claims.index) == set(CLAIM_VERDICTS)
    markdown = (outputs / "report" / "report.md").read_text(encoding="utf-8")
    for counts in (verdicts, claims):
        for head in (page.header, markdown.partition("\n## ")[0]):
            holds(head, *(f" {count} {verdict}" for verdict, count in counts.items()))
    for text in (page.text, markdown):
        assert sum("18 runs" in line and " 1.00 " in line for line in text.splitlines()) == 1


def test_shorter_runs_are_in_separate_tables(page: Page) -> None:
    whole, _, shorter = page.text.partition('<section id="shortened">')
    (best, *_) = [table for table in page.tables if any(line[0] == "Best CNN" for line in table)]
    assert best[2][:3] == ["SWA", "85.17", "-"]
    assert QUICK not in whole
    assert "<figure" not in page.section("batch-norm")  # the chapter has no runs
    assert not any(line[3].startswith("supported") for line in page.of["batch-norm"][0][1:])
    assert QUICK in shorter
    ((headings, cells),) = page.of["shortened"]
    assert "published" not in headings
    assert (cells[0], cells[1], cells[5]) == ("SWA", "80.00 (1)", "10")


def test_a_number_that_is_not_reproduced_is_listed_with_its_hypothesis(outputs: Path, page: Page) -> None:
    holds(page.section("findings"), "optimizer_sgd", "78.58", "70.00 (1)", "68.80", "71.21", "n = 1")
    label = row("optimizer_sgd").hypotheses[0].row.label
    (cells,) = [line for table in page.of["findings"] for line in table if line[0] == label]
    _, _, best, last, judged, command, *_ = cells
    assert (best, last) == ("78.00 (1)", "77.00 (1)")
    assert judged.startswith(WITHIN_NOISE)
    holds(command, "experiment=optimizer_sgd model.dropout=0", "name=report-hypothesis-sgd_no_dropout")
    lines = pd.read_csv(outputs / "report" / "tables.csv").set_index("hypothesis")
    assert lines.loc["sgd_no_dropout", "report/test/acc_mean"] == pytest.approx(0.78)


def test_tensorboard_has_a_category_for_each_table(outputs: Path) -> None:
    folders = {path.parent for path in (outputs / "report" / "tensorboard").rglob("events.*")}
    assert len(folders) == 5 * 3 + 1 + 2 + 2 + 1 + 1  # cross-entropy and Adam are one run, which is in two tables
    adam = EventAccumulator(str(outputs / "report" / "tensorboard" / "optimizer_adam,protocol=report,seed=0"))
    adam.Reload()
    assert [point.step for point in adam.Scalars("optimizer/report/val/acc")] == list(range(1, 51))
    (event,) = adam.Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {category.title: list(category.chart) for category in layout.category}
    titles = {table.name: table.title for table in tables()}
    (of_swa,) = [table.title for table in tables() if any(row.name == "swa" for row in table.rows)]
    assert set(charts) >= {*(titles[name] for name in ("activation", "loss", "optimizer")), f"{of_swa}: {QUICK}"}
    (tag,) = charts[titles["optimizer"]][0].multiline.tag
    assert re.match(tag, "optimizer/report/val/acc")
    assert not re.match(tag, "loss/report/val/acc")


def test_the_chapter_on_batch_norm_is_the_same_from_kept_results(tmp_path: Path) -> None:
    leave_band(tmp_path / "runs" / "band", seeds=(0, 1, 2), rates=(1e-4, 2e-3), widen=0.1, epochs=2)
    leave_probed(tmp_path / "runs" / "probed", seeds=(0, 1, 2), inits=("xavier",), noise=0.2)
    from_runs, page = _pages_from_runs_and_from_kept_results(tmp_path)
    chapter = page.section("batch-norm")
    assert from_runs.section("batch-norm") == chapter
    assert chapter.count("<figure") == 2
    for name in ("batch-norm-band", "batch-norm-smoothness"):
        assert (tmp_path / "report" / "figures" / f"{name}.svg").exists()
    holds(chapter, "3.29 [3, 3.6]")
    place = CLAIMS.index("gradient_at_the_point") - len(CLAIMS)
    lipschitz = page.of["claims"][0][place]
    assert lipschitz in page.of["batch-norm"][0]
    assert lipschitz[3].startswith("supported")


def _pages_from_runs_and_from_kept_results(folder: Path) -> Iterator[Page]:
    (folder / "none").mkdir()
    for source, keep in (("runs", True), ("none", False)):
        report.report([folder / source], folder / "report", folder / "results", keep=keep)
        yield Page(folder / "report")


def _losses(page: Page) -> list[list[str]]:
    """Return row, epoch, published and measured loss, and their ratio, from the only table of training losses."""
    (losses,) = [table for table in page.tables if any(line[2:3] == ["1.744"] for line in table)]
    return losses


def test_shorter_runs_at_a_constant_rate_give_the_first_epochs_of_longer_ones(tmp_path: Path, page: Page) -> None:
    losses = _losses(page)
    published = {"1": "1.744", "2": "1.198", "5": "0.600", "10": "0.226", "20": "0.083"}
    assert dict(line[1:3] for line in losses[1:6]) == published
    assert losses[1][4] != NOT_RUN
    assert losses[6][3:] == ["-", NOT_RUN]
    vgg = row("vgg_a_bn,optimizer.lr=1e-3")
    quick = leave_run(tmp_path / "runs" / "a", vgg, 0.8, scale=Scale.QUICK)
    leave_run(tmp_path / "runs" / "part", vgg, 0.8, scale=Scale.QUICK, seed=1, changes={"data.train_size": 1000})
    leave_run(tmp_path / "runs" / "holdout", vgg, 0.8, scale=Scale.QUICK, protocol="holdout", seed=2)
    measured = [line[3] for line in _losses(_report_page(tmp_path)) if line[0] == vgg.label]
    assert measured == [f"{loss:.3f} (1)" for loss in quick.metrics()["train/loss"]] + ["-"] * 3


def test_the_page_is_self_contained_and_escapes_the_text_of_a_run(tmp_path: Path, page: Page) -> None:
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert all(f'id="{address[1:]}"' in page.text for address in page.addresses if address.startswith("#"))
    assert "<script" not in page.text
    holds(page.text, "prefers-color-scheme: dark", "@media print")
    run = leave_run(tmp_path / "runs" / "a", row("optimizer_sgd"), 0.78)
    run.result_file.write_text(run.result_file.read_text().replace("a processor", "<script>alert(1)</script>"))
    text = _report_page(tmp_path).text
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_markdown_and_csv_are_next_to_the_page_and_kept_results_give_the_same(outputs: Path) -> None:
    folder = outputs / "report"
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert "| ReLU | 89.31 | 89.30 ± 0.06 (5) |" in markdown
    pictures = re.findall(r"\]\((figures/[^)]+)\)", markdown)
    assert pictures
    assert all((folder / picture).exists() for picture in pictures)
    (outputs / "none").mkdir()
    report.report([outputs / "none"], outputs / "again", outputs / "results")
    first, again = (pd.read_csv(outputs / name / "tables.csv") for name in ("report", "again"))
    pd.testing.assert_frame_equal(first.drop(columns="state"), again.drop(columns="state"))
    table = first.set_index(["row", "length"])
    line = table.loc[("activation_relu", FULL)]
    assert (line["report/test/acc_mean"], line["report/runs"]) == (pytest.approx(0.893), 5)
    assert table.loc[("swa", QUICK), "report/test/acc_mean"] == pytest.approx(0.8)
    kept = {path.stem for path in (outputs / "results" / "figures").glob("*.png")}
    assert kept >= {"agreement", "activation-report-curves", "activation-confusion"}
    assert not any("tenth" in name for name in kept)
    gallery = (outputs / "results" / "figures" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([^)]+)\.png\)", gallery)) == kept


@pytest.mark.slow
def test_the_report_command_paints_figures_and_keeps_small_results(tmp_path: Path) -> None:
    _leave_runs(tmp_path / "runs")
    command = [sys.executable, "-m", "cifar_lab.report", "runs", "--keep", "--results", "results"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    pictures = list((tmp_path / "report" / "figures").glob("*.svg"))
    assert pictures
    for picture in pictures:
        assert len(list(ElementTree.parse(picture).iter())) > 50
    assert 50_000 < sum(path.stat().st_size for path in (tmp_path / "results").rglob("*") if path.is_file()) < 1_000_000


def test_a_study_is_tested_separately_under_each_protocol_even_from_kept_results(tmp_path: Path) -> None:
    for protocol, loss, accuracy in (("holdout", "ce", 0.88), ("holdout", "focal", 0.88), ("report", "ce", 0.9)):
        leave_seeds(
            tmp_path / "runs" / loss,
            row("loss_ce"),
            accuracy,
            spread=0.0001,
            protocol=protocol,
            options={"study": "loss", "loss": loss, "experiment": None},
            overrides=[f"loss={loss}", f"protocol={protocol}"],
            changes={"loss.name": loss},
        )
    for page in _pages_from_runs_and_from_kept_results(tmp_path):
        holdout, only_ce = page.text.partition('<section id="studies">')[2].split("<h3>study=")[1:]
        for part, protocol in ((holdout, "holdout"), (only_ce, "report")):
            holds(part.partition("</h3>")[0], "loss", "50 epochs", f"protocol={protocol}")
        (difference,) = [line for table in page.of["studies"] for line in table if "ce − focal" in line]
        assert ("+0.00" in difference, difference[-1]) == (True, "no")
        assert "ce − focal" not in only_ce
        assert holdout.count("<figure") == 1


def test_a_diverged_row_is_kept_and_distinguished_from_one_that_was_not_run_and_damaged_runs_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diverge(leave_run(tmp_path / "runs" / "a", row("optimizer_sgd"), 0.8))
    leave_run(tmp_path / "runs" / "b", row("optimizer_sgd"), 0.7, protocol="holdout")
    leave_run(tmp_path / "runs" / "c", row("optimizer_sign_sgd"), 0.7, protocol="holdout")
    leave_run(tmp_path / "runs" / "d", row("optimizer_sgd").hypotheses[0].row, 0.4, scale=Scale.QUICK)
    for name in ("e", "f", "g"):
        leave_run(tmp_path / "runs" / name, row("best_cnn"), 0.9).result_file.write_text("{")
    from_runs, from_kept = _pages_from_runs_and_from_kept_results(tmp_path)
    assert re.findall(r"^unreadable +\S*(.): ", capsys.readouterr().out, re.MULTILINE) == ["e", "f", "g"]
    for page, is_counted in ((from_runs, True), (from_kept, False)):
        assert ("3" in re.findall(r"(?<![-\d])\d+(?![-\d])", page.header.partition("</p>")[0])) == is_counted
        _, _, sgd, sign = page.of["optimizer"][0]
        assert (sgd[JUDGED], sign[JUDGED].startswith(NOT_RUN)) == (DIVERGED, True)
        holds(sign[JUDGED], "protocol=report")
    lines = pd.read_csv(tmp_path / "report" / "tables.csv").set_index(["hypothesis", "length"])
    assert lines.loc[("sgd_no_dropout", QUICK), "report/runs"] == 1


def test_a_hypothesis_about_a_reproduced_number_is_shown_too(tmp_path: Path) -> None:
    hypothesis = row("optimizer_sgd").hypotheses[0].row
    leave_run(tmp_path / "runs" / "a", hypothesis, 0.78)
    for accuracy, facts in ((None, ["protocol=report"]), (0.785, ["78.50 (1)", "n = 1"])):
        if accuracy is not None:
            leave_run(tmp_path / "runs" / "b", row("optimizer_sgd"), accuracy)
        holds(_report_page(tmp_path).section("findings"), hypothesis.label, *facts)


def test_without_runs_every_row_is_listed_as_not_run_and_a_missing_folder_is_refused(
    tmp_path: Path, called: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, _ = called(report.main, tmp_path, "--output", tmp_path / "report", "--results", tmp_path / "results")
    assert code == 0
    assert re.search(rf"^{NOT_RUN} +16: ", out, re.MULTILINE)
    table = pd.read_csv(tmp_path / "report" / "tables.csv")
    assert set(table["verdict"]) == {NOT_RUN, NONE_PUBLISHED}
    refusal(called(report.main, tmp_path / "nowhere"), tmp_path / "nowhere")
