from dataclasses import replace
from pathlib import Path

import pytest

from cifar_lab.config.composition import composed
from cifar_lab.report import dead_units
from cifar_lab.report.lengths import _SCALES, FULL, length_of
from cifar_lab.report.published import Row, Scale, Table, tables
from cifar_lab.report.reproduction import VERDICTS, reproduce
from cifar_lab.runs import Archive, UnreadableError, find_runs
from cifar_lab.runs.fingerprints import leaves, settings
from cifar_lab.table.records import gather
from tests.conftest import holds
from tests.landscape_runs import diverge
from tests.published_runs import leave_run

WITHIN_NOISE, LOWER, HIGHER, DIVERGED, _, NOT_RUN = VERDICTS
LENGTHS = {Scale.FULL: FULL, **_SCALES}


@pytest.fixture(scope="module")
def published() -> tuple[Table, ...]:
    return tables()


@pytest.fixture(scope="module")
def rows(published: tuple[Table, ...]) -> dict[str, Row]:
    return {row.name: row for table in published for row in table.rows}


def test_one_run_serves_every_table_that_it_fits(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]
) -> None:
    leave_run(tmp_path / "a", rows["optimizer_adam"], 0.88)
    found = reproduce(published, gather(find_runs(tmp_path)))
    assert [entry.row.name for entry in found.entries if entry.runs] == ["loss_ce", "optimizer_adam"]
    assert len(found.runs) == 1
    assert not found.shortened


def test_a_run_with_another_setting_is_of_no_row(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]
) -> None:
    run = leave_run(tmp_path / "a", rows["optimizer_adam"], 0.88)
    text = run.composition_file.read_text()
    assert '"lr": 0.001' in text
    run.composition_file.write_text(text.replace('"lr": 0.001', '"lr": 0.002'))
    found = reproduce(published, gather(find_runs(tmp_path)))
    assert not any(entry.runs for entry in found.entries)
    assert len(found.measured) == 1


@pytest.mark.parametrize("scale", [Scale.QUICK, Scale.SMOKE])
@pytest.mark.parametrize(
    "name", ["optimizer_adam", "resnet_adamw", "scheduler_plateau", "swa", "vgg_a,optimizer.lr=2e-3"]
)
def test_shortened_runs_are_in_tables_of_their_own(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row], name: str, scale: Scale
) -> None:
    leave_run(tmp_path / "a", rows[name], 0.5, scale=scale)
    found = reproduce(published, gather(find_runs(tmp_path)))
    assert not any(entry.runs for entry in found.entries)
    assert {section.length for section in found.shortened} == {LENGTHS[scale]}


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("optimizer_sgd", Scale.FULL),
        ("optimizer_sgd", Scale.QUICK),
        ("swa", Scale.SMOKE),
        ("resnet_adamw", Scale.QUICK),
        ("resnet_adamw", Scale.SMOKE),
    ],
)
def test_what_the_command_of_a_row_composes_is_a_run_of_that_row(rows: dict[str, Row], name: str, scale: Scale) -> None:
    for row in (rows[name], *(hypothesis.row for hypothesis in rows[name].hypotheses)):
        assert _length_of_command(row, scale) == LENGTHS[scale]


@pytest.mark.slow
@pytest.mark.parametrize("scale", Scale)
def test_what_the_command_of_every_row_composes_is_a_run_of_that_row(rows: dict[str, Row], scale: Scale) -> None:
    tested = [hypothesis.row for row in rows.values() for hypothesis in row.hypotheses]
    for row in (*rows.values(), *tested):
        assert (row.name, _length_of_command(row, scale)) == (row.name, LENGTHS[scale])


def _length_of_command(row: Row, scale: Scale) -> str | None:
    composition = dict(leaves(settings(composed(row.command(scale, seed=3, protocol="holdout")))))
    return length_of(row, composition, seed=3)


