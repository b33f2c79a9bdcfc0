"""What Slurm is asked for is checked before anything is queued, and what its jobs do with signals."""

import dataclasses
import importlib.util
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig

from cifar_lab.config import RunFailedError, checked, conf_folder, launchers
from cifar_lab.config.slurm_jobs import DetachedError, SlurmJobs
from cifar_lab.interruption import Interrupted, Interruption
from cifar_lab.runs import Sweep, job_key
from tests.conftest import TINY, Compose, Outcome

Lab = Callable[..., Outcome]
SLURM = "hydra/launcher=submitit_slurm"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's commands seem to be there, and the plugin is."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


REFUSED = {
    "hydra.launcher.timeout_min=0": "hydra.launcher.timeout_min=0: it takes a whole number from 1 on",
    "hydra.launcher.timeout_min=soon": "hydra.launcher.timeout_min=soon: it takes a whole number from 1 on",
    "hydra.launcher.gpus_per_node=-1": "hydra.launcher.gpus_per_node=-1: it takes a whole number from 1 on",
    "hydra.launcher.setup=x": "hydra.launcher.setup=x: it takes a list",
    "hydra.launcher.partiton=gpu": "hydra.launcher.partiton is unknown; did you mean hydra.launcher.partition?",
    "hydra.launcher.nodes=2": "hydra.launcher.nodes=2: a run of a sweep is one process; leave it at 1",
    "hydra.launcher.timeout_min=2": "hydra.launcher.signal_delay_s=120 leaves nothing of timeout_min=2; ",
    "jobs_per_device=2": "jobs_per_device=2 runs jobs on this machine; leave hydra/launcher= out",
}


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("word", REFUSED)
def test_what_no_job_can_have_is_refused(lab: Lab, word: str) -> None:
    outcome = lab("-m", *TINY, "seed=0,1", SLURM, word)
    assert outcome.code == 2
    assert outcome.stderr.startswith(f"error: {REFUSED[word]}")
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("commands")
def test_any_option_of_sbatch_may_be_added() -> None:
    line = ["-m", *TINY, "seed=0,1", SLURM, "+hydra.launcher.additional_parameters.mail_type=END"]
    asked = checked(line)
    assert asked.launcher is launchers.SLURM
    assert asked.jobs == [[*TINY, "seed=0"], [*TINY, "seed=1"]]


@pytest.mark.usefixtures("commands")
def test_a_clusters_settings_may_be_an_option_of_ones_own(lab: Lab) -> None:
    folder = Path("my_conf/hydra/launcher")
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text("defaults: [submitit_slurm, _self_]\npartition: gpu\ngpus_per_node: 1\n")
    line = ["--config-dir", "my_conf", "-m", *TINY, "seed=0,1", "hydra/launcher=ours"]
    assert checked(line).launcher is launchers.SLURM
    (folder / "ours.yaml").write_text("defaults: [submitit_slurm, _self_]\ngpus_per_node: 0\n")
    assert "hydra.launcher.gpus_per_node=0: it takes a whole number from 1 on" in lab(*line).stderr


@pytest.mark.usefixtures("commands")
def test_a_single_run_is_told_to_be_a_sweep_of_one(lab: Lab) -> None:
    assert f"{SLURM} is for sweeps; add --multirun" in lab(*TINY, SLURM).stderr


