"""A sweep whose jobs run side by side in separate processes equals the sweep run one job at a time."""

import importlib.util
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig

from cifar_lab.config import Plan
from cifar_lab.config.command_line import PlannedJob, composing, parsed
from cifar_lab.engines import handover, side_by_side
from cifar_lab.engines.handover import Job, RunFailedError, Turn
from cifar_lab.engines.in_turn import Jobs
from cifar_lab.machine import hardware
from cifar_lab.machine.interruption import Interrupted
from cifar_lab.runs import Run, Sweep
from cifar_lab.train import assembly
from tests.comparison import sweep_differences
from tests.conftest import TINY, Compose, Outcome, names, refusal

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


# For `outside`: the first run is killed when its loss is first called, once.
KILLING = ("my_lab", KILLED_LOSS, "loss", "_target_: my_lab.Killed\n")


def check_same(one: Sweep, other: Sweep) -> None:
    """Check that two sweeps left bitwise identical results."""
    assert not sweep_differences(one, other)
    for left, right in zip(one.runs(), other.runs(), strict=True):
        assert left.steps_file.read_bytes() == right.steps_file.read_bytes()
        assert left.chosen_weights().read_bytes() == right.chosen_weights().read_bytes()


def wait_for_two(started: subprocess.Popen[str]) -> None:
    """Wait until two jobs of the sweep in the folder `sweep` have trained an epoch."""
    begun = 0
    while begun < 2 and started.poll() is None:
        time.sleep(0.1)
        begun = sum(run.metrics_file.exists() for run in Sweep("sweep").runs())


def check_two_interrupted(started: subprocess.Popen[str], number: signal.Signals) -> None:
    """Check that a signal to a sweep of three jobs stopped the two running ones, and that both can be resumed."""
    _, errors = started.communicate()
    assert started.returncode == 128 + number, errors
    runs = Sweep("sweep").runs()
    assert [run.state() for run in runs] == ["interrupted"] * 2  # the third did not start
    assert all(run.last_checkpoint.exists() for run in runs)
    names(errors.splitlines()[-1], number.name)
    assert "Traceback" not in errors


