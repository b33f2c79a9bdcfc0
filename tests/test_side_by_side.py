"""A sweep whose jobs run side by side, in processes of their own, is the sweep that it is one after the other."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.fingerprints import fingerprint
from cifar_lab.jobs import Job
from cifar_lab.runs import Sweep
from tests.comparison import differences
from tests.conftest import TINY, Compose, Outcome

Lab = Callable[..., Outcome]
PLAIN = (*TINY, "logger=none", "trainer.precision=32-true")
KILLED_LOSS = """
import os, signal
from pathlib import Path
from torch import nn
class Killed(nn.CrossEntropyLoss):
    def forward(self, logits, labels):
        if not Path("spared").exists():
            Path("spared").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(logits, labels)
"""


def killing_loss(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The words of a command line whose first run is killed as it takes its first loss, once."""
    Path("my_lab.py").write_text(KILLED_LOSS)
    Path("my_conf/loss").mkdir(parents=True)
    Path("my_conf/loss/killed.yaml").write_text("_target_: my_lab.Killed\n")
    monkeypatch.syspath_prepend(".")
    return "--config-dir", "my_conf", "loss=killed", "allow=[my_lab]"


def wait_for_two(started: subprocess.Popen[str]) -> None:
    """Wait until two jobs of the sweep in the folder `sweep` have trained an epoch."""
    begun = 0
    while begun < 2 and started.poll() is None:
        time.sleep(0.1)
        begun = sum(run.metrics_file.exists() for run in Sweep("sweep").runs())


def check_two_interrupted(started: subprocess.Popen[str], number: signal.Signals) -> None:
    """Check that a signal to a sweep of three has stopped the two that had begun, where they can go on."""
    _, errors = started.communicate()
    assert started.returncode == 128 + number, errors
    runs = Sweep("sweep").runs()
    assert [run.state() for run in runs] == ["interrupted"] * 2  # the third was not begun
    assert all(run.last_checkpoint.exists() for run in runs)
    assert f"interrupted by {number.name}; the same command goes on where it stopped" in errors
    assert "Traceback" not in errors


@pytest.fixture
def joblib(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, the package installed, and one thread for each job however many cores there are."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "cifar_lab.train", "-m", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.usefixtures("joblib")
def test_jobs_side_by_side_have_the_numbers_of_jobs_one_after_the_other(lab: Lab) -> None:
    line = ["-m", *PLAIN, "epochs=1", "seed=0,1"]
    beside = lab(*line, "jobs_per_device=2", "hydra.sweep.dir=beside")
    assert beside.code == 0, beside.stderr
    assert [run.status()["threads"] for run in beside.runs] == [1, 1]
    assert len({run.status()["process"] for run in beside.runs} - {os.getpid()}) == 2
    assert Path("beside/table.md").exists()
    assert lab(*line, "hydra.sweep.dir=after").code == 0
    beside_runs, after_runs = Sweep("beside").runs(), Sweep("after").runs()
    assert [run.folder.name for run in beside_runs] == [run.folder.name for run in after_runs]
    for one, other in zip(beside_runs, after_runs, strict=True):
        assert not differences(one, other)
    # A finished one is not trained again, in whichever way the command asks for it.
    before = [run.status() for run in beside_runs]
    assert lab(*line, "hydra.sweep.dir=beside").code == 0
    assert [run.status() for run in beside_runs] == before


@pytest.mark.slow
@pytest.mark.usefixtures("joblib")
def test_a_job_that_fails_is_told_and_the_others_run(lab: Lab) -> None:
    line = ["-m", *PLAIN, "epochs=1", "optimizer=sgd", "bn=false", "grad_clip=0", "optimizer.lr=1e30,0.01"]
    outcome = lab(*line, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert outcome.code == 1
    states = {run.config()["optimizer"]["lr"]: run.state() for run in outcome.runs}
    assert states == {1e30: "diverged", 0.01: "finished"}
    assert "not every run of the sweep finished; the first that did not: " in outcome.stderr
    assert "has diverged: the loss is nan" in outcome.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("joblib")
def test_a_killed_process_is_one_line_and_the_same_command_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["-m", *killing_loss(monkeypatch), *PLAIN, "epochs=1", "seed=0,1,2", "jobs_per_device=2"]
    killed = lab(*line)
    assert killed.code == 1
    assert "error: a process was killed; the same command goes on with what is unfinished" in killed.stderr
    assert "Traceback" not in killed.stderr
    again = lab(*line)
    assert again.code == 0, again.stderr
    assert [run.state() for run in again.runs] == ["finished"] * 3


@pytest.mark.slow
@pytest.mark.usefixtures("joblib")
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_stops_all_of_them_where_they_can_go_on(lab: Lab, number: signal.Signals, to_all: bool) -> None:
    line = [*PLAIN, "epochs=2000", "scheduler=constant", "seed=0,1,2", "jobs_per_device=2", "hydra.sweep.dir=sweep"]
    started = command(*line, start_new_session=True)
    wait_for_two(started)
    (os.killpg if to_all else os.kill)(started.pid, number)
    check_two_interrupted(started, number)


def test_a_missing_package_is_one_line_that_says_how_to_get_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for word, extra in {
        "jobs_per_device=2": "joblib",
        "hydra/launcher=joblib": "joblib",
        "hydra/launcher=ray": "ray",
    }.items():
        outcome = lab("-m", *TINY, "seed=0,1", word)
        assert outcome.code == 2
        assert outcome.stderr == (
            f"error: {word} needs hydra-{extra}-launcher, which is not installed: pip install 'cifar-lab[{extra}]'\n"
        )


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("jobs_per_device=0", "jobs_per_device=0: it takes a whole number from 1 on"),
        ("jobs_per_device=1,2", "jobs_per_device=1,2: a sweep takes values of a list, and never of name or jobs_per_"),
    ],
)
@pytest.mark.usefixtures("joblib")
def test_what_is_no_number_of_jobs_is_refused(lab: Lab, word: str, line: str) -> None:
    outcome = lab("-m", *TINY, "seed=0,1", word)
    assert outcome.code == 2
    assert line in outcome.stderr


def test_the_fingerprint_is_that_of_the_run_wherever_it_runs(composed: Compose) -> None:
    from cifar_lab.config import resolved

    configs = [resolved(composed(*TINY, f"jobs_per_device={number}")) for number in (1, 3)]
    assert fingerprint(configs[0]) == fingerprint(configs[1])


def test_the_time_left_counts_on_jobs_side_by_side() -> None:
    assert Job(1, 9, later=7, seconds=[10.0], beside=3).seconds_left() == 10 + 10 * 3


def test_a_job_has_a_gpu_of_its_own(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    from cifar_lab import assembly, hardware

    monkeypatch.setattr(hardware, "device_count", lambda accelerator: 2)
    config, native = composed(*TINY), hardware.Native("cuda", "32-true", hardware.torch.channels_last)
    jobs = [Job(number, 4, later=0, seconds=[], beside=4) for number in (1, 2, 3, 4)]
    assert [assembly.trainer_options(config, native, job)["devices"] for job in jobs] == [[0], [1], [0], [1]]
    assert assembly.trainer_options(config, native, Job(2, 4, later=0, seconds=[]))["devices"] == 1