def test_other_lengths_are_each_in_a_table_of_their_own(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]
) -> None:
    for seed, epochs in enumerate((7, 12)):
        leave_run(tmp_path / str(seed), rows["optimizer_sgd"], 0.5, seed=seed, epochs=epochs)
    found = reproduce(published, gather(find_runs(tmp_path)))
    assert [section.length for section in found.shortened] == ["12 epochs", "7 epochs"]
    assert [len(entry.runs) for section in found.shortened for entry in section.entries if entry.runs] == [1, 1]


def test_other_step_sizes_and_parts_of_the_images_are_named(rows: dict[str, Row]) -> None:
    row = rows["optimizer_sgd"]
    part = {**row.settings, "data.train_size": 10_000}
    assert length_of(row, row.settings) == FULL
    holds(length_of(row, part) or "", "10,000")
    shorter = length_of(row, {**part, "epochs": 9, "scheduler.step_size": 4})
    holds(shorter or "", "9 epochs", "10,000", "scheduler.step_size=4")
    tenth = length_of(row, {**part, "epochs": 5, "scheduler.step_size": 2})
    holds(tenth or "", LENGTHS[Scale.QUICK], "10,000")


def test_another_share_held_out_is_of_no_row(rows: dict[str, Row]) -> None:
    row = rows["optimizer_sgd"]
    held_out = {"protocol.name": "holdout", "protocol.val_fraction": 0.1, "data.val_fraction": 0.1}
    assert length_of(row, {**row.settings, **held_out}) == FULL
    assert length_of(row, {**row.settings, **held_out, "protocol.val_fraction": 0.3}) is None
    assert length_of(row, {**row.settings, **held_out, "data.val_fraction": 0.3}) is None
    assert length_of(row, {**row.settings, "data.val_fraction": 0.5}) is None
    assert length_of(row, {**row.settings, "data.seed": 7}, seed=0) is None
    assert length_of(row, {**row.settings, "data.seed": 7}, seed=7) == FULL


def test_a_schedule_that_does_not_follow_the_epochs_is_named(rows: dict[str, Row]) -> None:
    row = rows["activation_relu"]
    assert length_of(row, {**row.settings, "epochs": 12, "scheduler.T_max": 12}) == "12 epochs"
    assert length_of(row, {**row.settings, "epochs": 12}) == "12 epochs, scheduler.T_max=50"
    assert length_of(row, {**row.settings, "epochs": 5}) == "5 epochs, scheduler.T_max=50"
    assert length_of(row, {**row.settings, "scheduler.T_max": 25}) == "50 epochs, scheduler.T_max=25"


def test_runs_whose_numbers_must_be_equal_count_once(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]
) -> None:
    leave_run(tmp_path / "dead", rows["optimizer_adam"], 0.88, finished=False)
    for name in ("loss_ce", "optimizer_adam"):  # two names of one run
        leave_run(tmp_path / name, rows[name], 0.88)
    entry = reproduce(published, gather(find_runs(tmp_path))).entry("loss_ce")
    assert [run.state for run in entry.runs] == ["finished"]


def test_a_hypothesis_has_runs_of_its_own(tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]) -> None:
    row = rows["optimizer_sgd"]
    (hypothesis,) = row.hypotheses
    leave_run(tmp_path / "printed", row, 0.70)
    leave_run(tmp_path / "tried", hypothesis.row, 0.78)
    found = reproduce(published, gather(find_runs(tmp_path)))
    entry = found.entry("optimizer_sgd")
    assert (entry.verdict, [tested.verdict for tested in entry.hypotheses]) == (LOWER, [WITHIN_NOISE])
    assert len(found.runs) == 2
    assert [one.row.name for one in found.entries if one.runs] == ["optimizer_sgd"]


def test_a_shorter_run_of_a_hypothesis_stands_beside_its_rows(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]
) -> None:
    leave_run(tmp_path / "tried", rows["optimizer_sgd"].hypotheses[0].row, 0.4, scale=Scale.QUICK)
    (section,) = reproduce(published, gather(find_runs(tmp_path))).shortened
    assert section.length == LENGTHS[Scale.QUICK]
    (entry,) = [entry for entry in section.entries if entry.runs]
    assert entry.row.overrides == rows["optimizer_sgd"].hypotheses[0].row.overrides


