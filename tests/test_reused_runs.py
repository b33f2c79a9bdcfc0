"""Finished runs that a command reuses: which runs they are, and where their numbers come from."""

import csv
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cifar_lab.engines.handover import Turn
from cifar_lab.runs import Run
from cifar_lab.runs.fingerprints import is_looser
from cifar_lab.status import describe_sweeps
from cifar_lab.table import compare_folders
from cifar_lab.train import fitting, sweep
from cifar_lab.train.attempt import checkpoint_of
from tests.conftest import Lab, Outcome, holds
from tests.faults import Fault, armed

TINY = ("data=synthetic", "data.num_train=300", "data.num_test=100", "model.filters=[8,8,16]", "logger=none")
WORDS = (*TINY, "epochs=1", "seed=0,1", "name=again")


def _folders(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.stderr
    return [run.folder.name for run in outcome.runs]


def test_a_typed_precision_makes_a_different_run_and_an_axis_of_the_table(lab: Lab) -> None:
    first = _folders(lab("-m", *WORDS, "trainer.precision=bf16-mixed"))
    outcome = lab("-m", *WORDS, "trainer.precision=32-true")
    assert len(first) == 2 and len(_folders(outcome)) == 4
    table = Path("outputs/again/table.csv").read_text().splitlines()
    assert table[0].startswith("trainer.precision,")
    assert [line.partition(",")[0] for line in table[1:]] == ["32-true", "bf16-mixed"]


@pytest.mark.parametrize("multirun", [True, False])
def test_a_typed_value_equal_to_the_automatic_choice_is_the_same_run(lab: Lab, multirun: bool) -> None:
    line = ("-m", *WORDS) if multirun else (*TINY, "epochs=1", "name=again", "resume=auto")
    runs = lab(*line).runs
    precision = runs[0].result()["precision"]
    other = {"32-true": "64-true"}.get(precision, "32-true")
    again = lab(*line, "trainer=cpu", f"trainer.precision={precision}")
    assert _folders(again) == [run.folder.name for run in runs]
    assert "missing" not in again.stdout
    assert len(_folders(lab(*line, f"trainer.precision={other}"))) == 2 * len(runs)


def test_a_retrained_run_uses_the_typed_hardware(lab: Lab) -> None:
    line = (*TINY, "epochs=1", "name=again", "resume=auto")
    precision = lab(*line).runs[0].result()["precision"]
    again = lab(*line, f"trainer.precision={precision}", "retrain=true")
    assert {run.config()["trainer"]["precision"] for run in again.runs} == {"auto", precision}


def test_overrides_that_change_no_number_find_the_same_runs_for_every_command(lab: Lab) -> None:
    folders = _folders(lab("-m", *WORDS))
    for word in ("trainer=cpu loss=ce logger=csv", "callbacks=snapshots"):
        again = lab("-m", *WORDS, *word.split())
        assert _folders(again) == folders
        assert "missing" not in again.stdout and again.stdout.count("retrain=true") >= 2
        (told,) = describe_sweeps([Path("outputs")])
        assert told["states"] == {"finished": 2}
        (row,) = csv.DictReader(Path("outputs/again/table.csv").read_text().splitlines())
        assert row["state"] == "finished"
    assert [result["status"] for result in sweep([*WORDS, "loss=ce"])] == ["finished"] * 2


def test_finished_runs_under_a_former_default_name_are_reused_and_in_the_table(lab: Lab) -> None:
    words = ("-m", *TINY, "epochs=1", "seed=0,1")
    runs = lab(*words[:-1], "seed=0", "name=seed").runs  # the sweep's former name
    before = runs[0].status()
    again = lab(*words)
    assert again.code == 0 and again.stdout.count("retrain=true") == 1
    assert [run.folder.parent.name == "seed" for run in again.runs].count(True) == 1
    assert runs[0].status() == before
    assert "missing" not in again.stdout
    (row,) = csv.DictReader(next(Path("outputs").glob("data=*-seed/table.csv")).read_text().splitlines())
    assert row["state"] == "finished" and row["seeds"] == "0 1"
    assert [len(compare_folders([Path("outputs", name)]).rows[0].finished) for name in ("seed", "")] == [1, 2]


def test_status_counts_the_reused_runs_of_a_running_sweep(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[dict[str, int]] = []
    trained = fitting.trained

    def looking(work: Any) -> dict[str, Any]:
        states.append(next(one["states"] for one in describe_sweeps([Path("outputs")]) if "=" in one["folder"]))
        return trained(work)

    words = ("-m", *TINY, "epochs=1")
    lab(*words, "seed=0", "name=seed")  # the sweep's former name
    monkeypatch.setattr(fitting, "trained", looking)
    lab(*words, "seed=0,1")
    lab(*words, "seed=2,0,1")
    assert states == [{"finished": 1, "running": 1}, {"running": 1, "finished": 2}]


def test_overrides_that_change_no_number_find_a_single_run_and_resume_it(lab: Lab) -> None:
    line = (*TINY, "epochs=1", "resume=auto")
    with armed(Fault("step", 2, signal.SIGTERM)):
        assert lab(*line).code == 143
    folders = _folders(lab(*line, "logger=csv"))
    assert len(folders) == 1
    assert _folders(lab(*line, "loss=ce", "callbacks=snapshots", "trainer=cpu")) == folders
    assert len(_folders(lab(*line, "loss=mse"))) == 2


def test_outputs_that_a_reused_run_lacks_are_noted_and_created_on_request(lab: Lab) -> None:
    (run,) = lab(*TINY, "epochs=1", "resume=auto").runs
    line = (*TINY, "epochs=1", "resume=auto", "logger=csv", "callbacks=snapshots")
    (note,) = (text for text in lab(*line).stdout.splitlines() if text.startswith("note: "))
    holds(note, "logger", "callbacks.snapshots", "retrain=true")
    assert not run.snapshots()
    assert lab(*line, "retrain=true").code == 0
    assert list(run.snapshots()) == [0, 1]
    assert "note: " not in lab(*line).stdout


def test_a_run_whose_folder_name_has_an_older_hash_is_found(lab: Lab) -> None:
    words = ("-m", *WORDS, "trainer.precision=32-true")
    runs = lab(*words).runs
    for run in runs:
        run.folder.rename(run.folder.with_name(f"{run.folder.name.rpartition('-')[0]}-00000000"))
    again = lab(*words)
    assert [name.rpartition("-")[2] for name in _folders(again)] == ["00000000"] * 2
    assert again.stdout.count("retrain=true") == 2


def test_a_reused_run_is_reported_with_date_and_source_and_retrained_on_request(lab: Lab, outside: Any) -> None:
    source = "import torch\nclass Mine(torch.nn.CrossEntropyLoss):\n    pass\n"
    mine = outside("my_losses", source, "loss", "_target_: my_losses.Mine\n")
    words = ("-m", *WORDS, *mine)
    (run, _) = lab(*words).runs
    found = lab(*words).stdout
    assert found.count("retrain=true") == 2 and "my_losses changed" not in found
    Path("my_losses.py").write_text(f"{source}    factor = 2\n")
    assert lab(*words).stdout.count("my_losses changed") == 2
    before = run.result_file.stat().st_mtime_ns
    again = lab(*words, "retrain=true")
    assert "retrain=true trains" not in again.stdout
    assert run.result_file.stat().st_mtime_ns > before
    old = list(Path("outputs/again/replaced").iterdir())
    assert len(old) == 2 and all(Run(folder).has_result() for folder in old)
    assert len(Path("outputs/again/table.csv").read_text().splitlines()) == 2
    assert "my_losses changed" not in lab(*words).stdout


def test_sweep_returns_the_run_with_the_same_automatic_hardware(empty_folder: None) -> None:
    words = [*TINY, "epochs=1", "seed=0,1", "name=again"]
    first = sweep(words)
    assert sweep([*words, "trainer=cpu"])[0]["folder"] == first[0]["folder"]


def test_a_looser_limit_resumes_to_the_same_bits_and_a_tighter_one_does_not_train(lab: Lab) -> None:
    line = ("-m", *TINY, "epochs=6", "seed=0,1", "callbacks=early_stopping", "optimizer.lr=1e-12")
    patience = "callbacks.early_stopping.patience"
    stopped = lab(*line, "name=limits", f"{patience}=1").runs
    assert all(run.result()["epochs"] < 6 for run in stopped)
    again = lab(*line, "name=limits", f"{patience}=9")
    assert _folders(again) == [run.folder.name for run in stopped]
    whole = [run for run in lab(*line, "name=whole", f"{patience}=9").runs if run.folder.parent.name == "whole"]
    for run, other in zip(stopped, whole, strict=True):
        assert run.result()["epochs"] == other.result()["epochs"] == 6
        weights = [torch.load(each.last_checkpoint, weights_only=True)["state_dict"] for each in (run, other)]
        assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert lab(*line, "name=limits", f"{patience}=1").stdout.count("retrain=true") == 2


@pytest.mark.parametrize(
    ("now", "before", "looser"),
    [
        (None, "00:00:00:10", True),
        ("00:00:01:00", "00:00:00:59", True),
        ("00:01:00:00", "00:01:00:00", False),
        ("00:00:10:00", None, False),
    ],
)
def test_a_time_limit_is_looser_if_it_is_longer_or_absent(now: str | None, before: str | None, looser: bool) -> None:
    assert is_looser({"trainer": {"max_time": now}}, {"trainer": {"max_time": before}}) is looser


def test_a_run_cut_by_a_time_limit_within_an_epoch_resumes_from_the_previous_epoch(lab: Lab, tmp_path: Path) -> None:
    (run, _) = lab("-m", *WORDS).runs
    checkpoint = torch.load(run.last_checkpoint, weights_only=True)
    run.previous_checkpoint.write_bytes(run.last_checkpoint.read_bytes())
    config = {**run.config(), "resume": None}
    before = {**config, "trainer": {**config["trainer"], "max_time": "00:00:00:01"}}
    run.config_file.write_text(yaml.safe_dump(before))
    turn = Turn.of(0, [True])
    for is_cut, path in ((False, run.last_checkpoint), (True, run.previous_checkpoint)):
        torch.save({**checkpoint, "is_cut": is_cut}, run.last_checkpoint)
        assert checkpoint_of(run, {**config, "epochs": 9}, turn) == path
