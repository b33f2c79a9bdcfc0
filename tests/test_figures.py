from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cifar_lab.evaluate.figures import confusion_matrix
from cifar_lab.figures import painted
from cifar_lab.report.page.figures import Judged, agreement
from cifar_lab.runs.files import write_figure
from cifar_lab.table.figures import compared_curves
from cifar_lab.train.figures import learning_rate, training_curves


def _texts(figure: Figure) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in axes.texts}


def test_curves_show_each_epoch_and_mark_the_best() -> None:
    metrics = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train/loss": [2.0, 1.0, 0.5],
            "train/acc": [0.2, 0.5, 0.8],
            "val/loss": [1.9, 1.2, 1.3],
            "val/acc": [0.3, 0.6, 0.5],
        }
    )
    loss, accuracy = training_curves(metrics, "a run", "held out").axes
    for axes, quantity in ((loss, "loss"), (accuracy, "acc")):
        assert axes.get_xlabel() == "epoch"
        for line, split in zip(axes.lines, ("train", "val"), strict=False):
            np.testing.assert_array_equal(line.get_ydata(), metrics[f"{split}/{quantity}"])
    labels = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert labels == ["training", "held out", "best: 60.00% in epoch 2"]


@pytest.mark.parametrize("validated", [[2], []])
def test_epochs_without_validation_leave_no_gap_in_the_curve(validated: list[int]) -> None:
    metrics = pd.DataFrame({"epoch": [1, 2, 3], "train/loss": 0.5, "train/acc": 0.5})
    metrics["val/acc"] = metrics["val/loss"] = metrics["epoch"].isin(validated).map({True: 0.5, False: np.nan})
    _, accuracy = training_curves(metrics, "a run").axes
    assert accuracy.lines[1].get_xdata().tolist() == validated


def test_a_learning_rate_over_decades_gets_a_logarithmic_axis() -> None:
    (axes,) = learning_rate(np.array([1e-1, 1e-3, 1e-5]), 1, "a run").axes
    assert axes.get_yscale() == "log"
    (axes,) = learning_rate(np.array([1e-1, 5e-2, 0.0, 1e-2]), 2, "a run").axes
    assert axes.get_yscale() == "linear"
    assert axes.lines[0].get_xdata().tolist() == [0.5, 1.0, 1.5, 2.0]


def test_a_confusion_matrix_shows_counts_and_percent_of_the_true_class() -> None:
    figure = confusion_matrix(np.array([[3, 1], [0, 1200]]), ["cat", "dog"], "a run")
    axes = figure.axes[0]
    assert _texts(figure) == {"3\n75.0%", "1\n25.0%", "0\n0.0%", "1,200\n100.0%"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_cells_of_many_classes_have_no_numbers_and_a_class_without_images_is_not_divided_by_zero() -> None:
    assert _texts(confusion_matrix(np.eye(100, dtype=int), list(map(str, range(100))), "a run")) == set()
    assert "0\n0.0%" in _texts(confusion_matrix(np.array([[0, 0], [1, 1]]), ["a", "b"], "a run"))


def test_curves_of_a_single_composition_need_no_name() -> None:
    metrics = pd.DataFrame({"epoch": [1, 2], "train/loss": [2.0, 1.0], "val/acc": [0.1, 0.2]})
    figure = compared_curves({"": [metrics]}, {"": (0, 0, 1, 1)}, "", "validation")
    assert not figure.legends


def test_training_accuracy_replaces_losses_that_cannot_be_compared() -> None:
    metrics = pd.DataFrame({"epoch": [1, 2], "train/loss": [2.0, 1.0], "train/acc": [0.3, 0.4], "val/acc": [0.1, 0.2]})
    shades = {"ce": (0, 0, 1, 1), "mse": (1, 0, 0, 1)}
    for has_one_loss, label, values in ((True, "training loss", [2.0, 1.0]), (False, "training accuracy", [0.3, 0.4])):
        runs = {name: [metrics] for name in shades}
        axes = compared_curves(runs, shades, "", "validation", has_one_loss=has_one_loss).axes[0]
        assert axes.get_ylabel().startswith(label)
        assert [line.get_ydata().tolist() for line in axes.lines] == [values, values]


def test_rows_are_compared_with_published_accuracies_in_points_and_those_outside_are_diamonds() -> None:
    within = Judged("a", 0.884, 0.889, (0.883, 0.895), "within noise")
    far_off = Judged("b", 0.785, 0.651, (0.641, 0.660), "lower")
    (axes,) = agreement([within, far_off]).axes
    assert {text.get_text() for text in axes.texts} == {"+0.50", "-13.40"}
    assert [line.get_marker() for line in axes.lines if len(line.get_xdata()) == 1] == ["o", "D"]
    low, high = axes.get_xlim()
    assert low < -14.4 and high > 1.1


@pytest.mark.paints
def test_figures_have_their_own_style_and_names_with_dollars_are_not_formulas() -> None:
    drawn: list[Figure] = []

    def draw() -> Figure:
        drawn.append(learning_rate(np.array([1e-1, 1e-3, 1e-5]), 1, r"cost_$5_vs_$10: $\x$"))
        return drawn[0]

    own = {"text.usetex": True, "savefig.dpi": 1e6, "axes.facecolor": "black", "font.family": "no such font"}
    with matplotlib.rc_context(own):
        picture = painted(draw, "rates", format="png")
        assert matplotlib.rcParams["axes.facecolor"] == "black"
    assert picture is not None and picture.startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    assert axes.get_facecolor() == (1, 1, 1, 1)
    assert not axes.title.get_parse_math()
    assert all(label.get_parse_math() for label in axes.get_yticklabels(which="both"))  # powers of ten


def test_a_failing_figure_causes_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    def draw() -> Figure:
        raise RuntimeError("no\nfonts")

    assert painted(draw, "out/curves.png") == b""
    assert capsys.readouterr().err == "note: out/curves.png was not drawn: no fonts\n"


def test_a_failing_figure_keeps_the_old_file_and_an_empty_one_removes_it(tmp_path: Path) -> None:
    def fails() -> Figure:
        raise RuntimeError("no fonts")

    path = tmp_path / "curves.png"
    path.write_bytes(b"older")
    assert write_figure(fails, path) == []
    assert path.read_bytes() == b"older"
    assert write_figure(lambda: None, path) == []
    assert not path.exists()
