"""The page that sets runs beside the published rows, as a user writes and reads it."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from cifar_lab import report, train
from cifar_lab.analysis.published import Row, Scale
from cifar_lab.config.published import tables
from tests.landscape_runs import diverge, leave_band, leave_probed
from tests.published_runs import leave_run


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.name: row for table in tables() for row in table.rows}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, Row]) -> Path:
    """The folder of a report on some runs of every kind."""
    folder = tmp_path_factory.mktemp("written")
    for name, accuracy in (("leaky_relu", 0.894), ("relu", 0.893), ("elu", 0.860)):
        for seed in range(5):
            row = rows[f"activation_{name}"]
            leave_run(folder / "runs" / f"{name}{seed}", row, accuracy + 0.0004 * (seed - 2), seed=seed)
    leave_run(folder / "runs" / "holdout", rows["activation_relu"], 0.871, protocol="holdout")
    leave_run(folder / "runs" / "adam", rows["optimizer_adam"], 0.8836)
    leave_run(folder / "runs" / "sign", rows["optimizer_sign_sgd"], 0.7, finished=False)
    leave_run(folder / "runs" / "sgd", rows["optimizer_sgd"], 0.7)
    leave_run(folder / "runs" / "no dropout", rows["optimizer_sgd"].hypotheses[0].row, 0.78)
    leave_run(folder / "runs" / "swa", rows["swa"], 0.8, scale=Scale.QUICK)
    leave_run(folder / "runs" / "vgg", rows["vgg_a,optimizer.lr=1e-3"], 0.8)
    report.report([folder / "runs"], folder / "report", folder / "results", keep=True)
    return folder


class Page(HTMLParser):
    """Tables as lists of rows of cells, the addresses that a page names, and its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(value) for name, value in attrs if name in ("href", "src")]
        if tag in ("meta", "img", "br"):
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def test_published_stands_beside_measured(written: Path) -> None:
    page = Page((written / "report" / "index.html").read_text())
    activation, differences, *_ = page.tables
    cells = dict(zip(activation[0], activation[2], strict=True))
    assert cells["row"] == "ReLU"
    assert cells["published"] == "89.31"
    assert cells["report: best epoch"] == "89.30 ± 0.06 (5)"
    assert cells["report: last epoch"] == "88.30 ± 0.06 (5)"
    assert cells["holdout: chosen epoch"] == "87.10 (1)"
    assert cells["parameters"] == "2,603,274"
    assert cells["measured, against published"].startswith("within noise")
    assert dict(zip(activation[0], activation[3], strict=True))["measured, against published"].startswith("lower")
    assert [line[-1] for line in differences[1:]] == ["yes", "yes", "yes"]
    assert cells["trained on"] == "a processor"
    text = (written / "report" / "index.html").read_text()
    assert "binomial interval alone, n = 1" in text
    assert "95 % prediction interval, n = 5" in text


def test_the_verdicts_are_counted_at_its_head(written: Path) -> None:
    pattern = "Measured against what is published: (.*?)[.] What the report claims in words: (.*?)[.]"
    texts = [(written / "report" / name).read_text() for name in ("index.html", "report.md")]
    (head,) = {counts for text in texts for counts in re.findall(pattern, text)}
    page = Page((written / "report" / "index.html").read_text())
    judged = [line[4] for table in page.tables if "published" in table[0] for line in table[1:]]
    for words in head[0].split(", "):
        count, verdict = words.split(" ", 1)
        cell = {"none published": "no accuracy published"}.get(verdict, verdict)
        assert sum(one.startswith(cell) for one in judged) == int(count) > 0
    (first,) = [table for table in page.tables if table[0][0] == "claim"][:1]
    counts = [f"{[line[3] for line in first].count(one)} {one}" for one in ("supported", "not supported", "untested")]
    assert head[1] == ", ".join(counts)


def test_what_choosing_the_epoch_on_the_test_set_is_worth_is_told_once_a_run(written: Path) -> None:
    told = "is worth 1.00 points at most: so far lies the best epoch above the last one, in the median of 18 runs"
    for name in ("index.html", "report.md"):
        assert (written / "report" / name).read_text().count(told) == 1


def test_what_has_not_finished_is_said_and_gives_no_number(written: Path) -> None:
    page = Page((written / "report" / "index.html").read_text())
    (optimizers,) = [table for table in page.tables if any(line[0] == "SignSGD (averaged signs)" for line in table)]
    cells = dict(zip(optimizers[0], optimizers[3], strict=True))
    assert cells["report: best epoch"] == "-"
    assert cells["measured, against published"] == "not run"
    assert cells["state"].startswith("seed 0, report: dead")


