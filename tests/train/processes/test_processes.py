"""Several processes train one run with the numbers of a single process; whatever ends them, the run can be resumed."""

import os
import re
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cifar_lab.runs import Run, find_runs, read_checkpoint
from tests.comparison import differences
from tests.conftest import TINY, Train, names
from tests.faults import Ended, Fault, command

pytestmark = pytest.mark.usefixtures("empty_folder")
# 57 images in batches of 6 leave uneven parts of the last batch; the network has BatchNorm and dropout.
PLAIN = (*TINY, "data.num_train=63", "trainer.precision=32-true", "logger=none")
# With these settings, several processes give the numbers of one.
SAME = (*PLAIN, "bn=false", "model.dropout=0")
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


def finished_run(*arguments: str, folder: str) -> Run:
    ended = command(*arguments, f"hydra.run.dir={folder}")
    assert ended.code == 0, ended.output
    return Run(folder)


def errors(ended: Ended) -> list[str]:
    return [line for line in ended.output.splitlines() if line.startswith("error: ")]


def other_processes() -> list[int]:
    """Return the other processes whose current folder is this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(path / "cwd")) == Path.cwd() and (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            pass
    return [number for number in found if number != os.getpid()]


def ended_within(seconds: float) -> bool:
    for number in other_processes():
        try:
            handle = os.pidfd_open(number)
        except ProcessLookupError:
            continue
        select.select([handle], [], [], seconds)
        os.close(handle)
    return not other_processes()


def check_equal(several: Run, one: Run) -> None:
    """Check that two runs have the same numbers, up to the rounding of sums in a different order."""
    for name, values in one.steps().items():
        # Rounding may move a value across an activation's kink, which changes a small gradient by a percent.
        rtol = 0.05 if name == "first_conv_grad_norm" else 1e-4
        torch.testing.assert_close(torch.tensor(several.steps()[name]), torch.tensor(values), rtol=rtol, atol=1e-6)
    states = [read_checkpoint(run.last_checkpoint)["state_dict"] for run in (several, one)]
    assert list(states[0]) == list(states[1])  # so no name begins with `module.`
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
    "mixup, label smoothing": ("augment=mixup", "loss=label_smoothing"),
    "hard images more often": ("data.skip_easy=0.6", "augment=alternating_flip", "optimizer=sgd"),
    "muon, linear, lookahead": (
        "optimizer=muon",
        "scheduler=linear",
        "averaging=lookahead",
        "optimizer.relative_lr.head=2",
    ),
}


@pytest.mark.parametrize("row", [pytest.param(row, marks=[pytest.mark.slow] if "swa" in row else []) for row in ROWS])
def test_two_processes_train_like_one_and_only_the_first_prints_and_writes(row: str, trained: Train) -> None:
    line = (*SAME, *ROWS[row], *TWO, "logger=csv", "callbacks=snapshots")
    ended = command(*line, "hydra.run.dir=several")
    assert ended.code == 0, ended.output
    several, one = Run("several"), trained(*SAME, *ROWS[row], name="one")
    check_equal(several, one)
    assert several.result()["world_size"] == several.status()["world_size"] == 2
    assert several.result()["fingerprint"] != one.result()["fingerprint"]  # the number of devices was typed
    assert ended.output.count(" 1/2 ") == ended.output.count(f"{several.result()['test/acc']:.2%} (") == 1
    assert "Warning" not in ended.output
    assert sorted(path.name for path in (several.folder / "csv").iterdir()) == ["hparams.yaml", "metrics.csv"]
    assert list(several.snapshots()) == [0, 1, 2]
    assert not list(Path().glob("outputs")) and ended_within(5)


@pytest.mark.slow
def test_batch_norm_over_each_processs_part_is_noted() -> None:
    ended = command(*PLAIN, *TWO, "logger=tensorboard", "hydra.run.dir=run")
    assert ended.code == 0
    assert len(list(Run("run").tensorboard.iterdir())) == 1
    (note,) = (line for line in ended.output.splitlines() if line.startswith("note: "))
    assert all(fact in note for fact in ("BatchNorm", "3", "2", "6"))
    assert Run("run").result()["batch_norm_per_process"] is True


@pytest.mark.slow
def test_a_signal_saves_all_processes_at_one_step_and_the_run_resumes_to_the_same_bits() -> None:
    # long enough for a signal to arrive through the parent process
    line = [*PLAIN, *TWO, "data.num_train=603", "trainer.accumulate_grad_batches=2", "averaging=ema"]
    ended = command(*line, "hydra.run.dir=run", fault=Fault("step", 5, signal.SIGTERM, rank=1))
    assert ended.code == 143
    names(ended.output.splitlines()[-1], "SIGTERM", "resume=run ")
    run = Run("run")
    assert run.state() == "interrupted"
    assert read_checkpoint(run.last_checkpoint)["global_step"] == run.status()["step"] < 46
    assert ended_within(5)
    assert command("resume=run", fault=Fault("validation", 1, signal.SIGINT, rank=0)).code == 130
    assert command("resume=run").code == 0
    assert not differences(run, finished_run(*line, folder="whole"))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_the_same_command_resumes_to_the_same_bits(rank: int) -> None:
    line = ["-m", *PLAIN, *TWO, "seed=0,1"]
    ended = command(*line, fault=Fault("batch", 14, rank=rank))
    assert ended.code == 1
    names(errors(ended)[0], f"process {rank} ", "SIGKILL")
    assert ended_within(5)
    first, second = find_runs("outputs")
    assert f"process {rank} " in first.status()["error"] and "SIGKILL" in first.status()["error"]
    assert [run.state() for run in (first, second)] == ["failed"] * 2  # the second run was killed as well
    assert command(*line).code == 0
    assert [run.state() for run in find_runs("outputs")] == ["finished"] * 2
    assert " 1/2 " not in command(*line).output  # nothing is trained twice
    assert not {path.name for path in Path().iterdir()} - {"outputs", ".output0", ".output1", ".output2"}
    whole = finished_run(*PLAIN, *TWO, "seed=0", folder="whole")
    assert differences(first, whole) <= {"overrides", "name"}


FAILING_LOSS = """
import os
from torch import nn
class Failing(nn.CrossEntropyLoss):
    def __init__(self, rank):
        super().__init__()
        self.rank = str(rank)
    def forward(self, logits, labels):
        if os.environ["RANK"] == self.rank and logits.requires_grad:
            raise MemoryError("exhausted")
        return super().forward(logits, labels)
