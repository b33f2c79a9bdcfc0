"""Records how a run ends if it has no result."""

import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cifar_lab.data.files import DataError
from cifar_lab.engines.handover import FULL, RunFailedError, writing
from cifar_lab.machine import exit_codes
from cifar_lab.machine.interruption import Interrupted
from cifar_lab.machine.ranks import RankLostError
from cifar_lab.runs import DivergedError, PrunedError, Run, RunExistsError, described
from cifar_lab.terminal.printing import note
from cifar_lab.train.attempt import quoted


@contextmanager
def recording_outcome(run: Run, in_sweep: bool) -> Iterator[None]:
    """Record an exception as the run's state, write its traceback to `error.txt`, and raise it with a one-line message.

    A single run that is refused by a `UsageError` before training leaves no folder; a run of a sweep does.

    Raises:
        RunFailedError: The run failed, diverged or was pruned, or was refused (a `UsageError`: exit code 2).
        KeyboardInterrupt: The run was interrupted.
    """
    before = _changed(run.result_file)
    try:
        yield
    except RunExistsError as error:  # the folder belongs to a different run, so nothing is written
        raise RunFailedError(str(error), exit_codes.USAGE) from None
    except RunFailedError:  # its message is already written for the user
        raise
    except PrunedError as error:
        run.set_state("pruned")
        _forget(error)
        raise RunFailedError(str(error)) from None
    except BaseException as error:
        if isinstance(error, FileNotFoundError) and not run.status_file.exists():
            line = f"{os.path.relpath(run.folder)} was removed or moved during training"
            raise RunFailedError(f"{line}; to continue, set resume= to its new path") from None
        # Lightning turns Ctrl-C into a SystemExit.
        has_finished = run.has_result() and _changed(run.result_file) != before
        if has_finished and isinstance(error, Exception):
            note(f"{error}; the run has finished, and resume={quoted(run.folder)} draws the missing figures")
            return
        interrupt = next((e for e in (error, error.__context__) if isinstance(e, KeyboardInterrupt)), None)
        diverged = isinstance(error, DivergedError)
        with suppress(OSError):  # on a full disk, still report the error
            if not has_finished:
                run.fail("interrupted" if interrupt else "diverged" if diverged else "failed", interrupt or error)
        _forget(error)
        if interrupt is not None:
            if isinstance(interrupt, Interrupted) and not in_sweep:
                interrupt.resumed_by = f"resume={quoted(run.folder)}"
            raise interrupt from None
        message = " ".join(described(error).split())
        is_refused = isinstance(error, exit_codes.UsageError) and not in_sweep and not run.has_begun()
        if is_refused:
            run.discard()  # in a sweep it is kept, and listed as failed
        if is_refused or isinstance(error, DataError):
            raise RunFailedError(message, exit_codes.USAGE) from None
        if isinstance(error, OSError) and error.errno in FULL:  # there may be no room for the traceback
            with writing(_how_to_go_on(run, in_sweep)):
                raise error
        if isinstance(error, RankLostError):
            raise RunFailedError(f"{message}; {_how_to_go_on(run, in_sweep)}") from None
        code = exit_codes.USAGE if isinstance(error, exit_codes.UsageError) else exit_codes.FAILED
        raise RunFailedError(f"{message}; the traceback is in {run.error_file}", code) from None


@contextmanager
def keeping_finished(run: Run) -> Iterator[None]:
    """Restore a finished run if training it further ends before anything new is saved."""
    if not run.has_result():
        yield
        return
    files = (run.result_file, run.config_file, run.overrides_file, run.composition_file, run.status_file)
    kept = {path: path.with_name(f".{path.name}.kept") for path in files if path.exists()}
    for path, other in kept.items():
        other.unlink(missing_ok=True)
        try:
            os.link(path, other)  # works on a full disk
        except OSError:  # the file system does not support links
            shutil.copyfile(path, other)
    saved = _saved(run)
    try:
        yield
    except BaseException:
        for path, other in kept.items() if _saved(run) == saved else ():
            with suppress(OSError):
                other.replace(path)
        raise
    finally:
        for other in kept.values():
            with suppress(OSError):
                other.unlink()


def _saved(run: Run) -> tuple[int, ...]:
    """Return the number of recorded epochs, and the modification times of the last and best checkpoints."""
    epochs = run.metrics_file.read_bytes().count(b"\n") if run.metrics_file.exists() else 0
    return epochs, _changed(run.last_checkpoint), _changed(run.best_checkpoint)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _how_to_go_on(run: Run, in_sweep: bool) -> str:
    saved = run.last_checkpoint.exists()
    how = "the same command" if in_sweep or not saved else f"resume={quoted(run.folder)}"
    return f"{how} {'resumes it' if saved else 'starts it again'}"


def _forget(error: BaseException) -> None:
    """Release the failed run's model and data, which its tracebacks would keep alive until the sweep ends."""
    chained: BaseException | None = error
    while chained is not None:
        traceback.clear_frames(chained.__traceback__)
        chained.__traceback__ = None
        chained = chained.__context__
