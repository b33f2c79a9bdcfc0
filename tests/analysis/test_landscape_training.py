from pathlib import Path

import pytest

from cifar_lab.analysis.landscape_runs import Group, groups
from cifar_lab.analysis.landscape_training import rate_range, speed
from cifar_lab.analysis.measured import gather
from cifar_lab.runs import find_runs
from tests.landscape_runs import leave


def the(folder: Path) -> Group:
    (group,) = groups(gather(find_runs(folder)))
    return group


@pytest.mark.parametrize(
    ("accuracies", "told"),
    [
        ((0.8, 0.8, 0.8, 0.1), "at least 1 decades (0.0001 to 0.001 of 0.0001, 0.0003, 0.001, 0.003)"),
        ((0.1, 0.8, 0.8, 0.1), "0.52 decades (0.0003 to 0.001 of 0.0001, 0.0003, 0.001, 0.003)"),
        ((0.8, 0.1, 0.8, 0.1), "at least 0 decades (0.0001 to 0.0001 of 0.0001, 0.0003, 0.001, 0.003)"),
        ((0.1, 0.1, 0.1, 0.1), "none of 0.0001, 0.0003, 0.001, 0.003 trains"),
    ],
)
def test_the_widest_range_of_rates_that_trains(tmp_path: Path, accuracies: tuple[float, ...], told: str) -> None:
    for lr, accuracy in zip((1e-4, 3e-4, 1e-3, 3e-3), accuracies, strict=True):
        leave(tmp_path / str(lr), bn=True, lr=lr, accuracy=accuracy)
    assert rate_range(the(tmp_path), bn=True, init="xavier").told() == told


def test_a_rate_trains_if_it_does_in_every_seed_that_has_ended(tmp_path: Path) -> None:
    for seed in (0, 1):
        for lr in (1e-4, 1e-3):
            run = leave(tmp_path / f"{lr}{seed}", bn=True, lr=lr, seed=seed, finished=seed == 0 or lr == 1e-4)
            if not run.has_result():
                run.fail("diverged", RuntimeError("the loss is nan in step 3"))
    leave(tmp_path / "under way", bn=True, lr=1e-2, finished=False)
    found = rate_range(the(tmp_path), bn=True, init="xavier")
    assert (found.tried, found.low, found.high) == ((1e-4, 1e-3), 1e-4, 1e-4)
    assert speed(the(tmp_path))["trains"].tolist() == ["2 of 2", "1 of 2", "0 of 0"]


def test_epochs_to_an_accuracy_are_medians_with_their_interval(tmp_path: Path) -> None:
    for seed in range(3):
        leave(tmp_path / f"good{seed}", bn=True, lr=1e-3, seed=seed, epochs=10, accuracy=0.75, noise=0.0)
        leave(
            tmp_path / f"mixed{seed}",
            bn=False,
            lr=1e-3,
            seed=seed,
            epochs=10,
            accuracy=0.75 - 0.3 * (seed == 2),
            noise=0,
        )
    with_bn, without = speed(the(tmp_path)).to_dict("records")
    assert with_bn["network"] == "with BatchNorm"
    assert with_bn["epochs to 50 % validation accuracy"] == "2 [2, 2]"
    assert with_bn["epochs to 80 % validation accuracy"] == "never"
    assert without["epochs to 50 % validation accuracy"] == "never in 1 of 3 runs"
