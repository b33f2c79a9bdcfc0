"""Settings for Slurm are checked before anything is queued; Slurm's jobs handle signals."""

import dataclasses
import json
import os
import pickle
import re
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from cifar_lab.config import Plan, checked, conf_folder, launchers
from cifar_lab.engines.handover import Job, RunFailedError
from cifar_lab.engines.slurm_jobs import DetachedError, SlurmJobs
from cifar_lab.machine.interruption import Interrupted
from tests.conftest import TINY, Compose, Outcome, Train, holds, refusal

Lab = Callable[..., Outcome]
SLURM = "hydra/launcher=submitit_slurm"
LOCAL = f"hydra.launcher._target_={launchers.SLURM.plugin}.LocalLauncher"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Slurm's commands appear installed; skips without the plugin."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("-m seed=0,1 hydra.launcher.timeout_min=0", ("hydra.launcher.timeout_min=0", "1")),
        ("-m seed=0,1 hydra.launcher.timeout_min=soon", ("hydra.launcher.timeout_min=soon", "1")),
        ("-m seed=0,1 hydra.launcher.partiton=gpu", ("hydra.launcher.partiton", "hydra.launcher.partition")),
        ("-m seed=0,1 hydra.launcher.timeout_min=2", ("hydra.launcher.signal_delay_s=120", "timeout_min=2")),
        ("-m seed=0,1 hydra.launcher.nodes=2", ("hydra.launcher.nodes=2", "1")),
        ("-m seed=0,1 hydra.launcher.tasks_per_node=2", ("hydra.launcher.tasks_per_node=2", "1")),
        ("-m seed=0,1 hydra.sweeper.max_batch_size=0", ("hydra.sweeper.max_batch_size=0", "positive")),
        ("-m seed=0,1 jobs_per_device=2", ("jobs_per_device=2", "hydra/launcher=")),
        (f"-m seed=0,1 {LOCAL}", ("submitit_local", "jobs_per_device=")),
        ("", (SLURM, "--multirun")),
    ],
)
def test_impossible_settings_of_a_job_are_refused(lab: Lab, words: str, facts: tuple[str, ...]) -> None:
    refusal(lab(*TINY, SLURM, *words.split()), *facts)
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("commands")
def test_a_users_option_may_set_any_option_of_sbatch(lab: Lab) -> None:
    folder = Path("my_conf/hydra/launcher")
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text("defaults: [submitit_slurm, _self_]\npartition: gpu\ngpus_per_node: 1\n")
    line = ["--config-dir", "my_conf", "-m", *TINY, "seed=0,1", "hydra/launcher=ours"]
    asked = checked([*line, "+hydra.launcher.additional_parameters.mail_type=END"])
    assert asked.launcher is launchers.SLURM
    assert [job.words for job in asked.jobs] == [[*TINY, "seed=0"], [*TINY, "seed=1"]]
    (folder / "ours.yaml").write_text("defaults: [submitit_slurm, _self_]\ngpus_per_node: 0\n")
    refusal(lab(*line), "hydra.launcher.gpus_per_node=0", "1")


def test_a_missing_slurm_gives_a_one_line_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    refusal(lab("-m", *TINY, "seed=0,1", SLURM), SLURM, "sbatch")


def test_the_option_file_has_every_setting_of_the_plugin() -> None:
    config = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    ours = yaml.safe_load((conf_folder() / "hydra" / "launcher" / "submitit_slurm.yaml").read_text())
    assert ours.keys() == {field.name for field in dataclasses.fields(config.SlurmQueueConf)}


