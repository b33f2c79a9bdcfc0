"""Processes that train one run together, started by the command or by torchrun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab.runs import Run, find_runs, read_checkpoint
from tests.comparison import differences
from tests.conftest import names
from tests.train.processes.test_processes import (
    FAILING_LOSS,
    PLAIN,
    SAME,
    TWO,
    check_equal,
    ended_within,
    other_processes,
)

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("empty_folder")]
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "cifar_lab.train")
CPU = ("trainer.accelerator=cpu",)


def start_command(*arguments: str, module: tuple[str, ...] = ("-m", "cifar_lab.train")) -> subprocess.Popen[str]:
    line = [sys.executable, *module, *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def run_command(*arguments: str, module: tuple[str, ...] = ("-m", "cifar_lab.train")) -> tuple[int, str]:
    process = start_command(*arguments, module=module)
    output, _ = process.communicate()
    return process.returncode, output


def run_successfully(*arguments: str, module: tuple[str, ...] = ("-m", "cifar_lab.train")) -> str:
    """Run a command that must succeed, and return its output."""
    code, output = run_command(*arguments, module=module)
    assert code == 0, output
    return output


def wait_for_checkpoint(process: subprocess.Popen[str]) -> Run:
    """Wait until the run has a checkpoint to resume from, and return the run."""
    run = Run("run")
    while not run.last_checkpoint.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return run


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Numbers of the training processes, without the command's own, in ascending order."""
    return [
        number for number in sorted(other_processes()) if number != process.pid and "spawn_main" in command_of(number)
    ]


def command_of(number: int) -> str:
    return Path(f"/proc/{number}/cmdline").read_text()


def test_ranks_end_without_their_parent_and_the_run_resumes() -> None:
    line = (*PLAIN, *TWO, "epochs=12", "scheduler=constant")
    process = start_command(*line, "hydra.run.dir=run")
    run = wait_for_checkpoint(process)
    assert len(ranks_of(process)) == 2
    process.kill()
    process.communicate()
    assert ended_within(5)
    assert run.state() == "dead"
    run_successfully("resume=run")
    run_successfully(*line, "hydra.run.dir=whole")
    assert not differences(run, Run("whole"))


@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)])
def test_a_signal_stops_all_ranks_where_the_run_can_resume(number: signal.Signals, to_all: bool) -> None:
    process = start_command(*PLAIN, *TWO, "epochs=2000", "scheduler=constant", "hydra.run.dir=run")
    run = wait_for_checkpoint(process)
    (os.killpg if to_all else os.kill)(process.pid, number)
    output, _ = process.communicate()
    assert process.returncode == 128 + number, output
    names(output.splitlines()[-1], number.name, "resume=run ")
    assert "Traceback" not in output
    assert run.state() == "interrupted"
    assert ended_within(5)


def test_a_second_signal_ends_all_ranks_at_once() -> None:
    process = start_command(*PLAIN, *TWO, "epochs=2000", "scheduler=constant", "hydra.run.dir=run")
    wait_for_checkpoint(process)
    stopped = ranks_of(process)[1]
    os.kill(stopped, signal.SIGSTOP)  # so that the first signal finds no end of a step
    for _ in range(2):
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.5)
    assert process.wait() == -signal.SIGTERM
    os.kill(stopped, signal.SIGCONT)
    process.communicate()
    assert ended_within(5)


def test_a_time_limit_ends_all_ranks_at_the_same_step() -> None:
    run_successfully(*PLAIN, *TWO, "epochs=2000", "trainer.max_time=00:00:00:03", "hydra.run.dir=run")
    assert 0 < Run("run").result()["epochs"] < 2000


def test_three_processes_interrupted_within_an_epoch_resume_to_the_same_bits() -> None:
    line = (*PLAIN, "data.num_train=1008", "batch_size=7", "trainer=ddp", *CPU, "trainer.devices=3", "epochs=2")
    process = start_command(*line, "callbacks.checkpoint.every_minutes=1e-9", "hydra.run.dir=run")
    run = wait_for_checkpoint(process)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate()
    assert read_checkpoint(run.last_checkpoint)["global_step"] % 130 > 0
    assert "Warning" not in run_successfully("resume=run")
    run_successfully(*line, "hydra.run.dir=whole")
    assert not differences(run, Run("whole")) - {"overrides"}


