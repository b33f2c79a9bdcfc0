"""A sweep on a real Slurm leaves the same results as in one process, whatever happens to its jobs."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.runs import Run, Sweep
from tests.cluster.slurm import Slurm, missing, running
from tests.comparison import sweep_differences
from tests.conftest import TINY, Outcome, names

pytestmark = pytest.mark.cluster

Lab = Callable[..., Outcome]
# In a disturbed command, the loss kills its process or takes so long that the job reaches its time limit.
FAULTY_LOSS = """
import os, signal, time
from torch import nn
class Faulty(nn.CrossEntropyLoss):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.batches = 0
    def forward(self, logits, labels):
        disturbed = "DISTURBED" in os.environ and "SLURM_RESTART_COUNT" not in os.environ and self.training
        self.batches += 1
        if disturbed and self.fault == "killed" and self.batches == 12:
            os.kill(os.getpid(), signal.SIGKILL)
        if disturbed and self.fault == "slow":
            time.sleep(1)
        return super().forward(logits, labels)
"""
OPTION = "_target_: my_lab.Faulty\nfault: none\n"
LINE = [*TINY, "epochs=12", "trainer.precision=32-true", "logger=none", "loss=faulty", "allow=[my_lab]"]
ON_SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=9"]
ON_SLURM += ["hydra.launcher.signal_delay_s=60", "hydra.launcher.max_num_timeout=9"]
SWEEP = ["-m", *LINE, "loss.fault=none,killed,slow", "seed=0,1"]


class Command:
    """A command in its own process, in the current folder and with access to Slurm."""

    def __init__(self, slurm: Slurm, *arguments: str, **environment: str) -> None:
        everything = {**os.environ, **slurm.environment, "PYTHONPATH": os.getcwd()}
        line = [sys.executable, "-m", "cifar_lab.train", "--config-dir", "my_conf", *arguments]
        pipe: Any = subprocess.PIPE
        self.process = subprocess.Popen(
            line, env={**everything, **environment}, stdout=pipe, stderr=pipe, text=True, process_group=0
        )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ended(self) -> Outcome:
        """Wait for the command to end."""
        out, errors = self.process.communicate()
        return Outcome(self.process.returncode, out, errors, [])


@pytest.fixture(scope="module")
def slurm_of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm of two nodes with two processors each; skips if its packages are missing."""
    if why := missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("slurm")
    for path in (folder, *folder.parents[:2]):  # munged requires that others can reach its socket
        path.chmod(0o755)
    with running(folder) as slurm:
        yield slurm