def test_shorter_runs_are_in_tables_of_their_own(written: Path) -> None:
    text = (written / "report" / "index.html").read_text()
    whole, _, shorter = text.partition("<h2>Shorter runs</h2>")
    (best,) = [table for table in Page(text).tables if any(line[0] == "Best CNN" for line in table)][:1]
    assert best[2][:3] == ["SWA", "85.17", "-"]
    assert "a tenth of the epochs" not in whole
    (quick,) = [table for table in Page(text).tables if "epochs" in table[0] and "training images" in table[0]]
    cells = dict(zip(quick[0], quick[1], strict=True))
    assert "published" not in quick[0]
    assert (cells["row"], cells["epochs"], cells["report: best epoch"]) == ("SWA", "10", "80.00 (1)")
    assert "a tenth of the epochs" in shorter


def test_a_number_that_the_settings_do_not_give_stands_with_its_hypothesis(written: Path) -> None:
    text = (written / "report" / "index.html").read_text()
    findings = text.partition('<section id="findings">')[2].partition("</section>")[0]
    assert "SGD with momentum (optimizer_sgd)" in findings
    assert "Published: 78.58. The printed settings give 70.00 (1) in the best epoch" in findings
    assert "outside 69.09 to 70.89 (binomial interval alone, n = 1)" in findings
    (tried,) = [
        table for table in Page(text).tables if table[0][0] == "hypothesis" and table[1][0] == "Without dropout"
    ]
    cells = dict(zip(tried[0], tried[1], strict=True))
    assert (cells["best epoch"], cells["last epoch"]) == ("78.00 (1)", "77.00 (1)")
    assert cells["measured, against published"].startswith("within noise")
    assert "experiment=optimizer_sgd model.dropout=0" in cells["run by"]
    assert "name=report-hypothesis-sgd_no_dropout" in cells["run by"]
    lines = pd.read_csv(written / "report" / "tables.csv").set_index("hypothesis")
    assert lines.loc["sgd_no_dropout", "report/test/acc_mean"] == pytest.approx(0.78)


def test_a_row_that_diverged_under_the_reports_protocol_is_not_not_run(tmp_path: Path, rows: dict[str, Row]) -> None:
    diverge(leave_run(tmp_path / "runs" / "a", rows["optimizer_sgd"], 0.8))
    leave_run(tmp_path / "runs" / "b", rows["optimizer_sgd"], 0.7, protocol="holdout")
    leave_run(tmp_path / "runs" / "c", rows["optimizer_sign_sgd"], 0.7, protocol="holdout")
    tried = leave_run(tmp_path / "runs" / "d", rows["optimizer_sgd"].hypotheses[0].row, 0.4, scale=Scale.QUICK)
    assert tried.folder.exists()
    report.report([tmp_path / "runs"], tmp_path / "report", tmp_path / "results")
    page = Page((tmp_path / "report" / "index.html").read_text())
    cells = {line[0]: line[4] for table in page.tables if "published" in table[0] for line in table[1:]}
    assert cells["SGD with momentum"] == "diverged"
    assert cells["SignSGD (averaged signs)"] == "not rununder protocol=report"
    lines = pd.read_csv(tmp_path / "report" / "tables.csv").set_index(["hypothesis", "length"])
    assert lines.loc[("sgd_no_dropout", "a tenth of the epochs"), "report/runs"] == 1


def test_tensorboard_has_a_category_for_each_table(written: Path) -> None:
    folders = {path.parent for path in (written / "report" / "tensorboard").rglob("events.*")}
    assert len(folders) == 5 * 3 + 1 + 2 + 2 + 1 + 1  # cross-entropy and Adam are one run, in two tables
    adam = EventAccumulator(str(written / "report" / "tensorboard" / "optimizer_adam,protocol=report,seed=0"))
    adam.Reload()
    assert [point.step for point in adam.Scalars("optimizer/report/val/acc")] == list(range(1, 51))
    (event,) = adam.Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {category.title: list(category.chart) for category in layout.category}
    assert set(charts) >= {
        "Activation",
        "Loss",
        "Optimizer",
        "The best CNN, and averaged weights: a tenth of the epochs",
    }
    (tag,) = charts["Optimizer"][0].multiline.tag
    assert re.match(tag, "optimizer/report/val/acc")
    assert not re.match(tag, "loss/report/val/acc")