def test_jobs_have_ended_once_they_left_the_queue(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit")
    from cifar_lab.engines.slurm_queue import Queue

    queue = Queue()
    for job in ("7", "7_0", "7_1", "7_2"):  # submitit registers the array itself as a job
        queue.register_job(job)
    told = queue.read_info("7_0|CONFIGURING|None\n7_2|PENDING|PartitionTimeLimit\n9|RUNNING|None\n")
    states = {job: info["State"] for job, info in told.items()}
    assert states == {"7": "ENDED", "7_0": "RUNNING", "7_1": "ENDED", "7_2": "PENDING"}
    (line,) = capsys.readouterr().out.splitlines()
    assert re.findall(r"\d+|PartitionTimeLimit", line) == ["7", "1", "PartitionTimeLimit", "1", "1"]


def test_a_run_inside_a_slurm_job_has_one_process(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"JOB_ID": "12", "NTASKS": "2", "NTASKS_PER_NODE": "2", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in told.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    outcome = lab(*TINY, "logger=none", "epochs=1")
    assert outcome.code == 0, outcome.stderr


@cache
def _plan() -> Plan:
    return checked(["-m", *TINY, f"seed=range(0,{NUMBER})"])


def _jobs(task: Callable[..., Any], folder: Path) -> SlurmJobs:
    return SlurmJobs(task, dataclasses.replace(_plan(), sweep_folder=folder))


NUMBER = 200


def test_a_job_of_a_large_sweep_is_sent_without_the_others(tmp_path: Path) -> None:
    jobs = _jobs(print, tmp_path)
    assert len(jobs.due(range(NUMBER))) == NUMBER
    assert len(pickle.dumps(jobs.handed(range(NUMBER)))) < 2_000


def test_a_sweep_larger_than_an_array_is_queued_in_several_arrays(tmp_path: Path) -> None:
    jobs = _jobs(print, tmp_path)
    (first,) = jobs.arrays(range(NUMBER))
    assert len(first) == NUMBER
    plan = checked(["-m", *TINY, "seed=range(0,5)", "hydra.sweeper.max_batch_size=2"])
    jobs = SlurmJobs(print, dataclasses.replace(plan, sweep_folder=tmp_path))
    assert jobs.arrays([0, 2, 3]) == [[0, 2], [3]]


def test_a_finished_run_is_queued_only_if_its_options_were_edited_since(trained: Train, tmp_path: Path) -> None:
    run = trained(*TINY, "logger=none")
    composition = {**run.composition(), "overrides": [*TINY, "seed=1"]}
    run.composition_file.write_text(json.dumps(composition), encoding="utf-8")
    os.utime(run.result_file)
    assert _jobs(print, tmp_path).due(range(NUMBER)) == [0, *range(2, NUMBER)]
    os.utime(run.result_file, (0, 1))
    assert len(_jobs(print, tmp_path).due(range(NUMBER))) == NUMBER


@pytest.mark.parametrize(
    ("error", "code"), [(RunFailedError("it failed"), 1), (Interrupted(signal.SIGTERM), 143), (None, None)]
)
def test_a_slurm_job_ends_with_the_exit_code_of_its_run(
    error: BaseException | None, code: int | None, composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(job: Job) -> bool:
        done.append(job)
        if error is not None:
            raise error
        return True

    pytest.importorskip("submitit")
    done: list[Job] = []
    runtime = {"output_dir": "run", "choices": {"model": "cnn"}}
    hydra = {"runtime": runtime, "job": {"num": 0}, "overrides": {"task": ["seed=0"]}}
    monkeypatch.setattr("cifar_lab.engines.handover.HydraConfig", SimpleNamespace(get=lambda: DictConfig(hydra)))
    with nullcontext() if code is None else pytest.raises(SystemExit) as exit_:
        _jobs(task, tmp_path).handed([0])(composed(*TINY))
    assert code is None or exit_.value.code == code
    ((folder, words, settings),) = [(job.folder, job.words, job.settings) for job in done]
    assert (folder, words, settings["name"]) == (Path("run"), ["seed=0"], "test")


def test_a_stopped_command_prints_how_to_stop_the_jobs() -> None:
    holds(DetachedError(signal.SIGINT, ["12", "13"]).message, "SIGINT", "scancel 12 13")
