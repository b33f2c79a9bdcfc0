"""Processes that train one run together: its numbers are those of one, and whatever ends them, it goes on."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from cifar_lab.runs import Run, find_runs, read_checkpoint
from tests.comparison import differences
from tests.conftest import TINY
from tests.faults import Fault, command

# 57 images in batches of 6, so that parts are uneven in the last one; BatchNorm and dropout are in the network.
PLAIN = (*TINY, "data.num_train=63", "trainer.precision=32-true", "logger=none")
# What makes the numbers of several processes those of one.
SAME = (*PLAIN, "bn=false", "model.dropout=0")
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(*arguments: str, folder: str) -> Run:
    ended = command(*arguments, f"hydra.run.dir={folder}")
    assert ended.code == 0, ended.output
    return Run(folder)


def living() -> list[int]:
    """Processes whose current folder is this one, but for this one's own and what starts the others."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(path / "cwd")) == Path.cwd() and (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            pass
    return [number for number in found if number != os.getpid()]


def ended_within(seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while living() and time.monotonic() < give_up:
        time.sleep(0.05)
    return not living()


def check_equal(several: Run, one: Run) -> None:
    """Check that two runs have the same numbers, to the rounding of sums in another order."""
    for name, values in one.steps().items():
        torch.testing.assert_close(torch.tensor(several.steps()[name]), torch.tensor(values), rtol=1e-4, atol=1e-6)
    states = [read_checkpoint(run.last_checkpoint)["state_dict"] for run in (several, one)]
    assert list(states[0]) == list(states[1])  # and so none begins with `module.`
    for name, weight in states[1].items():
        torch.testing.assert_close(states[0][name], weight, rtol=1e-3, atol=2e-5, msg=name)
    columns = [column for column in one.metrics() if column not in ("seconds", "images_per_second")]
    left, right = (torch.tensor(run.metrics()[columns].to_numpy()) for run in (several, one))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)
    results = [run.result() for run in (several, one)]
    for key in ("val_size", "test_size", "train_size", "confusion_matrix", "test/acc", "val/acc", "best_epoch"):
        assert results[0][key] == results[1][key], key


ROWS = {
    "accumulation, l1, clipping, ema": (
        *("trainer.accumulate_grad_batches=2", "l1=1e-4", "grad_clip=0.5", "averaging=ema", "augment=randaugment"),
    ),
    "swa, cutout, plateau": ("averaging=swa", "averaging.start=0.5", "augment=cutout", "scheduler=plateau"),
}


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[pytest.mark.cluster] if "swa" in row else []) for row in ROWS]
)
def test_two_processes_train_what_one_does(row: str) -> None:
    several = trained(*SAME, *ROWS[row], *TWO, folder="several")
    check_equal(several, trained(*SAME, *ROWS[row], folder="one"))
    assert several.result()["world_size"] == several.status()["world_size"] == 2
    assert several.result()["fingerprint"] == Run("one").result()["fingerprint"]


def test_the_first_process_alone_prints_and_writes() -> None:
    ended = command(*PLAIN, *TWO, "logger=tensorboard", "callbacks=snapshots", "hydra.run.dir=run")
    assert ended.code == 0
    assert ended.output.count("epoch 1/2") == ended.output.count("test accuracy") == 1
    assert "BatchNorm normalises over the 3 images of each of 2 processes, not over a batch's 6" in ended.output
    assert "Warning" not in ended.output
    run = Run("run")
    assert len(list(run.tensorboard.iterdir())) == 1
    assert list(run.snapshots()) == [0, 1, 2]
    assert run.result()["batch_norm_per_process"] is True
    assert not list(Path().glob("outputs")) and ended_within(5)


