import os
import subprocess
import sys
import time
from pathlib import Path

from cifar_lab.runs import Run, Sweep, find_runs, find_sweeps, is_run, job_key, replacing


def test_the_plan_of_a_sweep_is_that_of_the_last_command(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "outputs" / "loss")
    assert sweep.jobs() == []
    sweep.plan([["loss=ce"], ["loss=mse"]])
    sweep.plan([["loss=mse"], ["loss=focal"]])
    assert sweep.jobs() == [(["loss=mse"], None), (["loss=focal"], None)]


def test_a_jobs_run_is_found_by_the_plan_or_by_its_command_line(tmp_path: Path) -> None:
    sweep, elsewhere, named, gone = Sweep(tmp_path / "loss"), *(Run(tmp_path / name) for name in ("a/x", "loss/y", "z"))
    elsewhere.start({}, ["loss=mse", "logger=csv"])
    named.start({}, ["loss=focal"])
    sweep.plan([["loss=mse"], ["loss=focal"], ["loss=ce"], ["seed=1"]], [elsewhere.folder, None, gone.folder])
    runs = [run and os.path.normpath(run.folder) for _, run in sweep.jobs()]
    assert runs == [str(elsewhere.folder), str(named.folder), None, None]


def test_runs_and_sweeps_are_found_below_a_folder_by_name(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a"):
        Run(tmp_path / name).start({})
    (tmp_path / "b" / "1" / "figures" / "deep").mkdir(parents=True)
    Sweep(tmp_path / "b").plan([["seed=1"]])
    assert [run.folder for run in find_runs(tmp_path)] == [tmp_path / "a", tmp_path / "b" / "1", tmp_path / "b" / "2"]
    assert [sweep.folder for sweep in find_sweeps(tmp_path)] == [tmp_path / "b"]
    assert [run.folder.name for run in Sweep(tmp_path / "b").runs()] == ["1", "2"]
    assert is_run(tmp_path / "a")
    assert not is_run(tmp_path / "b")


def test_a_job_is_identified_by_its_command_line_in_any_order_and_under_any_name() -> None:
    assert job_key(["a=1", "b=2", "name=x"]) == job_key(["b=2", "a=1"])
    assert job_key(["a=1"]) != job_key(["a=2"])


def test_unfinished_files_of_a_killed_process_are_removed_but_not_those_of_a_running_one(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom cifar_lab.runs import Sweep, replacing\n"
        "with replacing(Sweep('.').table_markdown) as file:\n    file.write('|')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    table = Sweep(tmp_path).table_markdown
    living = replacing(table)
    living.__enter__()
    (recent,) = tmp_path.iterdir()
    elsewhere, old = (tmp_path / f".table.md.0a1b2c3d-1-1.{name}.part" for name in ("elsewhere", "old"))
    for path, age in ((elsewhere, 60), (old, 7_200)):
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 3  # the old file is gone, and the killed process left its own
    with replacing(table):
        pass
    assert set(tmp_path.iterdir()) == {recent, elsewhere, table}
