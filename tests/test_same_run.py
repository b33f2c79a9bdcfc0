"""Which run a folder holds: a different run is neither reused nor resumed as the requested one."""

import signal
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from cifar_lab.runs import Run
from tests.comparison import differences
from tests.conftest import TINY, Lab, Train, names, refusal
from tests.faults import Fault, armed

PLAIN = (*TINY, "logger=none")
AUTO = (*PLAIN, "resume=auto", "hydra.run.dir=x")


def test_a_different_finished_run_is_refused_with_folder_and_difference(lab: Lab, trained: Train) -> None:
    run = trained(*PLAIN, name="x")
    before = run.result_file.read_text()
    facts = ("x has a different run", "seed (0.0 in the run, 1.0 typed)", "loss._target_", "hydra.run.dir=")
    refusal(lab(*AUTO, "seed=1", "loss=mse"), *facts)
    assert run.result_file.read_text() == before
    again = lab(*AUTO, "logger=csv")
    assert again.code == 0 and "retrain=true" in again.stdout


def test_more_epochs_are_trained_if_no_setting_follows_their_number(lab: Lab, trained: Train) -> None:
    constant = trained(*PLAIN, "scheduler=constant", name="x")
    assert lab(*AUTO, "scheduler=constant", "epochs=3").code == 0
    assert constant.result()["epochs"] == 3
    cosine = trained(*PLAIN, name="y")
    refusal(lab(*AUTO, "hydra.run.dir=y", "epochs=3"), "epochs", "scheduler.T_max")
    assert cosine.result()["epochs"] == 2


def test_a_different_interrupted_run_is_not_resumed(lab: Lab) -> None:
    with armed(Fault("epoch", 1, signal.SIGTERM)):
        assert lab(*AUTO).code == 143
    refusal(lab(*AUTO, "seed=1"), "x has a different run", "seed")
    refusal(lab(*PLAIN, "hydra.run.dir=x", "seed=1"), "x has a different run", "seed (0.0 in the run, 1.0 typed)")
    assert Run("x").last_checkpoint.exists()
    assert lab(*AUTO).code == 0
    assert Run("x").result()["seed"] == 0


@pytest.mark.parametrize(("subdir", "left"), [("${hydra.job.num}", [0, 1]), ("same", [0])])
def test_jobs_of_a_sweep_in_one_folder_are_refused(lab: Lab, subdir: str, left: list[int]) -> None:
    line = ("-m", *PLAIN, "epochs=1", "name=x", f"hydra.sweep.subdir={subdir}")
    code, _, err, runs = lab(*line, "seed=0,1")
    assert code == (0 if len(left) == 2 else 2), err
    assert [run.result()["seed"] for run in runs] == left
    code, _, err, runs = lab(*line, "seed=2,3")
    assert code == 2
    names(err.splitlines()[0], "has a different run", "seed (0.0 in the run, 2.0 typed)", "hydra.sweep.subdir=")
    assert [run.result()["seed"] for run in runs] == left


def test_environment_variables_change_neither_numbers_nor_files(
    lab: Lab, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained(*TINY, "logger=csv")
    for name, value in {"MAX_STEPS": 1, "OVERFIT_BATCHES": 1, "GRADIENT_CLIP_VAL": 1e-9, "FAST_DEV_RUN": 1}.items():
        monkeypatch.setenv(f"PL_TRAINER_{name}", str(value))
    monkeypatch.setattr(rank_zero_only, "rank", 3)  # as if RANK, LOCAL_RANK or SLURM_PROCID were set at import
    outcome = lab(*TINY, "logger=csv", "hydra.run.dir=other")
    assert outcome.code == 0, outcome.stderr
    assert not differences(plain, Run("other"))
    assert list(Path("other/csv").glob("*.csv"))
