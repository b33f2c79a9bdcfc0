from dataclasses import replace
from pathlib import Path

import pytest

from cifar_lab.config.composition import composed
from cifar_lab.report.published import _SCALES, FULL, Scale, length_of, tables
from cifar_lab.report.reproduction import VERDICTS, Reproduction, reproduce
from cifar_lab.runs import Archive, Record, UnreadableError, find_runs
from cifar_lab.runs.fingerprints import leaves, settings
from cifar_lab.table.records import gather
from tests.claim_runs import row
from tests.conftest import holds
from tests.landscape_runs import diverge
from tests.published_runs import leave_run

WITHIN_NOISE, LOWER, HIGHER, DIVERGED, _, NOT_RUN = VERDICTS
LENGTHS = {Scale.FULL: FULL, **_SCALES}


def _reproduction(folder: Path) -> Reproduction:
    return reproduce(tables(), gather(find_runs(folder)))


def _names(found: Reproduction) -> list[str]:
    """Return the names of the full-length rows that have runs."""
    return [entry.row.name for entry in found.entries if entry.runs]


def test_a_run_is_in_every_table_that_it_fits(tmp_path: Path) -> None:
    run = leave_run(tmp_path / "a", row("optimizer_adam"), 0.88)
    found = _reproduction(tmp_path)
    assert (_names(found), len(found.runs), found.shortened) == (["loss_ce", "optimizer_adam"], 1, ())
    text = run.composition_file.read_text()
    assert '"lr": 0.001' in text
    run.composition_file.write_text(text.replace('"lr": 0.001', '"lr": 0.002'))  # now it belongs to no row
    found = _reproduction(tmp_path)
    assert (_names(found), len(found.measured)) == ([], 1)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("optimizer_sgd", Scale.FULL),
        ("optimizer_sgd", Scale.QUICK),
        ("swa", Scale.SMOKE),
        ("resnet_adamw", Scale.QUICK),
        ("resnet_adamw", Scale.SMOKE),
        *(pytest.param(None, scale, marks=pytest.mark.slow) for scale in Scale),
    ],
)
def test_the_command_of_a_row_composes_a_run_of_that_row(name: str | None, scale: Scale) -> None:
    every = [published for table in tables() for published in table.rows]
    for published in every if name is None else [row(name)]:
        for tested in (published, *(hypothesis.row for hypothesis in published.hypotheses)):
            composition = leaves(settings(composed(tested.command(scale, seed=3, protocol="holdout"))))
            assert (tested.name, length_of(tested, dict(composition), seed=3)) == (tested.name, LENGTHS[scale])


def test_each_other_length_has_its_own_table(tmp_path: Path) -> None:
    for seed, epochs in enumerate((7, 12)):
        leave_run(tmp_path / str(seed), row("optimizer_sgd"), 0.5, seed=seed, epochs=epochs)
    shortened = _reproduction(tmp_path).shortened
    assert [section.length for section in shortened] == ["12 epochs", "7 epochs"]
    assert [len(entry.runs) for section in shortened for entry in section.entries if entry.runs] == [1, 1]


HELD_OUT = {"protocol.name": "holdout", "protocol.val_fraction": 0.1, "data.val_fraction": 0.1}
PART = {"data.train_size": 10_000}
IMAGES = "10,000 training images"


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        (PART, f"all epochs, {IMAGES}"),
        ({**PART, "epochs": 9, "scheduler.T_max": 4}, f"9 epochs, {IMAGES}, scheduler.T_max=4"),
        ({**PART, "epochs": 5, "scheduler.T_max": 5}, f"{LENGTHS[Scale.QUICK]}, {IMAGES}"),
        ({"epochs": 12, "scheduler.T_max": 12}, "12 epochs"),
        ({"epochs": 12}, "12 epochs, scheduler.T_max=50"),  # T_max does not follow the epochs
        ({"epochs": 5}, "5 epochs, scheduler.T_max=50"),
        ({"scheduler.T_max": 25}, "50 epochs, scheduler.T_max=25"),
        ({}, FULL),
        (HELD_OUT, FULL),
        ({**HELD_OUT, "protocol.val_fraction": 0.3}, None),
        ({**HELD_OUT, "data.val_fraction": 0.3}, None),
        ({"data.val_fraction": 0.5}, None),
        ({"data.seed": 7}, None),
        ({"trainer.limit_test_batches": 2}, None),
    ],
)
def test_a_length_names_its_schedule_and_runs_with_a_different_held_out_part_belong_to_no_row(
    changes: dict[str, object], length: str | None
) -> None:
    published = row("activation_relu")
    assert length_of(published, {**published.settings, **changes}, seed=0) == length
    assert length_of(published, {**published.settings, "data.seed": 7}, seed=7) == FULL


def test_equal_runs_count_once(tmp_path: Path) -> None:
    leave_run(tmp_path / "dead", row("optimizer_adam"), 0.88, finished=False)
    for name in ("loss_ce", "optimizer_adam"):  # two names of one run
        leave_run(tmp_path / name, row(name), 0.88)
    assert [run.state for run in _reproduction(tmp_path).entry("loss_ce").runs] == ["finished"]


def test_a_hypothesis_has_its_own_runs(tmp_path: Path) -> None:
    (hypothesis,) = row("optimizer_sgd").hypotheses
    leave_run(tmp_path / "printed", row("optimizer_sgd"), 0.70)
    leave_run(tmp_path / "tried", hypothesis.row, 0.78)
    leave_run(tmp_path / "shorter", hypothesis.row, 0.4, scale=Scale.QUICK)
    found = _reproduction(tmp_path)
    entry = found.entry("optimizer_sgd")
    assert (entry.verdict, [tested.verdict for tested in entry.hypotheses]) == (LOWER, [WITHIN_NOISE])
    assert (_names(found), len(found.runs)) == (["optimizer_sgd"], 3)
    (section,) = found.shortened
    assert section.length == LENGTHS[Scale.QUICK]
    assert [entry.row.overrides for entry in section.entries if entry.runs] == [hypothesis.row.overrides]


