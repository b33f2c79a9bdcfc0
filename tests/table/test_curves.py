import numpy as np
import pandas as pd
import pytest

from cifar_lab.table import curves


def metrics(accuracies: list[float]) -> pd.DataFrame:
    epochs = np.arange(1, len(accuracies) + 1)
    return pd.DataFrame({"epoch": epochs, "val/acc": accuracies, "val/loss": [1 - value for value in accuracies]})


def test_instability_is_computed_from_changes_between_epochs() -> None:
    assert curves.instability(metrics([0.1, 0.2, 0.3, 0.4])) == pytest.approx(0)
    assert curves.instability(metrics([0.0, 0.5, 0.5, 0.6, 0.5]), epochs=2) == pytest.approx(
        np.std([0.1, -0.1], ddof=1)
    )
    assert np.isnan(curves.instability(metrics([0.1, 0.2])))


def test_the_largest_jump_ignores_the_first_epochs() -> None:
    told = metrics([0.0, 0.5, 0.6, float("nan"), 0.65, 0.4, 0.45])
    assert curves.largest_jump(told, after=2) == pytest.approx(0.25)
    assert curves.largest_jump(told, after=6) == pytest.approx(0.05)
    assert np.isnan(curves.largest_jump(told))


def test_epochs_to_an_accuracy_and_the_mean_jump_are_computed() -> None:
    assert curves.epochs_to(metrics([0.1, 0.8, 0.7]), 0.8) == 2
    assert np.isnan(curves.epochs_to(metrics([0.1, 0.2]), 0.8))
    assert curves.mean_jump(metrics([0.1, float("nan"), 0.3, 0.2])) == pytest.approx(0.15)