def test_the_chapter_on_batch_norm_is_the_same_from_what_is_kept(tmp_path: Path) -> None:
    leave_band(tmp_path / "runs" / "band", seeds=(0, 1, 2), rates=(1e-4, 2e-3), widen=0.1, epochs=2)
    leave_probed(tmp_path / "runs" / "probed", seeds=(0, 1, 2), inits=("xavier",), noise=0.2)
    chapters = []
    (tmp_path / "none").mkdir()
    for source, keep in (("runs", True), ("none", False)):
        report.report([tmp_path / source], tmp_path / "report", tmp_path / "results", keep=keep)
        text = (tmp_path / "report" / "report.md").read_text()
        chapters += [one.strip() for one in re.split("^## ", text, flags=re.MULTILINE) if one.startswith("How does")]
        assert (tmp_path / "report" / "figures" / "batch-norm-band.svg").exists()
        assert (tmp_path / "report" / "figures" / "batch-norm-smoothness.svg").exists()
    assert len(chapters) == 2 and chapters[0] == chapters[1]
    assert "ratio 3.29 [3, 3.6]" in chapters[0]
    page = Page((tmp_path / "report" / "index.html").read_text())
    claimed = [line for table in page.tables if table[0][0] == "claim" for line in table]
    (lipschitz,) = {tuple(line) for line in claimed if line[0] == "BatchNorm reduces the Lipschitz constant"}
    assert lipschitz[3] == "supported"


def test_without_runs_the_chapter_says_so(written: Path) -> None:
    assert "No runs of <code>study=bn_landscape</code>" in (written / "report" / "index.html").read_text()


def test_published_training_losses(written: Path) -> None:
    page = Page((written / "report" / "index.html").read_text())
    (losses,) = [table for table in page.tables if "published mean training loss" in table[0]]
    assert [line[1:3] for line in losses[1:6]] == [
        ["1", "1.744"],
        ["2", "1.198"],
        ["5", "0.600"],
        ["10", "0.226"],
        ["20", "0.083"],
    ]
    assert losses[1][4] != "not run"
    assert losses[6][3:] == ["-", "not run"]


def test_at_a_constant_rate_shorter_runs_tell_the_first_epochs_of_longer_ones(
    tmp_path: Path, rows: dict[str, Row]
) -> None:
    row = rows["vgg_a_bn,optimizer.lr=1e-3"]
    quick = leave_run(tmp_path / "runs" / "a", row, 0.8, scale=Scale.QUICK)
    leave_run(tmp_path / "runs" / "part", row, 0.8, scale=Scale.QUICK, seed=1, changes={"data.train_size": 1000})
    leave_run(tmp_path / "runs" / "holdout", row, 0.8, scale=Scale.QUICK, protocol="holdout", seed=2)
    report.report([tmp_path / "runs"], tmp_path / "report", tmp_path / "results")
    page = Page((tmp_path / "report" / "index.html").read_text())
    (losses,) = [table for table in page.tables if "published mean training loss" in table[0]]
    measured = [line[3] for line in losses if line[0] == "VGG-A + BatchNorm, lr 1e-3"]
    assert measured == [f"{loss:.3f} (1)" for loss in quick.metrics()["train/loss"]] + ["-"] * 3


def test_the_page_needs_nothing_but_itself(written: Path) -> None:
    text = (written / "report" / "index.html").read_text()
    page = Page(text)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert all(f'id="{address[1:]}"' in text for address in page.addresses if address.startswith("#"))
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_words_of_a_run_are_shown_not_executed(tmp_path: Path, rows: dict[str, Row]) -> None:
    run = leave_run(tmp_path / "runs" / "a", rows["optimizer_sgd"], 0.78)
    told = run.result_file.read_text().replace("a processor", "<script>alert(1)</script>")
    run.result_file.write_text(told)
    report.report([tmp_path / "runs"], tmp_path / "report", tmp_path / "results")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_markdown_and_csv_lie_beside_it(written: Path) -> None:
    folder = written / "report"
    markdown = (folder / "report.md").read_text()
    assert "| ReLU | 89.31 | 89.30 ± 0.06 (5) |" in markdown
    pictures = re.findall(r"\]\((figures/[^)]+)\)", markdown)
    assert pictures
    assert all((folder / picture).read_bytes().startswith(b"<?xml") for picture in pictures)
    table = pd.read_csv(folder / "tables.csv").set_index(["row", "length"])
    line = table.loc[("activation_relu", "full length")]
    assert line["report/test/acc_mean"] == pytest.approx(0.893)
    assert line["report/runs"] == 5
    assert table.loc[("swa", "a tenth of the epochs"), "report/test/acc_mean"] == pytest.approx(0.8)


def test_what_is_kept_gives_the_same_report(written: Path) -> None:
    (written / "none").mkdir(exist_ok=True)
    report.report([written / "none"], written / "again", written / "results")
    first, again = (pd.read_csv(written / name / "tables.csv") for name in ("report", "again"))
    pd.testing.assert_frame_equal(first.drop(columns="state"), again.drop(columns="state"))
    assert sum(path.stat().st_size for path in (written / "results").rglob("*") if path.is_file()) < 1_000_000
    kept = {path.stem for path in (written / "results" / "figures").glob("*.png")}
    assert kept >= {"agreement", "activation-report-curves", "activation-confusion"}
    assert not any("tenth" in name for name in kept)


