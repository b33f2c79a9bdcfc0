"""The benchmark's loops train identically and report their times."""

import time
from collections.abc import Callable
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from cifar_lab.benchmark import loops, watch
from cifar_lab.benchmark.ours import ours
from cifar_lab.benchmark.watch import PHASES, Over, Turn, Watch, shares
from cifar_lab.config.composition import composed

WORDS = [
    *("model.filters=[2,2,2]", "batch_size=8", "data=synthetic", "data.num_train=44", "data.num_test=20"),
    *("protocol=report", "augment=none", "trainer=cpu", "trainer.precision=32-true", "epochs=100"),
]
STEPS = 9  # one and a half epochs, including the short batch at the end of an epoch


@pytest.fixture(scope="module")
def config() -> DictConfig:
    return OmegaConf.create(composed(WORDS))


@pytest.fixture(scope="module")
def plain(config: DictConfig) -> list[float]:
    """Losses of the plain loop."""
    return list(run_turns(by_hand("plain", config), Turn(STEPS, skipped=0))[1]["losses"])


def run_turns(train: Callable[[Watch], object], *turns: Turn) -> list[dict[str, Any]]:
    """Return what a loop sends: its setup, then the measurements of each turn."""
    here, there = Pipe()
    for turn in (*turns, None):
        here.send(turn)
    with pytest.raises(Over):
        train(Watch(there, seeded=True))
    return [here.recv() for _ in range(1 + len(turns))]


def by_hand(name: str, config: DictConfig, **options: Any) -> Callable[[Watch], None]:
    def train(watch: Watch) -> None:
        for loss in getattr(loops, name)(config, watch, **options):
            watch.end(loss)

    return train


# Workers are forked from a multithreaded process, as a user's are.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_every_loop_and_cifar_lab_itself_train_to_the_same_losses(
    config: DictConfig, plain: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    turn = Turn(STEPS, skipped=0)
    assert len(set(plain)) == STEPS
    fp32 = loops.Variant(precision="32-true")
    for train in (by_hand("report", config), by_hand("best", config, variant=fp32), partial(ours, WORDS)):
        _, other = run_turns(train, turn)
        torch.testing.assert_close(other["losses"], plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"implementation": "for_loop"}, {"memory_format": "contiguous"}])
def test_variants_compute_differently_and_train_identically(
    config: DictConfig, plain: list[float], changes: dict[str, str]
) -> None:
    variant = loops.Variant(precision="32-true", **changes)
    how, other = run_turns(by_hand("best", config, variant=variant), Turn(STEPS, skipped=0))
    assert how == {"precision": "32-true", "memory_format": changes.get("memory_format", "channels_last")}
    torch.testing.assert_close(other["losses"], plain, rtol=1e-4, atol=1e-5)


def test_a_turn_continues_where_the_last_one_ended(config: DictConfig) -> None:
    _, whole = run_turns(by_hand("best", config), Turn(6, skipped=0))
    _, first, second = run_turns(by_hand("best", config), Turn(1, skipped=1), Turn(4, skipped=0))
    assert [*first["losses"], *second["losses"]] == whole["losses"]


@pytest.mark.parametrize("name", ["best", "train"])
def test_the_parts_of_a_step_sum_to_most_of_its_time(
    config: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    # Processor time does not advance while other processes run.
    monkeypatch.setattr(watch, "time", SimpleNamespace(perf_counter=time.process_time))
    train = by_hand("best", config) if name == "best" else partial(ours, WORDS)
    _, fast, parted = run_turns(train, Turn(2), Turn(3, in_phases=True))
    assert fast["phases"] == {}
    assert set(parted["phases"]) == set(PHASES)
    assert all(seconds > 0 for seconds in parted["phases"].values())
    of_step = shares(parted["seconds"], parted["phases"])
    assert sum(of_step.values()) == pytest.approx(1)
    assert of_step["forward"] + of_step["backward"] > of_step["data"]


def test_an_augmentation_without_a_transform_of_the_report_is_refused() -> None:
    config = OmegaConf.create(composed([*WORDS[:-1], "augment=cutout"]))
    with pytest.raises(ValueError, match=r"augment=cutout: .*identity, flip_crop, randaugment"):
        next(loops.report(config, Watch(Pipe()[0])))