def test_a_signal_in_several_processes_saves_at_one_step_and_the_run_goes_on_to_the_same_bits() -> None:
    # Long enough for a signal to come by way of the process that has started them.
    line = [*PLAIN, *TWO, "data.num_train=603", "trainer.accumulate_grad_batches=2", "averaging=ema"]
    ended = command(*line, "hydra.run.dir=run", fault=Fault("step", 5, signal.SIGTERM, rank=1))
    assert ended.code == 143
    assert ended.output.splitlines()[-1] == "error: interrupted by SIGTERM; resume=run goes on where it stopped"
    run = Run("run")
    assert run.state() == "interrupted"
    assert read_checkpoint(run.last_checkpoint)["global_step"] == run.status()["step"] < 46
    assert ended_within(5)
    assert command("resume=run", fault=Fault("validation", 1, signal.SIGINT, rank=0)).code == 130
    assert command("resume=run").code == 0
    assert not differences(run, trained(*line, folder="whole"))


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.cluster), 1])
def test_a_killed_process_ends_all_and_the_same_command_goes_on_to_the_same_bits(rank: int) -> None:
    line = ["-m", *PLAIN, *TWO, "seed=0,1"]
    ended = command(*line, fault=Fault("batch", 14, rank=rank))
    assert ended.code == 1
    told = f"process {rank} was killed by SIGKILL, perhaps for want of memory"
    assert f"error: {told}; the same command goes on" in ended.output
    assert ended_within(5)
    first, second = find_runs("outputs")
    assert (first.state(), first.status()["error"]) == ("failed", told)
    assert second.state() == "failed"  # it was killed there too
    assert command(*line).code == 0
    assert [run.state() for run in find_runs("outputs")] == ["finished"] * 2
    assert not {path.name for path in Path().iterdir()} - {"outputs", ".output0", ".output1"}
    whole = trained(*PLAIN, *TWO, "seed=0", folder="whole")
    assert differences(first, whole) <= {"overrides", "name"}


FAILING_LOSS = """
import os
from torch import nn
class Failing(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        if os.environ["RANK"] == "1" and logits.requires_grad:
            raise MemoryError("no more of it")
        return super().forward(logits, labels)
"""


@pytest.mark.cluster
def test_what_fails_in_one_process_is_what_the_run_has_failed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my_lab.py").write_text(FAILING_LOSS)
    Path("my_conf/loss").mkdir(parents=True)
    Path("my_conf/loss/failing.yaml").write_text("_target_: my_lab.Failing\n")
    monkeypatch.syspath_prepend(".")
    own = ("--config-dir", "my_conf", "loss=failing", "allow=[my_lab]")
    ended = command(*own, *PLAIN, *TWO, "hydra.run.dir=run")
    assert ended.code == 1
    assert f"error: no more of it; the traceback is in {Path.cwd()}/run/error.txt" in ended.output
    assert Run("run").status()["error"] == "no more of it"
    assert "in forward" in Run("run").error_file.read_text()
    assert ended_within(5)


@pytest.mark.cluster
def test_a_run_that_diverges_in_several_processes_tells_the_step_of_one() -> None:
    line = [*SAME, "optimizer=sgd", "grad_clip=0", "optimizer.lr=1e30"]
    errors = []
    for folder, words in {"several": TWO, "one": ()}.items():
        assert command(*line, *words, f"hydra.run.dir={folder}").code == 1
        assert Run(folder).state() == "diverged"
        errors.append(Run(folder).status()["error"].partition("in step")[2])
    assert errors[0] == errors[1]


@pytest.mark.cluster
def test_a_run_goes_on_in_another_number_of_processes_and_says_so() -> None:
    line = (*SAME, "data.num_train=603")
    ended = command(*line, *TWO, "hydra.run.dir=run", fault=Fault("step", 5, signal.SIGTERM, rank=0))
    assert ended.code == 143
    ended = command("resume=run", "trainer.devices=1")
    assert ended.code == 0, ended.output
    assert "note: the run began in 2 processes, and goes on in 1: not to the same bits" in ended.output
    check_equal(Run("run"), trained(*line, folder="one"))
