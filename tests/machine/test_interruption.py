"""Signals, and processes that share runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from cifar_lab.machine.interruption import SIGNALS, Interrupted, Interruption
from cifar_lab.runs import Run, locked, read_checkpoint
from cifar_lab.train.classifier import Classifier
from tests.comparison import differences
from tests.conftest import TINY, Outcome, Train, names, refusal
from tests.faults import Fault, armed
from tests.suggestions import run_suggestion

pytestmark = pytest.mark.usefixtures("empty_folder")
Lab = Callable[..., Outcome]
PLAIN = (*TINY, "trainer.precision=32-true", "logger=none")


def test_the_previous_handler_still_receives_a_signal_and_is_restored_at_the_end() -> None:
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        mine = signal.getsignal(signal.SIGUSR1)
        with (interruption := Interruption()).listening():
            interruption.check()
            for _ in range(2):  # Slurm may send it twice, which does not force an end
                signal.raise_signal(signal.SIGUSR1)
            assert heard == []
            with pytest.raises(Interrupted, match="SIGUSR1") as caught:
                interruption.check()
        assert caught.value.exit_code == 143
        assert heard == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) is mine
    finally:
        signal.signal(signal.SIGUSR1, before[signal.SIGUSR1])
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with (interruption := Interruption()).listening():
            signal.raise_signal(number)
            signal.signal(number, lambda *_: None)  # Lightning replaces the handler as well
            interruption.take_back()
            signal.raise_signal(number)
            interruption.check()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_closed_terminal_may_send_the_signal_twice() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    try:
        with (interruption := Interruption()).listening():
            for _ in range(2):
                signal.raise_signal(signal.SIGHUP)
            with pytest.raises(Interrupted, match="SIGHUP") as caught:
                interruption.check()
        assert caught.value.exit_code == 143
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    code = (
        "import signal, time\nfrom cifar_lab.machine.interruption import Interruption\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background of a script
        f"with Interruption().listening():\n    signal.raise_signal({int(number)})\n    print('first', flush=True)\n"
        f"    signal.raise_signal({int(number)})\n    print('second', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -number
    assert done.stdout == "first\n"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        *(pytest.param(number, 143, marks=pytest.mark.slow) for number in (signal.SIGUSR1, signal.SIGUSR2)),
    ],
)
def test_a_signal_in_training_saves_after_the_step_and_the_run_resumes_to_the_same_bits(
    lab: Lab, trained: Train, number: signal.Signals, code: int
) -> None:
    line = [*PLAIN, "trainer.accumulate_grad_batches=2"]
    # The signal arrives in the fifth batch. The sixth ends the third step, after which the run is saved.
    with armed(Fault("step", 5, number)):
        ended = lab(*line, "hydra.run.dir=run")
    assert ended.code == code
    names(ended.stderr, number.name, "resume=run ")
    run = Run("run")
    assert run.state() == "interrupted"
    assert read_checkpoint(run.last_checkpoint)["global_step"] == run.status()["step"] == 3
    run_suggestion(lab, ended.stderr)
    assert not differences(run, trained(*line, name="whole"))


def test_a_signal_in_validation_stops_without_saving(lab: Lab) -> None:
    with armed(Fault("validation", 1, signal.SIGTERM)):  # the validation has two batches
        ended = lab(*PLAIN, "data.num_test=110", "protocol=report", "hydra.run.dir=run")
    assert ended.code == 143
    run = Run("run")
    assert run.state() == "interrupted"
    assert not run.last_checkpoint.exists()
    assert not run.metrics_file.exists()


def test_the_same_command_completes_an_interrupted_sweep_and_returns_to_a_run_of_a_different_process(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["-m", *PLAIN, "epochs=1", "seed=0,1", "name=seed"]
    with armed(Fault("step", 4, signal.SIGINT)):
        ended = lab(*line)
    assert ended.code == 130
    names(ended.stderr, "SIGINT")
    assert "outputs/seed/table.md" in ended.stdout
    (first,) = ended.runs
    assert first.state() == "interrupted"

    other, test_step = ExitStack(), Classifier.test_step

    def let_go(*arguments: Any) -> None:
        other.close()
        test_step(*arguments)

    monkeypatch.setattr(Classifier, "test_step", let_go)  # reached only in the second run
    other.enter_context(locked(first.lock_file))  # stands for a different process
    first.set_state("running")
    refusal(lab(*PLAIN, "epochs=1", f"hydra.run.dir='{first.folder}'"), first.folder, os.getpid(), "hydra.run.dir=")
    again = lab(*line)
    assert again.code == 0, again.stderr
    assert [run.state() for run in again.runs] == ["finished"] * 2
    lines, second = again.stdout.splitlines(), again.runs[1]
    of_first, of_second = ([i for i, line in enumerate(lines) if run.folder.name in line] for run in (first, second))
    assert [i for i in of_first if i < of_second[0] and str(os.getpid()) in lines[i]]
    assert of_first[-1] > of_second[-1]
