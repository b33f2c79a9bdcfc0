"""Several processes on one sweep's folder, like several machines that share it, train each job once."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab.runs import Sweep
from tests.comparison import differences
from tests.conftest import Outcome, names
from tests.engines.test_side_by_side import PLAIN, command

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

Lab = Callable[..., Outcome]


def test_four_processes_train_each_job_of_a_sweep_once(lab: Lab) -> None:
    jobs = ("seed=0,1,2,3,4,5", "hydra.sweep.dir=shared")
    processes = [command(*PLAIN, *jobs) for _ in range(4)]
    told = [process.communicate() for process in processes]
    codes = [process.returncode for process in processes]  # 1 if a different process was still training the last job
    assert 0 in codes, told
    assert all("elsewhere" in err for code, (_, err) in zip(codes, told, strict=True) if code), told
    lines = "".join(out for out, _ in told)
    assert lines.count(" 1/2 ") == lines.count(" 2/2 ") == 6
    runs = Sweep("shared").runs()
    assert len({run.status()["process"] for run in runs}) > 1
    assert "(6)" in Path("shared/table.md").read_text()
    assert not list(Path("shared").rglob(".*.part")) + list(Path("shared").rglob("*run.lock*"))
    assert lab("-m", *PLAIN, "seed=0,1,2,3,4,5", "hydra.sweep.dir=serial").code == 0
    for one, other in zip(runs, Sweep("serial").runs(), strict=True):
        assert not differences(one, other)


def test_a_run_of_a_different_host_is_left_alone_while_its_heartbeat_is_fresh(lab: Lab) -> None:
    line = ("-m", *PLAIN, "seed=0,1", "hydra.sweep.dir=shared")
    assert lab(*line).code == 0
    run = Sweep("shared").runs()[0]
    status = {**run.status(), "state": "running", "host": "elsewhere"}
    run.result_file.unlink()
    run.status_file.write_text(json.dumps(status))
    run.lock_file.write_text(json.dumps({"host": "elsewhere", "machine": "", "process": os.getpid(), "started": "1"}))
    left = lab(*line)
    assert left.code == 1
    facts = (run.folder.name, str(os.getpid()), "elsewhere")
    assert [line for line in left.stdout.splitlines() if all(fact in line for fact in facts)]
    names(left.stderr, 1, run.folder)
    assert run.status() == status
    old = time.time() - 1_000
    os.utime(run.lock_file, (old, old))
    assert lab(*line).code == 0
    assert run.has_result()
    assert not run.lock_file.exists()
