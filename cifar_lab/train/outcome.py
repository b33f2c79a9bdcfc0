"""How a run without a result ends."""

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cifar_lab.data.files import DataError
from cifar_lab.engines.handover import RunFailedError
from cifar_lab.machine import exit_codes
from cifar_lab.machine.interruption import Interrupted
from cifar_lab.machine.ranks import RankLostError
from cifar_lab.runs import DivergedError, PrunedError, Run, RunExistsError, described
from cifar_lab.terminal.printing import note

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def recording_outcome(run: Run, in_sweep: bool) -> Iterator[None]:
    """Record an exception as the run's state, its traceback in `error.txt`, and raise it as one line.

    A single run that is refused, by a `UsageError` before it trains, leaves no folder; one in a sweep does.

    Raises:
        RunFailedError: The run failed, diverged or was pruned, or was refused (a `UsageError`: exit code 2).
        KeyboardInterrupt: It was interrupted.
    """
    try:
        yield
    except RunExistsError as error:  # the folder is not this run's to write into
        raise RunFailedError(str(error), exit_codes.USAGE) from None
    except PrunedError as error:
        run.set_state("pruned")
        _forget(error)
        raise RunFailedError(str(error)) from None
    except BaseException as error:
        # Lightning turns Ctrl-C into a SystemExit.
        if isinstance(error, RankLostError) and run.has_result():
            note(f"{error}; the run has finished, and resume={os.path.relpath(run.folder)} draws what is missing")
            return
        interrupt = next((e for e in (error, error.__context__) if isinstance(e, KeyboardInterrupt)), None)
        diverged = isinstance(error, DivergedError)
        with suppress(OSError):  # on a full disk the error is still reported
            run.fail("interrupted" if interrupt else "diverged" if diverged else "failed", interrupt or error)
        _forget(error)
        if interrupt is not None:
            if isinstance(interrupt, Interrupted) and not in_sweep:
                interrupt.goes_on = f"resume={os.path.relpath(run.folder)}"
            raise interrupt from None
        message = " ".join(described(error).split())
        is_refused = isinstance(error, exit_codes.UsageError) and not in_sweep and not run.has_begun()
        if is_refused:
            run.discard()  # a sweep shows it as a run that failed
        if is_refused or isinstance(error, DataError):
            raise RunFailedError(message, exit_codes.USAGE) from None
        if isinstance(error, OSError) and error.errno in _FULL:  # there may be no room for the traceback either
            file = "a file" if error.filename is None else os.path.relpath(error.filename)
            raise RunFailedError(
                f"cannot write {file}: {error.strerror}; free some space, then {_how_to_go_on(run, in_sweep)}"
            ) from None
        if isinstance(error, RankLostError):
            raise RunFailedError(f"{message}; {_how_to_go_on(run, in_sweep)}") from None
        code = exit_codes.USAGE if isinstance(error, exit_codes.UsageError) else exit_codes.FAILED
        raise RunFailedError(f"{message}; the traceback is in {run.error_file}", code) from None


def _how_to_go_on(run: Run, in_sweep: bool) -> str:
    saved = run.last_checkpoint.exists()
    how = "the same command" if in_sweep or not saved else f"resume={os.path.relpath(run.folder)}"
    return f"{how} {'goes on' if saved else 'begins again'}"


def _forget(error: BaseException) -> None:
    """Release the failed run's model and data, which tracebacks keep alive as long as a sweep lasts."""
    chained: BaseException | None = error
    while chained is not None:
        traceback.clear_frames(chained.__traceback__)
        chained.__traceback__ = None
        chained = chained.__context__