def test_protocols_are_never_mixed(tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]) -> None:
    leave_run(tmp_path / "a", rows["best_cnn"], 0.92)
    leave_run(tmp_path / "b", rows["best_cnn"], 0.91, protocol="holdout")
    entry = reproduce(published, gather(find_runs(tmp_path))).entry("best_cnn")
    assert list(entry.values("test/acc", "report")) == [0.92]
    assert list(entry.values("test/acc", "holdout")) == [0.91]


@pytest.mark.parametrize(
    ("accuracies", "verdict", "basis"),
    [
        ([], NOT_RUN, []),
        ([0.8800], WITHIN_NOISE, ["binomial", "n = 1"]),
        ([0.8700], LOWER, ["binomial", "n = 1"]),
        ([0.9000], HIGHER, ["binomial", "n = 1"]),
        ([0.8700, 0.8710, 0.8720], LOWER, ["95 %", "prediction", "n = 3"]),
        ([0.8700, 0.8800, 0.8900], WITHIN_NOISE, ["95 %", "prediction", "n = 3"]),
    ],
)
def test_verdicts(
    tmp_path: Path,
    published: tuple[Table, ...],
    rows: dict[str, Row],
    accuracies: list[float],
    verdict: str,
    basis: list[str],
) -> None:
    """Of optimizer_adam, published at 88.42 %."""
    for seed, accuracy in enumerate(accuracies):
        leave_run(tmp_path / str(seed), rows["optimizer_adam"], accuracy, seed=seed)
    entry = reproduce(published, gather(find_runs(tmp_path))).entry("optimizer_adam")
    assert entry.verdict == verdict
    holds(entry.basis, *basis)
    assert bool(entry.basis) == bool(basis)


def test_the_sound_protocol_alone_gives_no_verdict_on_the_reports_number(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]
) -> None:
    leave_run(tmp_path / "a", rows["optimizer_adam"], 0.88, protocol="holdout")
    assert reproduce(published, gather(find_runs(tmp_path))).entry("optimizer_adam").verdict == NOT_RUN


def test_an_unfinished_run_is_no_number(tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]) -> None:
    leave_run(tmp_path / "a", rows["optimizer_sgd"], 0.8, finished=False)
    entry = reproduce(published, gather(find_runs(tmp_path))).entry("optimizer_sgd")
    assert entry.verdict == NOT_RUN
    assert [run.state for run in entry.runs] == ["dead"]


def test_a_run_that_diverged_is_a_verdict(tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]) -> None:
    run = leave_run(tmp_path / "a", rows["optimizer_sgd"], 0.8, finished=False)
    run.fail("diverged", RuntimeError("the loss is nan in step 7"))
    entry = reproduce(published, gather(find_runs(tmp_path))).entry("optimizer_sgd")
    assert entry.verdict == DIVERGED
    assert [shown.metrics for shown in entry.runs] == [None]


def test_the_archive_gives_back_what_it_was_given(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]
) -> None:
    leave_run(tmp_path / "runs" / "a", rows["optimizer_sgd"], 0.8)
    leave_run(tmp_path / "runs" / "b", rows["best_cnn"], 0.92, seed=3, protocol="holdout")
    measured = gather(find_runs(tmp_path / "runs"))
    archive = Archive(tmp_path / "results")
    for _ in range(2):
        archive.add(measured)
    assert len(archive.results_file.read_text().splitlines()) == 3
    again = gather([], archive)
    for before, after in zip(measured, again, strict=True):
        assert after.result == before.result
        assert after.settings == before.settings
        assert after.seed == before.seed
        assert after.metrics is not None
        assert after.metrics.equals(before.metrics)
    found = reproduce(published, again)
    assert list(found.entry("best_cnn").values("test/acc", "holdout")) == [0.92]
    assert len(gather(find_runs(tmp_path / "runs"), archive)) == 2


