"""A sweep of six by joblib, of which a process is killed, is the sweep that it is one job after the other."""

from collections.abc import Callable

import pytest

from cifar_lab.runs import Sweep
from tests.comparison import sweep_differences
from tests.conftest import Outcome
from tests.engines.test_side_by_side import PLAIN, killing_loss

pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs pip install 'cifar-lab[joblib]'")
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

Lab = Callable[..., Outcome]


@pytest.mark.parametrize("how", [("jobs_per_device=2",), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")])
def test_the_same_command_ends_a_sweep_of_which_a_process_was_killed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, how: tuple[str, ...]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    line = ["-m", *killing_loss(monkeypatch), *PLAIN, "seed=0,1,2,3,4,5"]
    killed = lab(*line, *how, "hydra.sweep.dir=joblib")
    assert killed.code == 1
    assert killed.stderr.splitlines()[-1].startswith("error: ")
    assert len([run for run in Sweep("joblib").runs() if run.has_result()]) < 6
    again = lab(*line, *how, "hydra.sweep.dir=joblib")
    assert again.code == 0, again.stderr
    assert lab(*line, "hydra.sweep.dir=serial").code == 0
    assert not sweep_differences(Sweep("joblib"), Sweep("serial"))
    for one, other in zip(Sweep("joblib").runs(), Sweep("serial").runs(), strict=True):
        assert one.steps_file.read_bytes() == other.steps_file.read_bytes()
        assert one.chosen_weights().read_bytes() == other.chosen_weights().read_bytes()
