"""A sweep on a Ray cluster of two nodes with one core each equals the same sweep on one machine."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cifar_lab.runs import Sweep
from tests.conftest import Outcome, names
from tests.engines.test_side_by_side import KILLING, PLAIN, check_same, check_two_interrupted, command, wait_for_two

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs pip install 'cifar-lab[ray]'")
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

Lab = Callable[..., Outcome]
CLUSTER = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
input()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a cluster of two nodes, started in a different folder from the sweeps."""
    environment = {**os.environ, "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    folder = tmp_path_factory.mktemp("elsewhere")
    with subprocess.Popen([sys.executable, "-c", CLUSTER], env=environment, cwd=folder, **pipes) as cluster:
        yield next(line for line in cluster.stdout if ":" in line).split()[-1]
        cluster.communicate("\n")


@pytest.fixture
def killing(lab: Lab, outside: Callable[..., tuple[str, ...]]) -> tuple[str, ...]:
    """Overrides of a sweep whose first job is killed once."""
    return (*outside(*KILLING), *PLAIN)


def run_sweep(address: str, *arguments: str) -> tuple[int, str, str]:
    """Run a sweep on the cluster, and return its exit code, standard output and standard error."""
    process = command(*arguments, "hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}")
    out, errors = process.communicate()
    return process.returncode, out, errors


def test_the_same_command_completes_a_sweep_after_a_job_was_killed(
    lab: Lab, address: str, killing: tuple[str, ...]
) -> None:
    line = [*killing, "seed=0,1,2,3", "hydra.sweep.dir=ray"]
    code, _, errors = run_sweep(address, *line, "hydra.launcher.ray.remote.max_retries=0")
    assert code == 1, errors
    assert errors.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in errors
    before = {run.folder: run.status() for run in Sweep("ray").runs()}
    assert sorted(run.state() for run in Sweep("ray").runs()) == ["dead", "finished", "finished", "finished"]
    assert len({status["process"] for status in before.values()} - {os.getpid()}) >= 2
    code, out, errors = run_sweep(address, *line)
    assert code == 0, errors
    assert out.count(" 2/2 ") == 1
    after = {run.folder: run.status() for run in Sweep("ray").runs()}
    assert sum(after[folder] == before[folder] for folder in before) == 3
    assert lab("-m", *killing, "seed=0,1,2,3", "hydra.sweep.dir=serial").code == 0
    check_same(Sweep("ray"), Sweep("serial"))


@pytest.mark.usefixtures("lab")
def test_ray_restarts_a_job_whose_process_was_killed(address: str, killing: tuple[str, ...]) -> None:
    code, _, errors = run_sweep(address, *killing, "seed=0,1", "hydra.sweep.dir=sweep")
    assert code == 0, errors
    assert Path("spared").exists()
    assert [run.state() for run in Sweep("sweep").runs()] == ["finished"] * 2
    assert Path("sweep/table.md").exists()


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_rays_jobs_where_they_can_resume(address: str, number: signal.Signals) -> None:
    line = [*PLAIN, "epochs=2000", "scheduler=constant", "seed=0,1,2", "hydra.sweep.dir=sweep"]
    started = command(*line, "hydra/launcher=ray", f"hydra.launcher.ray.init.address={address}")
    wait_for_two(started)
    started.send_signal(number)
    check_two_interrupted(started, number)


@pytest.mark.usefixtures("lab")
def test_an_unreachable_cluster_gives_a_one_line_error() -> None:
    code, _, errors = run_sweep("127.0.0.1:1", *PLAIN, "seed=0,1")
    assert code == 2
    names(errors.splitlines()[-1], "hydra/launcher=ray", "127.0.0.1:1", os.strerror(errno.ECONNREFUSED))
    assert not list(Path().rglob("status.json"))