@pytest.fixture
def joblib(lab: Lab) -> None:
    """An empty folder; skips if the launcher is not installed."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")


@pytest.fixture
def in_this_process(joblib: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace joblib by a loop in this process that calls the function that a worker process would call."""

    class Parallel:
        def __init__(self, n_jobs: int, backend: str, **_: object) -> None:
            assert (n_jobs, backend) == (2, "loky")

        def __call__(self, jobs: Iterable[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
            sent = [cloudpickle.loads(cloudpickle.dumps(job)) for job in jobs]
            return [function(*arguments, **options) for function, arguments, options in sent]

    from hydra_plugins.hydra_joblib_launcher import _core
    from joblib.externals import cloudpickle

    monkeypatch.setattr(_core, "Parallel", Parallel)
    monkeypatch.setattr(handover, "stopped", threading.Event())


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "cifar_lab.train", "-m", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.usefixtures("in_this_process")
def test_outcomes_of_jobs_side_by_side_are_read_from_their_folders(lab: Lab) -> None:
    line = ["-m", *PLAIN, "epochs=1", "optimizer=sgd", "bn=false", "grad_clip=0", "optimizer.lr=0.01,1e30"]
    outcome = lab(*line, "jobs_per_device=2")
    assert outcome.code == 1
    finished, diverged = outcome.runs
    assert (finished.state(), diverged.state()) == ("finished", "diverged")
    names(outcome.stderr.splitlines()[-1], diverged.folder, diverged.status()["error"])
    assert (finished.folder.parent / "table.md").exists()


@pytest.mark.usefixtures("in_this_process")
def test_a_study_of_an_experiment_runs_side_by_side(lab: Lab) -> None:
    outcome = lab(*PLAIN, "study=batch_norm", "experiment=best_cnn", "epochs=1", "seed=0", "jobs_per_device=2")
    assert (outcome.code, len(outcome.runs)) == (0, 2), outcome.stderr


@pytest.mark.usefixtures("in_this_process")
def test_equal_runs_under_other_overrides_and_a_former_name_are_found_from_other_processes(lab: Lab) -> None:
    line = ["-m", *PLAIN, "epochs=1", "seed=0,1"]
    runs = lab(*line, "name=seed").runs
    again = lab(*line, "loss=ce", "logger=csv", "jobs_per_device=2")
    assert (again.code, len(again.runs)) == (0, len(runs)), again.stderr
    assert again.stdout.count("retrain=true") >= 2 and "missing" not in again.stdout


def test_missing_dead_and_interrupted_jobs_are_distinguished(lab: Lab) -> None:
    sweep = Sweep("sweep")
    lines = [["seed=0"], ["seed=1"], ["seed=2"]]
    sweep.plan(lines)
    dead, interrupted = (Run(sweep.folder / line[0]) for line in lines[:2])
    dead.start({}, lines[0])
    interrupted.start({}, lines[1])
    interrupted.fail("interrupted", Interrupted(signal.SIGTERM))
    plan = Plan(parsed([]), [PlannedJob(words) for words in lines], sweep_folder=sweep.folder, parallel=2)
    jobs = Jobs(bool, plan)
    with composing():
        jobs.look()
    assert [folder.name for folder in jobs.folders.values()] == ["seed=0", "seed=1"]
    assert jobs.left == [0]
    one, other = map(str, jobs.failures)
    assert "seed=1" in one and "SIGTERM" in one and "seed=2" in other
    jobs.failures.clear()
    with pytest.raises(RunFailedError, match="seed=0"):
        jobs.check()


@pytest.mark.usefixtures("in_this_process")
def test_a_worker_process_starts_no_job_after_a_signal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def task(job: Job) -> bool:
        done.append(job)
        raise Interrupted(signal.SIGINT)

    done: list[Job] = []
    hydra = {"runtime": {"output_dir": "x", "choices": {"model": "cnn"}}, "job": {"num": 0}, "overrides": {"task": []}}
    monkeypatch.setattr(handover, "HydraConfig", SimpleNamespace(get=lambda: DictConfig(hydra)))
    handed = handover.Handed(task, frozenset(), [0, 1], bytes(2), parallel=2)
    for _ in range(2):
        handed(DictConfig({"name": "x"}))
    assert len(done) == 1


@pytest.mark.usefixtures("joblib")
@pytest.mark.parametrize(("number", "handed_on"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_a_signal_is_forwarded_unless_the_terminal_sends_it_to_all(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, handed_on: int
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(multiprocessing, "active_children", lambda: [SimpleNamespace(pid=123456)])
    monkeypatch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
    with pytest.raises(Interrupted, match=number.name), side_by_side.supervised():
        signal.raise_signal(number)
    assert killed == [(123456, number)] * handed_on


@pytest.mark.usefixtures("joblib")
def test_a_killed_worker_process_is_reported() -> None:
    with pytest.raises(RunFailedError), side_by_side.supervised():
        raise BrokenExecutor


@pytest.mark.slow
@pytest.mark.usefixtures("joblib")
@pytest.mark.parametrize("how", ["jobs_per_device=2", "hydra/launcher=joblib hydra.launcher.n_jobs=2"])
def test_the_same_command_completes_a_sweep_with_a_killed_worker_and_gives_the_numbers_of_one_process(
    lab: Lab, outside: Callable[..., tuple[str, ...]], how: str
) -> None:
    line = ["-m", *outside(*KILLING), *PLAIN, "seed=0,1,2,3"]
    killed = lab(*line, *how.split(), "hydra.sweep.dir=beside")
    assert killed.code == 1
    assert killed.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in killed.stderr
    assert len([run for run in Sweep("beside").runs() if run.has_result()]) < 4
    again = lab(*line, *how.split(), "hydra.sweep.dir=beside")
    assert again.code == 0, again.stderr
    before = [run.status() for run in Sweep("beside").runs()]
    assert [status["threads"] for status in before] == [1] * 4
    assert len({status["process"] for status in before} - {os.getpid()}) >= 2
    assert lab(*line, "hydra.sweep.dir=serial").code == 0
    check_same(Sweep("beside"), Sweep("serial"))
    # A finished run is not trained again, whichever way the sweep is run.
    assert lab(*line, "hydra.sweep.dir=beside").code == 0
    assert [run.status() for run in Sweep("beside").runs()] == before


@pytest.mark.slow
@pytest.mark.usefixtures("joblib")
@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_stops_all_jobs_where_they_can_resume(lab: Lab, number: signal.Signals, to_all: bool) -> None:
    line = [*PLAIN, "epochs=2000", "scheduler=constant", "seed=0,1,2", "jobs_per_device=2", "hydra.sweep.dir=sweep"]
    started = command(*line, start_new_session=True)
    wait_for_two(started)
    (os.killpg if to_all else os.kill)(started.pid, number)
    check_two_interrupted(started, number)


def test_a_missing_launcher_gives_a_one_line_error_that_says_how_to_install_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    plugins = {"jobs_per_device=2": "joblib", "hydra/launcher=joblib": "joblib", "hydra/launcher=ray": "ray"}
    for word, plugin in {**plugins, "hydra/launcher=submitit_slurm": "submitit"}.items():
        extra = "slurm" if plugin == "submitit" else plugin
        refusal(lab("-m", *TINY, "seed=0,1", word), word, f"hydra-{plugin}-launcher", f"'cifar-lab[{extra}]'")


@pytest.mark.usefixtures("joblib")
def test_an_invalid_number_of_jobs_is_refused(lab: Lab) -> None:
    for word in ("jobs_per_device=0", "jobs_per_device=1,2"):
        refusal(lab("-m", *TINY, "seed=0,1", word), word)


def test_each_job_has_its_own_gpu(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "device_count", lambda accelerator: 2)
    config, native = composed(*TINY), hardware.Native("cuda", "32-true", hardware.torch.channels_last)
    turns = [Turn(number, 4, later=0, parallel=4) for number in (1, 2, 3, 4)]
    assert [assembly.trainer_options(config, native, turn)["devices"] for turn in turns] == [[0], [1], [0], [1]]
    assert assembly.trainer_options(config, native, Turn(2, 4, later=0))["devices"] == 1


@pytest.mark.parametrize(
    ("turn", "own", "seconds"),
    [
        (Turn(3, 5, 2, each=15.0), {}, 45.0),  # this job and the ones after it
        (Turn(3, 5, 2, each=15.0), {"own": 100.0, "own_left": 4.0}, 34.0),
        (Turn(1, 5, 4), {}, None),
        (Turn(1, 5, 4), {"own": 10.0, "own_left": 4.0}, 44.0),  # the first job's time stands for the others
        (Turn(1, 5, 1, each=10.0), {}, 20.0),  # jobs that finished before take no time
        (Turn(1, 9, later=7, each=10.0, parallel=3), {}, 10 + 10 * 3),
    ],
)
def test_the_time_left_covers_the_remaining_jobs(turn: Turn, own: dict[str, float], seconds: float | None) -> None:
    assert turn.seconds_left(**own) == seconds
    assert re.findall(r"\d+", str(turn)) == [str(turn.number), str(turn.total)]
