"""The process of a command: its standard output and error never end it, and it opens no window."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_FALLBACKS = str.maketrans({"±": "+-", "−": "-", "–": "-", "×": "x", "…": "..."})


class _Stream:
    """A stream that replaces letters that its encoding lacks.

    Args:
        stream: Where to write.
        loses: Drop text that cannot be written: to a closed pipe or terminal, or on a full disk.
    """

    def __init__(self, stream: TextIO, loses: bool) -> None:
        self._stream = stream
        self._loses = loses

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self.write(text.translate(_FALLBACKS).encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):  # the latter where it was closed
            if not self._loses:
                raise
            self._empty()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            if not self._loses:
                raise
            self._empty()

    def _empty(self) -> None:
        """Empty the stream's buffer, which it would try to write again, at last as Python ends."""
        with suppress(OSError, ValueError):
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
    """Keep matplotlib from `MPLBACKEND`, of which a wrong one ends its import, by torchmetrics before any training."""
    os.environ["MPLBACKEND"] = "agg"


@contextmanager
def printing(*, loses: bool = True) -> Iterator[None]:
    """Print on streams that replace letters that their encoding lacks, and drop text that cannot be written.

    Args:
        loses: False leaves an error to whoever prints.
    """
    before = sys.stdout, sys.stderr
    streams = [None if stream is None else _Stream(stream, loses) for stream in before]  # None was closed
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        for stream in streams if loses else ():
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
