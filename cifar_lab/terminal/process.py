"""Keep the process of a command alive if its output fails, and keep matplotlib from opening windows."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

UNWRITABLE = (OSError, ValueError)  # OSError: closed pipe or terminal, full disk; ValueError: closed stream

_FALLBACKS = str.maketrans({"±": "+-", "−": "-", "–": "-", "×": "x", "…": "..."})


class _Stream:
    """A stream that replaces characters that its encoding lacks.

    Args:
        stream: The stream to write to.
        loses: Exceptions on which text is dropped.
    """

    def __init__(self, stream: TextIO, loses: tuple[type[Exception], ...]) -> None:
        self._stream = stream
        self._loses = loses

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self.write(text.translate(_FALLBACKS).encode(encoding, "backslashreplace").decode(encoding))
        except self._loses:
            self._empty()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except self._loses:
            self._empty()

    def _empty(self) -> None:
        """Empty the stream's buffer, which it would otherwise try to write again, at the latest as Python exits."""
        with suppress(*UNWRITABLE):
            number = self._stream.fileno()
            kept, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            self._stream.flush()
            os.dup2(kept, number)
            os.close(kept)
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def show_nothing() -> None:
    """Protect the import of matplotlib, which torchmetrics imports, from user settings that break it.

    These are a wrong backend in `MPLBACKEND`, and a `matplotlibrc` that is not UTF-8.
    """
    os.environ["MPLBACKEND"] = "agg"
    package = importlib.util.find_spec("matplotlib")
    if package is None or package.origin is None:
        return
    own = Path(package.origin).parent / "mpl-data" / "matplotlibrc"
    os.environ["MATPLOTLIBRC"] = str(own)  # only one in the current folder has precedence
    try:
        Path("matplotlibrc").read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        here = Path.cwd()
        os.chdir(own.parent)
        try:
            importlib.import_module("matplotlib")
        finally:
            os.chdir(here)


@contextmanager
def printing(*, loses: tuple[type[Exception], ...] = UNWRITABLE) -> Iterator[None]:
    """Replace characters that the encoding of the output lacks, and drop text that cannot be written.

    Args:
        loses: Exceptions on which text is dropped; others are raised where the text is printed.
    """
    before = sys.stdout, sys.stderr
    streams = [None if stream is None else _Stream(stream, loses) for stream in before]  # None is a closed stream
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams if loses else ():
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
