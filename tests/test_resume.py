"""A run that is killed and resumed ends with the same bits as an undisturbed one."""

import signal
from pathlib import Path

import pytest

from cifar_lab.runs import Run
from tests.comparison import differences
from tests.conftest import TINY, Lab, Train
from tests.faults import Fault, command

# Nine batches an epoch; the network has dropout.
LONG = (*TINY, "epochs=4", "trainer.precision=32-true", "logger=none")
EVERY_STEP = "callbacks.checkpoint.every_minutes=1e-9"
PROBE = ("probe=gradient", "probe.every=4", "probe.etas=[0.1,1]", "probe.relative=[0.1]")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def undisturbed_run(*arguments: str) -> Run:
    ended = command(*LONG, *arguments, "hydra.run.dir=undisturbed")
    assert ended.code == 0, ended.output
    return Run("undisturbed")


def disturbed_run(*arguments: str, faults: list[Fault]) -> Run:
    """Return a run that each fault kills and the next command resumes."""
    line = [*LONG, *arguments, "hydra.run.dir=disturbed"]
    for fault in faults:
        ended = command(*line, fault=fault)
        assert ended.code == -fault.number, ended
        assert Run("disturbed").state() == "dead"
        line = ["resume=disturbed"]
    ended = command(*line)
    assert ended.code == 0, ended.output
    return Run("disturbed")


EVERYTHING = (
    *("augment=randaugment", "scheduler=plateau", "averaging=ema", "grad_clip=0.5", EVERY_STEP),
    *("callbacks=snapshots", *PROBE),
    *("trainer.accumulate_grad_batches=2", "trainer.check_val_every_n_epoch=2"),
)


def test_a_run_killed_while_saving_resumes_to_the_same_bits(lab: Lab, trained: Train) -> None:
    line = (*LONG, "epochs=2", *EVERYTHING)
    ended = command(*line, "hydra.run.dir=disturbed", fault=Fault("save", 7))
    assert ended.code == -signal.SIGKILL, ended
    run = Run("disturbed")
    assert run.state() == "dead"
    assert lab("resume=disturbed").code == 0
    assert not differences(run, trained(*line, name="whole"))


@pytest.mark.slow
def test_a_run_killed_anywhere_resumes_to_the_same_bits() -> None:
    faults = [Fault("batch", 5), Fault("save", 2), Fault("replace", 2), Fault("validation", 1), Fault("epoch", 2)]
    assert not differences(undisturbed_run(*EVERYTHING), disturbed_run(*EVERYTHING, faults=faults))


COMPOSITIONS = {
    "cosine": (),
    "warm restarts": ("scheduler=warm_restarts", "scheduler.T_0=1"),
    "one cycle": ("scheduler=one_cycle",),
    "plateau": ("scheduler=plateau", "scheduler.patience=0", "scheduler.cooldown=0", "scheduler.threshold=0.5"),
    "swa": ("averaging=swa", "averaging.start=0.5", "averaging.anneal=0.5"),
    "ema": ("averaging=ema", "averaging.decay=0.9"),
    "lookahead": ("averaging=lookahead", "averaging.every_n_steps=3", "trainer.accumulate_grad_batches=2"),
    "lookahead of airbench": ("averaging=lookahead", "averaging.power=3", "averaging.start=0.3", "optimizer=muon"),
    "accumulation": ("trainer.accumulate_grad_batches=3",),
    "accumulation with a rest": ("trainer.accumulate_grad_batches=4", "augment=randaugment"),
    "a last epoch that is not whole": ("epochs=2.7", "trainer.accumulate_grad_batches=4", "averaging=ema"),
    "bf16": ("trainer.precision=bf16-mixed",),
    "early stopping": ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-9"),
    "snapshots and probes": ("callbacks=snapshots", "callbacks.snapshots.every_epochs=2", *PROBE),
    "validated now and then": ("trainer.check_val_every_n_epoch=2", "scheduler=plateau"),
    "part of an epoch": ("trainer.limit_train_batches=5",),
    "sgd, mse, randaugment, l1": ("optimizer=sgd", "loss=mse", "augment=randaugment", "l1=1e-4"),
    "cutout, report": ("augment=cutout", "protocol=report", "optimizer=sign_sgd"),
    "muon, linear": (
        *("optimizer=muon", "scheduler=linear", "scheduler.warmup_epochs=1", "optimizer.relative_lr.norms=2"),
        *("optimizer.decay_norms=false", "optimizer.decay_by_rate=true"),
    ),
    "hard images more often": ("data.skip_easy=0.6", "augment=alternating_flip", "data.drop_last=true"),
    "linear by epoch": ("scheduler=linear", "scheduler.lightning.interval=epoch", "scheduler.warmup_epochs=1"),
    "mixup, focal, signum": ("augment=mixup", "loss=focal", "optimizer=signum"),
    "cutmix, mse, ema, accumulation": (
        *("augment=cutmix", "loss=mse", "averaging=ema", "trainer.accumulate_grad_batches=3"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("every_step", [True, False], ids=["saved after every step", "saved after epochs"])
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_every_composition_killed_anywhere_resumes_to_the_same_bits(name: str, every_step: bool) -> None:
    arguments = [*COMPOSITIONS[name], *([EVERY_STEP] if every_step else [])]
    first = Fault("batch", 4 if every_step else 12)  # a checkpoint is saved before it
    faults = [first, Fault("save", 1), Fault("validation", 1), Fault("batch", 3), Fault("test", 1)]
    assert not differences(undisturbed_run(*arguments), disturbed_run(*arguments, faults=faults))