"""


@pytest.mark.slow
def test_an_error_in_one_process_is_the_runs_error(outside: Callable[..., tuple[str, ...]]) -> None:
    own = outside("my_lab", FAILING_LOSS, "loss", "_target_: my_lab.Failing\nrank: 1\n")
    ended = command(*own, *PLAIN, *TWO, "hydra.run.dir=run")
    assert ended.code == 1
    (error,) = errors(ended)
    names(error, "exhausted", f"{Path.cwd()}/run/error.txt")
    assert Run("run").status()["error"] == "exhausted"
    assert "in forward" in Run("run").error_file.read_text(encoding="utf-8")
    assert ended_within(5)


@pytest.mark.slow
def test_a_run_that_diverges_in_several_processes_reports_the_same_step_as_one_process() -> None:
    line = [*SAME, "optimizer=sgd", "grad_clip=0", "optimizer.lr=1e30"]
    steps = []
    for folder, words in {"several": TWO, "one": ()}.items():
        assert command(*line, *words, f"hydra.run.dir={folder}").code == 1
        assert Run(folder).state() == "diverged"
        steps.append(re.findall(r"\d+", Run(folder).status()["error"]))
    assert steps[0] == steps[1] != []


@pytest.mark.slow
def test_a_run_resumes_with_a_different_number_of_processes_and_a_note() -> None:
    line = (*SAME, "data.num_train=603")
    ended = command(*line, *TWO, "hydra.run.dir=run", fault=Fault("step", 5, signal.SIGTERM, rank=0))
    assert ended.code == 143
    ended = command("resume=run", "trainer.devices=1")
    assert ended.code == 0, ended.output
    (note,) = (line for line in ended.output.splitlines() if line.startswith("note: "))
    assert re.findall(r"\d+", note) == ["2", "1"]
    check_equal(Run("run"), finished_run(*line, folder="one"))
