"""Jobs of a sweep side by side, each in a process of its own, by Hydra's joblib launcher.

What such a process does is told by the runs' folders alone: nothing that it changes in memory comes back.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from types import FrameType

from omegaconf import DictConfig

from cifar_lab.config.devices import processes
from cifar_lab.config.launchers import JOBLIB, LAUNCHER, chosen
from cifar_lab.jobs import cores
from cifar_lab.machine.interruption import Interruption

# Set in a process of jobs once a signal has stopped one of them: those that still wait for it are not begun.
stopped = threading.Event()


class WorkerLostError(RuntimeError):
    """A process of jobs has ended without a word."""


def plan(config: DictConfig) -> tuple[int, list[str]]:
    """How many jobs of a sweep run at a time, and the words of the command line by which Hydra does that.

    Args:
        config: A composed job, with Hydra's own part.

    Raises:
        ValueError: The launcher is not one for this machine or for runs on several devices, or its package is missing.
    """
    number, words = _planned(config)
    if number > 1 and processes(config) != 1:
        devices = config.trainer.devices
        raise ValueError(
            f"trainer.devices={devices}: {number} jobs at a time have one device each; leave one of them out"
        )
    return number, words


def _planned(config: DictConfig) -> tuple[int, list[str]]:
    launcher, per_device = config.hydra.launcher, config.jobs_per_device
    is_joblib = chosen(str(launcher._target_)) is JOBLIB
    if is_joblib and launcher.n_jobs == 0:
        raise ValueError("hydra.launcher.n_jobs=0: it takes a number of jobs, or -1 for as many as there are cores")
    if is_joblib and launcher.n_jobs > 0:
        return launcher.n_jobs, []
    if per_device > 1:
        if not is_joblib and "BasicLauncher" not in launcher._target_:
            raise ValueError(f"jobs_per_device={per_device} runs jobs on this machine; leave {LAUNCHER}= out")
        JOBLIB.check_installed(f"jobs_per_device={per_device}")
        from cifar_lab.machine import hardware

        number = per_device * hardware.device_count(config.trainer.accelerator)
    elif is_joblib:
        number = max(1, cores() + 1 + launcher.n_jobs)
    else:
        return 1, []
    return number, [f"{LAUNCHER}=joblib", f"hydra.launcher.n_jobs={number}"]


@contextmanager
def supervised() -> Iterator[None]:
    """Wait for processes of jobs; a signal is theirs to act on, and told once they have.

    Raises:
        Interrupted: A signal was received.
        WorkerLostError: One of the processes was killed.
    """
    interruption = _Forwarding()
    with interruption.listening():
        try:
            yield
        except BrokenExecutor:
            interruption.check()
            raise WorkerLostError from None
        finally:
            _end_processes()
    interruption.check()


class _Forwarding(Interruption):
    """Hands the first signal on to the processes of jobs; a terminal sends Ctrl-C to them by itself."""

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_first = self.received is None
        super()._note(number, frame)
        if is_first and number != int(signal.SIGINT):
            for process in multiprocessing.active_children():
                if process.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, number)


def _end_processes() -> None:
    """Joblib would keep them for the next sweep, which may be one in another folder."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