def test_protocols_are_never_mixed(tmp_path: Path) -> None:
    leave_run(tmp_path / "b", row("best_cnn"), 0.91, protocol="holdout")
    assert _reproduction(tmp_path).entry("best_cnn").verdict == NOT_RUN
    leave_run(tmp_path / "a", row("best_cnn"), 0.92)
    entry = _reproduction(tmp_path).entry("best_cnn")
    assert [list(entry.values("test/acc", protocol)) for protocol in ("report", "holdout")] == [[0.92], [0.91]]


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
def test_verdicts_follow_from_the_seeds_accuracies(
    tmp_path: Path, accuracies: list[float], verdict: str, basis: list[str]
) -> None:
    """Compare with optimizer_adam, published at 88.42 %."""
    for seed, accuracy in enumerate(accuracies):
        leave_run(tmp_path / str(seed), row("optimizer_adam"), accuracy, seed=seed)
    entry = _reproduction(tmp_path).entry("optimizer_adam")
    assert (entry.verdict, bool(entry.basis)) == (verdict, bool(basis))
    holds(entry.basis, *basis)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "results")


@pytest.fixture
def sgd(tmp_path: Path) -> Record:
    """A finished run."""
    (record,) = gather([leave_run(tmp_path / "sgd", row("optimizer_sgd"), 0.8)])
    return record


def test_the_archive_reads_back_the_runs_it_was_given(tmp_path: Path, archive: Archive, sgd: Record) -> None:
    leave_run(tmp_path / "b", row("best_cnn"), 0.92, seed=3, protocol="holdout")
    measured = gather(find_runs(tmp_path))
    for _ in range(2):
        archive.add(measured)
    assert len(archive.results_file.read_text().splitlines()) == 3
    again = gather([], archive)
    for before, after in zip(measured, again, strict=True):
        for name in ("options", "settings", "overrides", "identity", "seed", "result"):
            assert getattr(after, name) == getattr(before, name)
        assert after.metrics is not None
        assert after.metrics.equals(before.metrics)
    assert list(reproduce(tables(), again).entry("best_cnn").values("test/acc", "holdout")) == [0.92]
    assert len(gather(find_runs(tmp_path), archive)) == 2


def test_the_archive_keeps_a_run_as_diverged_until_it_has_finished(
    tmp_path: Path, archive: Archive, sgd: Record
) -> None:
    assert sgd.metrics is not None  # read before the run is changed
    (run,) = find_runs(tmp_path)
    diverge(run)
    for _ in range(2):
        archive.add(gather([run]))
    (kept,) = gather([], archive)
    assert kept.state == "diverged"
    holds(kept.description, run.status()["error"])
    assert reproduce(tables(), [kept]).entry("optimizer_sgd").verdict == DIVERGED
    assert len(gather([run], archive)) == 1
    archive.add([sgd])
    (kept,) = gather([], archive)
    assert kept.is_finished and kept.metrics is not None
    (unfinished,) = gather([leave_run(tmp_path / "b", row("optimizer_sgd"), 0.8, finished=False)], archive)
    assert (unfinished.is_finished, unfinished.folder) == (True, None)  # the kept run replaces it


def test_a_composition_of_two_studies_is_a_run_of_both(tmp_path: Path, archive: Archive) -> None:
    for study, option in (("loss", "ce"), ("optimizer", "adam")):
        options = {"study": study, study: option, "experiment": None}
        leave_run(tmp_path / study, row("activation_relu"), 0.89, protocol="holdout", options=options)
    measured = gather(find_runs(tmp_path))
    archive.add(measured)
    for runs in (measured, gather([], archive), gather(find_runs(tmp_path), archive)):
        assert [run.options["study"] for run in runs] == ["loss", "optimizer"]
        assert len({run.identity for run in runs}) == 1
        found = reproduce(tables(), runs)
        assert (len(found.of_studies), len(found.entry("activation_relu").runs)) == (2, 1)


def test_the_archive_keeps_odd_names_and_dead_units_and_errors_name_a_damaged_file(
    archive: Archive, sgd: Record
) -> None:
    assert sgd.numbers is not None
    sgd.numbers.dead_units.parent.mkdir()
    line = f"a,{sgd.identity},2000,0.25"
    sgd.numbers.dead_units.write_text(f"network,fingerprint,images,negative_only\n{line}\nb,c,2000,0.5\n")
    words = 'a\rb\nc,"d"'  # must be read back unchanged
    archive.add([replace(sgd, result={**sgd.result, "name": words})])
    with pytest.raises(ValueError, match="seed 0"):
        archive.add([replace(sgd, identity="ab", result={**sgd.result, "fingerprint": "ab", "hardware": "x"})])
    (kept,) = gather([], archive)
    assert kept.result["name"] == words
    assert kept.dead_units == {"network": "a", "fingerprint": sgd.identity, "images": 2000, "negative_only": 0.25}

    without_seed = "fingerprint,settings,interpolations\nab,{},{}"
    for damaged in ("fingerprint,seed\nab,{", "fingerprint,settings\n../x,{}", "a\nb", "\x00", without_seed):
        archive.results_file.write_text(damaged)
        with pytest.raises(UnreadableError, match=r"results\.csv"):
            archive.read()
