from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cifar_lab.evaluate.figures import confusion_matrices
from cifar_lab.report.page import figures
from cifar_lab.report.page.figures import Picture
from cifar_lab.runs import Record

CLASSES = ["cat", "dog"]


def _picture(counts: list[list[int]]) -> Picture:
    return Picture("confusion", "words", partial(confusion_matrices, {"row": np.array(counts)}, CLASSES))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the figures that were drawn."""
    names: list[str] = []
    monkeypatch.setattr(figures, "painted", lambda draw, name, **_: names.append(name) or b"<svg/>")
    return names


def test_a_figure_is_drawn_again_only_if_its_values_or_its_code_changed(
    drawn: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(picture: Picture) -> bytes:
        picture.reuse(tmp_path)
        picture.write(tmp_path)
        return picture.data

    first = save(_picture([[1, 2], [3, 4]]))
    assert save(_picture([[1, 2], [3, 4]])) == first
    assert len(drawn) == 1
    save(_picture([[1, 2], [3, 5]]))
    assert len(drawn) == 2
    monkeypatch.setattr(figures, "_drawing_code", lambda: b"other")
    save(_picture([[1, 2], [3, 5]]))
    assert len(drawn) == 3


@pytest.mark.parametrize("value", [Record("finished"), Path("run")])
def test_a_figure_that_reads_files_is_always_drawn(drawn: list[str], tmp_path: Path, value: object) -> None:
    for _ in range(2):
        picture = Picture("curve", "words", partial(confusion_matrices, {"row": value}, CLASSES))
        picture.reuse(tmp_path)
        picture.write(tmp_path)
    assert len(drawn) == 2


def test_a_run_far_below_the_best_is_drawn_at_the_edge_with_its_accuracy() -> None:
    groups = {"rows": [(0.5, 0.90), (0.5, 0.20), (0.5, 0.30), (2.0, 0.89)], "fast_91": [(0.08, 0.92)]}
    (axes,) = figures.accuracy_by_compute(groups).axes
    rows, fast = axes.lines
    assert rows.get_xydata().tolist() == [[0.5, 90.0], [0.5, 80.0], [0.5, 80.0], [2.0, 89.0]]  # type: ignore[union-attr]
    assert fast.get_xydata().tolist() == [[0.08, 92.0]]  # type: ignore[union-attr]
    assert [text.get_text() for text in axes.texts] == ["30.0 %, 20.0 %"]
    low, high = axes.get_xlim()
    assert low < 0.08 and high > 2