def test_processes_of_torchrun_train_one_run() -> None:
    output = run_successfully(*SAME, *CPU, module=TORCHRUN)
    (run,) = find_runs("outputs")
    assert output.count(" 1/2 ") == output.count(f"{run.result()['test/acc']:.2%} (") == 1
    assert len(list(Path("outputs/cnn").iterdir())) == 1
    assert run.result()["world_size"] == 2
    run_successfully(*SAME, *CPU, "hydra.run.dir=one")
    check_equal(run, Run("one"))
    run_successfully(*SAME, *TWO, "hydra.run.dir=two")
    assert differences(run, Run("two")) <= {"overrides", "options"}


def test_a_sweep_under_torchrun_runs_each_job_once_and_ends_when_all_are_finished() -> None:
    line = ("-m", *PLAIN, *CPU, "seed=0,1", "optimizer=sgd", "grad_clip=0", "bn=false", "optimizer.lr=0.01,1e30")
    code, output = run_command(*line, module=TORCHRUN)
    assert code != 0
    states = [(run.config()["optimizer"]["lr"], run.state()) for run in find_runs("outputs")]
    assert sorted(states) == [(0.01, "finished")] * 2 + [(1e30, "diverged")] * 2, output
    run_successfully(*line[:-1], "optimizer.lr=0.01", "name=seed-optimizer.lr", module=TORCHRUN)


def test_help_and_mistakes_under_torchrun_end_all_ranks() -> None:
    assert "cifar_lab" in run_successfully("--help", module=TORCHRUN)
    code, output = run_command(*PLAIN, *CPU, "trainer.devices=3", module=TORCHRUN)
    assert code != 0
    names(next(line for line in output.splitlines() if line.startswith("error: ")), "trainer.devices=3", "torchrun", 2)
    assert not Path("outputs").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_saved_by_a_signal_to_torchrun_resumes_to_the_same_bits(number: signal.Signals) -> None:
    line = (*PLAIN, *CPU, "epochs=12", "scheduler=constant")
    process = start_command(*line, "hydra.run.dir=run", module=TORCHRUN)
    run = wait_for_checkpoint(process)
    os.kill(process.pid, number)
    output, _ = process.communicate()
    assert run.state() == "interrupted", output
    assert ended_within(5)
    run_successfully("resume=run", module=TORCHRUN)
    run_successfully(*line, "hydra.run.dir=whole", module=TORCHRUN)
    assert not differences(run, Run("whole"))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_rank_of_torchrun_ends_all_and_the_run_resumes(rank: str) -> None:
    line = (*PLAIN, *CPU, "epochs=12", "scheduler=constant")
    process = start_command(*line, "hydra.run.dir=run", module=TORCHRUN)
    run = wait_for_checkpoint(process)
    for number in other_processes():
        environment = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment and number != process.pid:
            os.kill(number, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode != 0
    assert ended_within(5)
    if rank == "1":
        assert run.state() == "failed", output
        assert "2 processes" in run.status()["error"]
    else:
        assert run.state() == "dead"
    run_successfully("resume=run", module=TORCHRUN)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failing_rank_of_torchrun_ends_a_sweep(rank: int, outside: Callable[..., tuple[str, ...]]) -> None:
    folder, conf, _, allow = outside("my_lab", FAILING_LOSS, "loss", f"_target_: my_lab.Failing\nrank: {rank}\n")
    line = (folder, conf, "-m", *PLAIN, *CPU, allow, "hydra.sweep.dir=sweep")
    code, output = run_command(*line, "loss=mine,ce", module=TORCHRUN)
    assert code != 0
    assert "exhausted" in output
    states = {run.config()["loss"]["_target_"]: run.state() for run in find_runs("sweep")}
    assert states["my_lab.Failing"] == "failed"
    assert not other_processes()
    run_successfully(*line, "loss=ce", module=TORCHRUN)


@pytest.mark.slow
def test_compiled_processes_train_together() -> None:
    run_successfully(*SAME, *TWO, "compile=true", "hydra.run.dir=run")
    run_successfully(*SAME, "compile=true", "hydra.run.dir=one")
    check_equal(Run("run"), Run("one"))