def test_a_study_is_tested_under_each_protocol_by_itself_from_what_is_kept_too(
    tmp_path: Path, rows: dict[str, Row]
) -> None:
    (tmp_path / "none").mkdir()
    for protocol, accuracies in (("holdout", {"ce": 0.88, "focal": 0.88}), ("report", {"ce": 0.90})):
        for loss, accuracy in accuracies.items():
            for seed in range(5):
                options = {"study": "loss", "loss": loss, "experiment": None}
                leave_run(
                    tmp_path / "runs" / f"{protocol} {loss} {seed}",
                    rows["loss_ce"],
                    accuracy + 0.0001 * seed,
                    seed=seed,
                    protocol=protocol,
                    options=options,
                    overrides=[f"loss={loss}", f"protocol={protocol}"],
                    changes={"loss.name": loss},
                )
    for source, keep in (("runs", True), ("none", False)):
        report.report([tmp_path / source], tmp_path / "report", tmp_path / "results", keep=keep)
        text = (tmp_path / "report" / "index.html").read_text()
        studies = text.partition('<section id="studies">')[2]
        titles = re.findall("<h3>(study=.*?)</h3>", studies)
        assert titles == ["study=loss: 50 epochs, protocol=holdout", "study=loss: 50 epochs, protocol=report"]
        told, _, only_ce = studies.partition("<h3>study=loss: 50 epochs, protocol=report</h3>")
        assert "ce − focal" in told and "+0.00" in told and "yes" not in told
        assert "ce − focal" not in only_ce
        assert "loss: 50 epochs: training loss and accuracy, protocol=holdout" in told


def test_a_row_that_diverged_is_kept_and_a_damaged_run_is_told(
    tmp_path: Path, rows: dict[str, Row], capsys: pytest.CaptureFixture[str]
) -> None:
    diverge(leave_run(tmp_path / "runs" / "a", rows["optimizer_sgd"], 0.8))
    leave_run(tmp_path / "runs" / "b", rows["best_cnn"], 0.9).result_file.write_text("{")
    (tmp_path / "none").mkdir()
    report.report([tmp_path / "runs"], tmp_path / "report", tmp_path / "results", keep=True)
    assert re.search(r"^unreadable      \S*b: ", capsys.readouterr().out, re.MULTILINE)
    assert "; 1 that cannot be read left out" in (tmp_path / "report" / "index.html").read_text()
    report.report([tmp_path / "none"], tmp_path / "again", tmp_path / "results")
    assert "diverged        1: SGD with momentum" in capsys.readouterr().out


def test_a_hypothesis_about_a_number_that_was_reached_is_shown_too(tmp_path: Path, rows: dict[str, Row]) -> None:
    leave_run(tmp_path / "runs" / "a", rows["optimizer_sgd"].hypotheses[0].row, 0.78)
    for accuracy, words in ((None, "have not been run under"), (0.785, "The published number is inside")):
        if accuracy is not None:
            leave_run(tmp_path / "runs" / "b", rows["optimizer_sgd"], accuracy)
        report.report([tmp_path / "runs"], tmp_path / "report", tmp_path / "results")
        findings = (tmp_path / "report" / "index.html").read_text().partition('<section id="findings">')[2]
        assert words in findings.partition("</section>")[0]
        assert "Without dropout" in findings.partition("</section>")[0]


def test_without_runs_every_row_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.report([tmp_path], tmp_path / "report", tmp_path / "results")
    assert "not run         16" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "report" / "tables.csv")
    assert set(table["verdict"]) == {"not run", "none published"}


def test_a_missing_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cifar_lab.report", "nowhere"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "error: nowhere is no folder; name a run, or a folder with runs\n"


@pytest.mark.data
def test_a_real_run_finds_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: dict[str, Row]) -> None:
    monkeypatch.chdir(tmp_path)
    smoke = rows["optimizer_adam"].command(Scale.SMOKE)
    train.run(
        [*smoke, "data.verify=false", "logger=none", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
    )
    found = report.read([tmp_path / "outputs"])
    assert [section.length for section in found.shortened] == []
    train.run([*smoke, "data.verify=false", "logger=none"])
    found = report.read([tmp_path / "outputs"])
    assert {section.length for section in found.shortened} == {"one epoch of 1,000 images"}
    assert {section.table.name for section in found.shortened} == {"loss", "optimizer"}