@pytest.fixture
def slurm(slurm_of_all_tests: Slurm, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A Slurm, and an empty folder with a loss that fails; no job is left in the queue after the test."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'cifar-lab[slurm]'")
    Path("my_lab.py").write_text(FAULTY_LOSS)
    Path("my_conf/loss").mkdir(parents=True)
    Path("my_conf/loss/faulty.yaml").write_text(OPTION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_lab", raising=False)
    yield slurm_of_all_tests
    slurm_of_all_tests.cancel_all()


def by_fault(folder: str) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in Sweep(folder).runs():
        found.setdefault(run.config()["loss"]["fault"], []).append(run)
    return found


def logs(folder: str) -> list[str]:
    """Output of each Slurm job."""
    return [path.read_text() for path in sorted(Path(folder).glob(".submitit/*/*_log.out"))]


def counts(output: str) -> list[tuple[int, int, int]]:
    """Numbers of waiting, running and ended jobs in each status line."""
    found = re.findall(r"(\d+) \w+(?: \(.*\))?, (\d+) \w+, (\d+) \w+$", output, re.MULTILINE)
    return [(int(waiting), int(running), int(ended)) for waiting, running, ended in found]


def wait_for(condition: Callable[[], bool], command: Command | None = None, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert command is None or command.process.poll() is None, command.ended()
        time.sleep(0.2)


@pytest.mark.timeout(1200)  # took 270 s on two cores at load 10, 390 s at load 14
def test_a_sweep_with_killed_and_timed_out_jobs_equals_the_sweep_in_one_process(slurm: Slurm, lab: Lab) -> None:
    line = [*SWEEP, *ON_SLURM, "hydra.sweep.dir=over_slurm"]
    limited, stopped = set(), set()
    with Command(slurm, *line, DISTURBED="1") as command:
        while command.process.poll() is None:
            for run in by_fault("over_slurm").get("slow", []):
                if run.folder not in limited and run.has_begun():
                    slurm.end_within_two_minutes(next(j for j in slurm.jobs() if j.endswith(f"_{4 + len(limited)}")))
                    limited.add(run.folder)
                if run.state() == "interrupted" and run.last_checkpoint.exists():
                    stopped.add(run.folder)
            time.sleep(0.2)
        first = command.ended()
    assert first.code == 1, first.stderr
    states = {fault: [run.state() for run in runs] for fault, runs in by_fault("over_slurm").items()}
    assert states == {"none": ["finished"] * 2, "killed": ["dead"] * 2, "slow": ["finished"] * 2}, first
    assert len(stopped) == 2  # jobs at their time limit saved, were requeued, and resumed
    assert sum("timed-out" in log and "Requeued" in log for log in logs("over_slurm")) == 2
    assert any(run.folder.name in first.stderr.splitlines()[-1] for run in by_fault("over_slurm")["killed"])
    assert "Traceback" not in first.stderr
    assert counts(first.stdout)[-1][1:] == (0, 6)
    finished = {run.folder: run.status() for run in Sweep("over_slurm").runs() if run.state() == "finished"}

    with Command(slurm, *line) as command:
        second = command.ended()
    assert second.code == 0, second.stderr
    queued = len(logs("over_slurm"))
    assert queued == 8  # finished runs are not queued
    assert {folder: Run(folder).status() for folder in finished} == finished
    with Command(slurm, *line) as command:
        assert command.ended().code == 0
    assert len(logs("over_slurm")) == queued

    assert lab("--config-dir", "my_conf", *SWEEP, "hydra.sweep.dir=in_one_process").code == 0
    assert not sweep_differences(Sweep("over_slurm"), Sweep("in_one_process"))


def test_scancel_saves_a_job_and_a_stopped_command_leaves_the_others_queued(slurm: Slurm, lab: Lab) -> None:
    sweep = ["-m", *LINE, "loss.fault=slow", "seed=0,1"]
    line = [*sweep, *ON_SLURM, "hydra.sweep.dir=over_slurm"]
    with Command(slurm, *line, DISTURBED="1") as command:
        wait_for(lambda: [run.has_begun() for run in Sweep("over_slurm").runs()] == [True, True], command)
        (one, other) = sorted(slurm.jobs())
        slurm("scancel", one)
        wait_for(lambda: slurm.jobs().keys() == {other}, command)
        assert sorted(run.state() for run in Sweep("over_slurm").runs()) == ["interrupted", "running"]
        command.process.send_signal(signal.SIGINT)
        ended = command.ended()
    number = one.partition("_")[0]
    assert ended.code == 130
    assert f"scancel {number}" in ended.stderr
    assert slurm.jobs() == {other: "RUNNING"}
    slurm("scancel", number)
    wait_for(lambda: not slurm.jobs())
    for run in Sweep("over_slurm").runs():
        assert run.state() == "interrupted"
        assert run.last_checkpoint.exists()

    with Command(slurm, *line) as command:
        assert command.ended().code == 0
    assert lab("--config-dir", "my_conf", *sweep, "hydra.sweep.dir=in_one_process").code == 0
    assert not sweep_differences(Sweep("over_slurm"), Sweep("in_one_process"))


def test_the_reason_why_jobs_wait_is_printed_and_cancelled_jobs_are_missing(slurm: Slurm) -> None:
    line = ["-m", *LINE, "seed=0,1", *ON_SLURM, "hydra.launcher.partition=short", "hydra.launcher.timeout_min=5"]
    with Command(slurm, *line) as command:
        wait_for(lambda: list(slurm.jobs().values()) == ["PENDING"] * 2, command)
        time.sleep(3)  # time for one poll of the queue
        slurm("scancel", next(iter(slurm.jobs())).partition("_")[0])
        ended = command.ended()
    assert ended.code == 1
    assert "PartitionTimeLimit" in ended.stdout
    assert (2, 0, 0) in counts(ended.stdout)
    names(ended.stderr.splitlines()[-1], "seed=0")


def test_a_refusal_by_slurm_gives_a_one_line_error(slurm: Slurm) -> None:
    with Command(slurm, "-m", *LINE, "seed=0,1", *ON_SLURM, "hydra.launcher.partition=nowhere") as command:
        ended = command.ended()
    assert ended.code == 2
    names(ended.stderr.splitlines()[-1], "sbatch: error: ", "partition", "nowhere")
    assert "Traceback" not in ended.stderr
