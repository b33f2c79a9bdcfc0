"""Run the jobs of a sweep in parallel, each in its own process, by Hydra's joblib launcher.

Results are read from the runs' folders, because the processes share no memory.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from types import FrameType

from cifar_lab.engines.handover import RunFailedError
from cifar_lab.engines.in_turn import Jobs
from cifar_lab.machine.interruption import Interruption


class SideBySide(Jobs):
    """The jobs of a command line, several in parallel on this machine."""

    def run(self, numbers: Sequence[int]) -> None:
        """Let processes run the jobs, and read their outcome.

        Raises:
            RunFailedError: A process was killed.
            Interrupted: A signal was received.
        """
        with supervised():
            returned = self.launcher(numbers).launch(self.words(numbers), initial_job_idx=0)
        for one in returned:
            one.return_value  # noqa: B018 - raises the job's exception
        self.look()


@contextmanager
def supervised() -> Iterator[None]:
    """Wait for worker processes within the context. A signal is raised here after they have handled it.

    Raises:
        Interrupted: A signal was received.
        RunFailedError: One of the processes was killed.
    """
    interruption = _Forwarding()
    with interruption.listening():
        try:
            yield
        except BrokenExecutor:
            interruption.check()
            raise RunFailedError("a process was killed; the same command runs the remaining jobs") from None
        finally:
            from joblib.externals.loky import get_reusable_executor

            # Joblib would keep its processes for the next sweep, which may run in a different folder.
            get_reusable_executor().shutdown(wait=True)
    interruption.check()


class _Forwarding(Interruption):
    """Forwards the first signal to the worker processes, except Ctrl-C, which a terminal sends to them itself."""

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_first = self.received is None
        super()._note(number, frame)
        if is_first and number != int(signal.SIGINT):
            for process in multiprocessing.active_children():
                if process.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, number)
