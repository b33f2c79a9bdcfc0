"""Signals, and processes that share runs."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_lab.interruption import SIGNALS, Interrupted, Interruption
from cifar_lab.runs import Run, find_runs, read_checkpoint
from tests.comparison import differences
from tests.conftest import TINY
from tests.faults import Fault, command, start

PLAIN = (*TINY, "trainer.precision=32-true", "logger=none")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_whoever_listened_before_still_hears_a_signal_and_is_back_at_the_end() -> None:
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        mine = signal.getsignal(signal.SIGUSR1)
        interruption = Interruption()
        with interruption.listening():
            interruption.check()
            signal.raise_signal(signal.SIGUSR1)
            with pytest.raises(Interrupted, match="SIGUSR1") as caught:
                interruption.check()
        assert caught.value.exit_code == 143
        assert heard == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) is mine
    finally:
        signal.signal(signal.SIGUSR1, before[signal.SIGUSR1])
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    code = (
        "import signal, time\nfrom cifar_lab.interruption import Interruption\n"
        f"with Interruption().listening():\n    signal.raise_signal({int(number)})\n    print('first', flush=True)\n"
        f"    signal.raise_signal({int(number)})\n    print('second', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -number
    assert done.stdout == "first\n"


def test_a_signal_in_training_saves_at_the_batchs_end_and_the_run_goes_on_to_the_same_bits() -> None:
    line = [*PLAIN, "trainer.accumulate_grad_batches=2"]
    # While a batch is trained: the sixth batch ends the third step, from which it is saved.
    ended = command(*line, "hydra.run.dir=run", fault=Fault("step", 5, signal.SIGTERM))
    assert ended.code == 143
    last = ended.output.splitlines()[-1]
    assert last == "error: interrupted by SIGTERM; resume=run goes on where it stopped"
    run = Run("run")
    assert run.state() == "interrupted"
    assert read_checkpoint(run.last_checkpoint)["global_step"] == run.status()["step"] == 3
    ended = command("resume=run", fault=Fault("step", 7, signal.SIGINT))
    assert ended.code == 130
    assert command("resume=run").code == 0
    assert command(*line, "hydra.run.dir=whole").code == 0
    assert not differences(run, Run("whole"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_what_schedulers_send_saves_too(number: signal.Signals) -> None:
    ended = command(*PLAIN, "hydra.run.dir=run", fault=Fault("step", 5, number))
    assert ended.code == (130 if number == signal.SIGINT else 143)
    assert read_checkpoint(Run("run").last_checkpoint)["global_step"] == 5


def test_a_signal_in_validation_stops_without_saving() -> None:
    fault = Fault("validation", 1, signal.SIGTERM)
    ended = command(*PLAIN, "data.num_train=20000", "batch_size=500", "hydra.run.dir=run", fault=fault)
    assert ended.code == 143
    run = Run("run")
    assert run.state() == "interrupted"
    assert not run.last_checkpoint.exists()
    assert not run.metrics_file.exists()


def test_ctrl_c_ends_a_sweep_with_its_table_and_the_same_command_goes_on() -> None:
    line = ["-m", *PLAIN, "seed=0,1,2"]
    ended = command(*line, fault=Fault("step", 22, signal.SIGINT))  # in the second run
    assert ended.code == 130
    assert "interrupted by SIGINT; the same command goes on where it stopped" in ended.output
    assert "table and figures: outputs/seed/table.md" in ended.output
    assert [run.state() for run in find_runs("outputs")] == ["finished", "interrupted"]
    again = command(*line)
    assert again.code == 0, again.output
    assert [run.state() for run in find_runs("outputs")] == ["finished"] * 3
    assert again.output.count("epoch 1/2") == 2  # the second went on with its first epoch, the third began
    command(*PLAIN, "seed=1", "hydra.run.dir=whole")
    (second,) = (run for run in find_runs("outputs") if run.config()["seed"] == 1)
    assert differences(second, Run("whole")) <= {"overrides", "name"}


def test_two_processes_share_a_sweep_and_do_each_run_once() -> None:
    line = ["-m", *PLAIN, "epochs=1", "seed=0,1,2,3"]
    processes = [start(*line), start(*line)]
    ended = [wait() for wait in processes]
    for code, output in ended:
        assert code == 0 or (code == 1 and re.search("of the sweep are still being trained elsewhere", output)), output
    assert sum(output.count("epoch 1/1") for _, output in ended) == 4
    assert [run.state() for run in find_runs("outputs")] == ["finished"] * 4
    assert command(*line).code == 0


def test_a_second_process_in_a_runs_folder_is_one_line() -> None:
    first = start(*PLAIN, "epochs=400", "hydra.run.dir=run")
    run = Run("run")
    while run.state() != "running":
        os.sched_yield()
    second = command(*PLAIN, "epochs=400", "hydra.run.dir=run")
    os.kill(first.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    first()
    assert second.code == 2
    pattern = r"error: \S+/run is being trained by process \d+ on \S+; set hydra\.run\.dir= to another"
    assert re.fullmatch(pattern, second.output.strip())
    assert run.state() == "dead"


def test_a_sweep_takes_over_what_a_killed_process_was_training() -> None:
    line = ["-m", *PLAIN, "seed=0,1"]
    assert command(*line, fault=Fault("step", 12)).code == -9
    assert [run.state() for run in find_runs("outputs")] == ["dead"]
    again = command(*line)
    assert again.code == 0, again.output
    assert "epoch 1/2" in again.output.partition("job 2 of 2")[2]
    assert "epoch 1/2" not in again.output.partition("job 2 of 2")[0]
