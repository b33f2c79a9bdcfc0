from collections.abc import Hashable
from pathlib import Path

import pytest

from cifar_lab.landscape.batch_norm.runs import Group, groups
from cifar_lab.landscape.batch_norm.training import rate_range, speed
from cifar_lab.runs import find_runs
from cifar_lab.table.records import gather
from tests.conftest import holds
from tests.landscape_runs import leave


def group_of(folder: Path) -> Group:
    (group,) = groups(gather(find_runs(folder)))
    return group


@pytest.mark.parametrize(
    ("accuracies", "low", "high", "decades"),
    [
        ((0.8, 0.8, 0.8, 0.1), 1e-4, 1e-3, " 1 "),  # or wider, because no lower rate was tried
        ((0.1, 0.8, 0.8, 0.1), 3e-4, 1e-3, "0.52 "),
        ((0.8, 0.1, 0.8, 0.1), 1e-4, 1e-4, " 0 "),
        ((0.1, 0.1, 0.1, 0.1), None, None, ""),
    ],
)
def test_the_widest_range_of_rates_that_trains(
    tmp_path: Path, accuracies: tuple[float, ...], low: float | None, high: float | None, decades: str
) -> None:
    for lr, accuracy in zip((1e-4, 3e-4, 1e-3, 3e-3), accuracies, strict=True):
        leave(tmp_path / str(lr), bn=True, lr=lr, accuracy=accuracy)
    found = rate_range(group_of(tmp_path), bn=True, init="xavier")
    assert (found.low, found.high) == (low, high)
    holds(found.text(), decades, "0.0001, 0.0003, 0.001, 0.003", *([] if low is None else [f"{low:g} to {high:g}"]))
    assert found.text()[0].isdigit() == (low == 3e-4)  # a bare number only if both ends are known


def test_a_rate_trains_if_it_does_in_every_finished_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        for lr in (1e-4, 1e-3):
            run = leave(tmp_path / f"{lr}{seed}", bn=True, lr=lr, seed=seed, finished=seed == 0 or lr == 1e-4)
            if not run.has_result():
                run.fail("diverged", RuntimeError("the loss is nan in step 3"))
    leave(tmp_path / "under way", bn=True, lr=1e-2, finished=False)
    found = rate_range(group_of(tmp_path), bn=True, init="xavier")
    assert (found.tried, found.low, found.high) == ((1e-4, 1e-3), 1e-4, 1e-4)
    assert speed(group_of(tmp_path))["trains"].tolist() == ["2 of 2", "1 of 2", "0 of 0"]


def test_epochs_to_an_accuracy_are_medians_with_their_interval(tmp_path: Path) -> None:
    for seed in range(3):
        for bn, accuracy in ((True, 0.75), (False, 0.45 if seed == 2 else 0.75)):
            folder = tmp_path / f"{bn}{seed}"
            leave(folder, bn=bn, lr=1e-3, seed=seed, epochs=10, accuracy=accuracy, noise=0.0)
    with_bn, without = speed(group_of(tmp_path)).to_dict("records")
    assert _to(50, with_bn) == "2 [2, 2]"
    assert not any(character.isdigit() for character in _to(80, with_bn))  # it never reaches 80 %
    holds(_to(50, without), "1 of 3")


def _to(percent: int, line: dict[Hashable, str]) -> str:
    (cell,) = [cell for name, cell in line.items() if f"{percent} %" in str(name)]
    return cell