def test_what_is_missing_is_said_with_how_to_get_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    outcome = lab("-m", *TINY, "seed=0,1", SLURM)
    assert outcome.code == 2
    assert outcome.stderr == (
        f"error: {SLURM} needs hydra-submitit-launcher, which is not installed: pip install 'cifar-lab[slurm]'\n"
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert f"{SLURM} needs Slurm's sbatch, which is not found here" in lab("-m", *TINY, "seed=0,1", SLURM).stderr


def test_the_options_file_has_every_setting_of_the_plugin() -> None:
    config = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config")
    ours = yaml.safe_load((conf_folder() / "hydra" / "launcher" / "submitit_slurm.yaml").read_text())
    assert ours.keys() == {field.name for field in dataclasses.fields(config.SlurmQueueConf)}


def test_ended_jobs_are_those_that_the_queue_no_longer_has(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("submitit")
    from cifar_lab.config.slurm_queue import Queue

    queue = Queue()
    for job in ("7", "7_0", "7_1", "7_2"):  # submitit takes the array for a job
        queue.register_job(job)
    told = queue.read_info("7_0|CONFIGURING|None\n7_2|PENDING|PartitionTimeLimit\n9|RUNNING|None\n")
    assert {job: info["State"] for job, info in told.items()} == {
        "7": "ENDED",
        "7_0": "RUNNING",
        "7_1": "ENDED",
        "7_2": "PENDING",
    }
    assert capsys.readouterr().out == "Slurm's job 7: 1 waiting (PartitionTimeLimit), 1 running, 1 ended\n"


def test_what_queues_a_job_again_hears_the_signal_once_the_run_has_stopped() -> None:
    heard: list[str] = []

    def stopped() -> None:
        interruption = Interruption()
        with interruption.listening():
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGUSR2)  # Slurm may send it twice, and does not force an end by it
            heard.append("saved")
            interruption.check()

    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append("queued again"))
    try:
        with pytest.raises(Interrupted, match="SIGUSR2"):
            stopped()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == ["saved", "queued again"]


def test_within_a_job_of_slurm_a_run_of_one_process_is_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"JOB_ID": "12", "NTASKS": "2", "NTASKS_PER_NODE": "2", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in told.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    outcome = lab(*TINY, "epochs=1")
    assert outcome.code == 0, outcome.stderr


def _jobs(task: Callable[..., Any], composed: Compose, folder: Path) -> tuple[SlurmJobs, DictConfig]:
    asked = checked(["-m", *TINY, f"seed=range(0,{NUMBER})", f"hydra.sweep.dir={folder}"])
    return SlurmJobs(task, asked, Sweep(folder)), composed(*TINY)


NUMBER = 200


def test_a_job_of_a_large_sweep_does_not_hold_the_others(composed: Compose, tmp_path: Path) -> None:
    jobs, _ = _jobs(print, composed, tmp_path)
    assert len(jobs.planned) == NUMBER
    assert len(pickle.dumps(jobs)) < 2_000


def test_what_has_finished_is_queued_only_where_options_were_edited_since(lab: Lab, composed: Compose) -> None:
    assert lab("-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    jobs, _ = _jobs(print, composed, Path("sweep"))
    assert jobs.due == {job_key([*TINY, f"seed={seed}"]) for seed in range(2, NUMBER)}
    for result in Path("sweep").glob("*/result.json"):
        os.utime(result, (0, 1))
    jobs, _ = _jobs(print, composed, Path("sweep"))
    assert len(jobs.due) == NUMBER


@pytest.mark.parametrize(
    ("error", "code"), [(RunFailedError("it failed"), 1), (Interrupted(signal.SIGTERM), 143), (None, 0)]
)
def test_a_job_of_slurm_ends_as_its_run_does(
    error: BaseException | None, code: int, composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(*_: Any) -> float:
        if error is not None:
            raise error
        return 0.5

    pytest.importorskip("submitit")
    jobs, config = _jobs(task, composed, tmp_path)
    monkeypatch.setattr("cifar_lab.config.handover.HydraConfig", _Hydra)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if error is None:
        assert jobs.run(config) == 0.5
        return
    with pytest.raises(SystemExit) as exit_:
        jobs.run(config)
    assert exit_.value.code == code


class _Hydra:
    """Hydra's configuration of the first job of a sweep."""

    @staticmethod
    def get() -> DictConfig:
        return DictConfig({"runtime": {"output_dir": "run"}, "job": {"num": 0}})


def test_who_stops_waiting_is_told_how_to_stop_the_jobs() -> None:
    told = DetachedError(signal.SIGINT, ["12"]).told
    assert told == (
        "interrupted by SIGINT; jobs 12 go on in Slurm: scancel 12 stops them, and once they have ended the same "
        "command trains what is unfinished"
    )
