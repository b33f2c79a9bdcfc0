"""A search by several processes in one folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from cifar_lab.runs import find_runs
from tests.conftest import TINY

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("empty_folder")]
pytest.importorskip("optuna")

RANGES = ("optimizer.lr=tag(log,interval(1e-4,1e-2))", "optimizer.weight_decay=tag(log,interval(1e-6,1e-2))")
LINE = (*RANGES, *TINY, "logger=none", "name=shared", "epochs=4", "--trials", "8", "--startup", "4")
CSV = Path("outputs/shared/search.csv")


def worker(log: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cifar_lab.search", *LINE]
    with open(log, "wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def wait_for(text: str, log: str, process: subprocess.Popen[bytes]) -> None:
    while text not in Path(log).read_text():
        assert process.poll() is None, Path(log).read_text()
        time.sleep(0.05)


def trained(log: str) -> set[str]:
    lines = Path(log).read_text().splitlines()
    return {line.split()[1] for line in lines if line.startswith("trial ") and " in all): " in line}


def test_processes_share_the_trials_and_resume_those_of_a_killed_process() -> None:
    survivor, victim = worker("survivor.log"), worker("victim.log")
    wait_for(" 2/4 ", "victim.log", victim)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert survivor.wait() == 0, Path("survivor.log").read_text()
    frame = pd.read_csv(CSV)
    assert len(frame) == 8
    assert set(frame["state"]) <= {"finished", "pruned"}
    (left,) = trained("victim.log") & trained("survivor.log")
    assert frame.set_index("trial").loc[int(left), "state"] in {"finished", "pruned"}
    assert len(list(find_runs("outputs"))) == 8
    before = {run.folder: os.stat(run.status_file).st_mtime_ns for run in find_runs("outputs")}
    assert worker("again.log").wait() == 0
    assert {run.folder: os.stat(run.status_file).st_mtime_ns for run in find_runs("outputs")} == before


def test_the_same_command_completes_a_search_after_all_processes_were_killed() -> None:
    logs = ("one.log", "two.log")
    killed = [worker(log) for log in logs]
    for process, log in zip(killed, logs, strict=True):
        wait_for(" 1/4 ", log, process)
    for process in killed:
        process.kill()
        process.wait()
    assert not CSV.exists()
    assert worker("again.log").wait() == 0, Path("again.log").read_text()
    frame = pd.read_csv(CSV)
    assert frame["trial"].tolist() == list(range(8)) and set(frame["state"]) <= {"finished", "pruned"}
    assert trained("again.log") >= trained("one.log") | trained("two.log")