def test_the_archive_keeps_that_a_run_diverged_until_it_has_finished(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]
) -> None:
    archive = Archive(tmp_path / "results")
    run = leave_run(tmp_path / "a", rows["optimizer_sgd"], 0.8)
    finished = gather([run])
    diverge(run)
    for _ in range(2):
        archive.add(gather([run]))
    (kept,) = gather([], archive)
    assert kept.state == "diverged"
    holds(kept.description, str(RuntimeError(run.status()["error"])))
    assert reproduce(published, [kept]).entry("optimizer_sgd").verdict == DIVERGED
    assert len(gather([run], archive)) == 1
    archive.add(finished)
    (kept,) = gather([], archive)
    assert kept.is_finished and kept.metrics is not None


def test_a_composition_that_two_studies_share_is_a_run_of_both(tmp_path: Path, rows: dict[str, Row]) -> None:
    for study, option in (("loss", "ce"), ("optimizer", "adam")):
        options = {"study": study, study: option, "experiment": None}
        leave_run(tmp_path / "runs" / study, rows["activation_relu"], 0.89, protocol="holdout", options=options)
    archive = Archive(tmp_path / "results")
    measured = gather(find_runs(tmp_path / "runs"))
    archive.add(measured)
    for runs in (measured, gather([], archive), gather(find_runs(tmp_path / "runs"), archive)):
        assert [run.options["study"] for run in runs] == ["loss", "optimizer"]
        assert len({run.identity for run in runs}) == 1
        found = reproduce(tables(), runs)
        assert len(found.of_studies) == 2
        assert len(found.entry("activation_relu").runs) == 1


def test_a_kept_run_stands_for_the_folder_of_one_that_has_not_finished(tmp_path: Path, rows: dict[str, Row]) -> None:
    archive = Archive(tmp_path / "results")
    archive.add(gather([leave_run(tmp_path / "a", rows["swa"], 0.85)]))
    (run,) = gather([leave_run(tmp_path / "b", rows["swa"], 0.85, finished=False)], archive)
    assert (run.is_finished, run.folder) == (True, None)


def test_a_run_that_could_not_be_read_again_is_not_kept(tmp_path: Path, rows: dict[str, Row]) -> None:
    archive = Archive(tmp_path / "results")
    (measured,) = gather([leave_run(tmp_path / "a", rows["optimizer_sgd"], 0.8)])
    archive.add([measured])
    damaged = replace(measured, identity="ab", result={**measured.result, "hardware": "x"})
    with pytest.raises(ValueError, match="seed 0"):
        archive.add([damaged])
    assert len(archive.read()) == 1


def test_words_of_any_kind_are_read_again_from_the_archive(tmp_path: Path, rows: dict[str, Row]) -> None:
    archive, words = Archive(tmp_path / "results"), 'a\rb\nc,"d"'
    (measured,) = gather([leave_run(tmp_path / "a", rows["optimizer_sgd"], 0.8)])
    archive.add([replace(measured, result={**measured.result, "name": words})])
    (again,) = archive.read()
    assert again.result["name"] == words


def test_the_archive_keeps_the_dead_units_that_explain_has_counted(tmp_path: Path, rows: dict[str, Row]) -> None:
    run = leave_run(tmp_path / "a", rows["activation_relu"], 0.8)
    (measured,) = gather([run])
    (run.folder / "explanation").mkdir()
    line = f"a,{measured.identity},2000,0.25"
    (run.folder / "explanation" / "dead_units.csv").write_text(
        f"network,fingerprint,images,negative_only\n{line}\nb,c,2000,0.5\n"
    )
    archive = Archive(tmp_path / "results")
    archive.add([measured])
    counted = dead_units.counted(measured)
    assert counted is not None
    archive.add_dead_units(measured, counted)
    (kept,) = gather([], archive)
    assert dead_units.negative_only(kept) == 0.25


@pytest.mark.parametrize(
    "line",
    [
        "fingerprint,seed\nab,{",
        "fingerprint,settings\n../x,{}",
        "a\nb",
        "\x00",
        "fingerprint,settings,interpolations\nab,{},{}",
    ],
)
def test_a_damaged_archive_is_told_in_one_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "results.csv").write_text(line)
    with pytest.raises(UnreadableError, match=r"results\.csv"):
        gather([], Archive(tmp_path))
