"""Damage to bytes, drawn by hypothesis."""

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


class Edit(NamedTuple):
    """One change: its kind, its place (a share of all bytes, or an offset from either end), and the bytes to write."""

    kind: str
    place: float | int
    junk: bytes

    def applied(self, content: bytes) -> bytes:
        at = int(self.place * len(content)) if isinstance(self.place, float) else self.place
        before, after, size = content[:at], content[at:], len(self.junk)
        match self.kind if after else "end":
            case "flip":
                return before + bytes([after[0] ^ (1 << self.junk[0] % 8)]) + after[1:]
            case "cut":
                return before + after[size:]
            case "insert":
                return before + self.junk + after
            case "overwrite":
                return before + self.junk + after[size:]
            case _:
                return before


EDITS = st.lists(
    st.builds(
        Edit,
        kind=st.sampled_from(["flip", "overwrite", "insert", "cut", "end"]),
        # Structure such as headers and directories is at the ends of a file.
        place=st.integers(0, 300) | st.integers(-300, -1) | st.floats(0, 1, exclude_max=True),
        junk=st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, edits: Sequence[Edit]) -> bytes:
    for edit in edits:
        content = edit.applied(content)
    return content


def damaged_member(archive: bytes, number: int, edits: Sequence[Edit]) -> bytes:
    """Damage one member of a zip archive and correct its checksum; most numbers stand for the pickle."""
    with zipfile.ZipFile(io.BytesIO(archive)) as read:
        members = {name: read.read(name) for name in read.namelist()}
    names = list(members)
    pickle = next(name for name in names if name.endswith("data.pkl"))
    target = names[number] if number < len(names) else pickle
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name, content in members.items():
            written.writestr(name, damaged(content, edits) if name == target else content)
    return file.getvalue()


def fuzzed(
    draws: st.SearchStrategy[Any], few: int = 15
) -> Callable[[Callable[[Any, Path], None]], Callable[..., None]]:
    """Turn a property of drawn values and an empty folder into a test: a few examples, or 1,000 if marked slow."""

    def decorate(holds: Callable[[Any, Path], None]) -> Callable[..., None]:
        @pytest.mark.parametrize(
            "examples", [few, pytest.param(1_000, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])]
        )
        def test(examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
            monkeypatch.chdir(tmp_path)

            @settings(
                max_examples=examples,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=[HealthCheck.too_slow],  # a composition takes a fifth of a second
            )
            @given(draws)
            def each(drawn: Any) -> None:
                holds(drawn, tmp_path)

            each()

        return test

    return decorate
