import numpy as np
import pytest

from cifar_lab.landscape.maps.figures import Contour, contours, covariate_shift, curvature, interpolation, profiles


def panel(losses, trajectory=None):
    axis = np.linspace(-1, 1, len(losses))
    return Contour("a plane", (axis, axis), losses, ("one", "two"), trajectory)


def test_all_planes_have_the_same_levels_for_any_content(tmp_path):
    levels = np.geomspace(0.1, 2, 6)
    wild = np.full((4, 4), 50.0)
    wild[0, 0], wild[0, 1], wild[1, 1] = np.nan, np.inf, 0
    way = np.array([[0.5, 0.5], [0.1, 0.2], [0.0, 0.0]])
    figure = contours([[panel(np.geomspace(0.1, 3, 16).reshape(4, 4), way)], [panel(wild)]], levels, "planes")
    figure.savefig(tmp_path / "planes.png")
    drawn = [collection for axes in figure.axes for collection in axes.collections]
    found = [collection.levels.tolist() for collection in drawn if hasattr(collection, "levels")]
    assert found == [found[0]] * 4  # filled contours and lines, of two planes
    flat = panel(np.ones((3, 3)))
    without_trajectory = contours([[flat, flat], [flat]], levels, "planes")
    assert len(without_trajectory.axes) == 4  # three planes and the colour bar


def test_a_profile_is_drawn_unchanged_up_to_the_first_value_that_is_not_finite():
    distances = np.array([-1.0, 0.0, 1.0])
    figure = profiles({"a": (distances, np.array([3.0, 1.0, np.inf])), "b": (distances, np.ones(3))}, "profiles")
    first, second = figure.axes[0].lines
    np.testing.assert_array_equal(first.get_ydata(), [3, 1, np.nan])
    assert (first.get_label(), second.get_label()) == ("a", "b")
    assert first.get_linestyle() != second.get_linestyle()


@pytest.mark.parametrize(("lowest", "scale"), [(0.5, "log"), (-2.0, "symlog")])
def test_curvature_has_a_scale_that_shows_all_of_it(lowest, scale):
    rows = [
        {"run": run, "epoch": epoch, "eigenvalue_1": 9.0, "eigenvalue_2": 5.0, "sharpness": 1.0}
        | {"smallest_eigenvalue": lowest, "batch_sharpness": 2.0, "two_over_lr": 40.0}
        for run in ("a", "b")
        for epoch in (0, 5)
    ]
    figure = curvature(rows, "curvature")
    assert [axes.get_title() for axes in figure.axes] == ["a", "b"]
    assert {axes.get_yscale() for axes in figure.axes} == {scale}
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[:3] == ["largest eigenvalue (algebraic)", "the next 1", "smallest eigenvalue"]
    assert "2 / lr" in labels
    unknown = {name: value if name in ("run", "epoch") else np.nan for name, value in rows[0].items()}
    assert len(curvature([unknown], "curvature").axes) == 1


def test_interpolation_labels_its_ends():
    names = ("train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy")
    values = {name: np.array([0.5, 0.7, 0.9]) + number for number, name in enumerate(names)}
    figure = interpolation(np.linspace(0, 1, 3), values, ("seed 0", "seed 1"), "test images", "between")
    loss, accuracy = figure.axes
    assert loss.get_xlabel() == "0: seed 0\n1: seed 1"
    assert [line.get_ydata()[0] for line in (*loss.lines, *accuracy.lines)] == [0.5, 2.5, 1.5, 3.5]
    assert loss.lines[1].get_label() == "test images"


def test_covariate_shift_leaves_out_the_lowest_layer():
    rows = [
        {"run": "a", "epoch": 0, "layer": layer, "distance": 0.3 * (layer > 1), "cosine": 0.9, "gradient_norm": 0.6}
        for layer in (1, 2, 3)
    ]
    shift, cosine, norm = (axes.lines[0] for axes in covariate_shift(rows, "shift").axes)
    np.testing.assert_array_equal(shift.get_xdata(), [2, 3])
    np.testing.assert_allclose(shift.get_ydata(), [0.5, 0.5])
    assert cosine.get_xdata().tolist() == [2, 3]
    assert norm.get_xdata().tolist() == [1, 2, 3]
