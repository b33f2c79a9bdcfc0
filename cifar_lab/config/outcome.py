"""How a run ends, whatever ends it."""

from collections.abc import Iterator
from contextlib import contextmanager

from cifar_lab.config.app import EXIT_FAILED, EXIT_USAGE, RunFailedError
from cifar_lab.runs import DivergedError, Run, RunExistsError


@contextmanager
def recording_outcome(run: Run) -> Iterator[None]:
    """Record an exception as the run's state, its traceback in `error.txt`, and raise it as one line.

    Raises:
        RunFailedError: The run failed or diverged, or cannot be run as asked (a `ValueError`: exit code 2).
        KeyboardInterrupt: It was interrupted.
    """
    try:
        yield
    except RunExistsError as error:  # the folder is not this run's to write into
        raise RunFailedError(str(error), EXIT_USAGE) from None
    except BaseException as error:
        # Lightning makes a SystemExit of Ctrl-C.
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            run.fail("interrupted", error)
            raise KeyboardInterrupt from None
        run.fail("diverged" if isinstance(error, DivergedError) else "failed", error)
        message = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ValueError):
            raise RunFailedError(message, EXIT_USAGE) from None
        raise RunFailedError(f"{message}; the traceback is in {run.error_file}", EXIT_FAILED) from None
