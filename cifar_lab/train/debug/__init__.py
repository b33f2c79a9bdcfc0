"""Short trials of a composition that keep no run: `debug=fast`, `debug=overfit`, `debug=profile`."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from cifar_lab.config import Plan
from cifar_lab.engines.handover import RunFailedError
from cifar_lab.machine.interruption import Interrupted
from cifar_lab.runs import Run


@contextmanager
def leaving_nothing(plan: Plan) -> Iterator[None]:
    """Run a trial in a temporary folder, and print its traceback if it fails; do nothing without `debug=`.

    Raises:
        RunFailedError: The trial failed.
    """
    if not plan.composition["debug"]:
        yield
        return
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences torch's profiler; read when torch is imported
    with tempfile.TemporaryDirectory(prefix="cifar_lab_debug_") as folder:
        plan.put_in(folder)
        try:
            yield
        except RunFailedError as error:
            line, has_traceback, _ = str(error).partition("; the traceback is in ")
            if has_traceback:
                print(Run(folder).error_file.read_text(encoding="utf-8"), end="", file=sys.stderr, flush=True)
            raise RunFailedError(line, error.exit_code) from None
        except Interrupted as error:
            error.resumed_by = ""
            raise
