"""Every user setting either makes a different run or changes no weight."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cifar_lab.config import conf_folder, resolved
from cifar_lab.runs import Run
from cifar_lab.runs.fingerprints import fingerprint, leaves
from tests.conftest import Compose, Outcome, Train

TINY = ("data=synthetic", "data.num_train=300", "data.num_test=100", "model.filters=[8,8,16]", "epochs=1")
# Keys that are neither hashed nor tried, with the reason.
NOT_TRIED = {
    "name": "where the run lies",
    "allow": "which packages may be used; what is used of them is hashed",
    "published": "a number to compare with",
    "resume": "how it is run",
    "retrain": "how it is run",
    "retry_failed": "how it is run",
    "retry_diverged": "how it is run",
    "jobs_per_device": "how it is run",
    "logger": "where metrics are written too",
    "tags": "what the run is called there",
    "data.root": "where the published images lie; with data.verify=false it is hashed",
    "data.download": "how the published images come there",
    "data.sources": "the same",
    "trainer.strategy": "several devices train by DistributedDataParallel in either case",
    "trainer.devices": "auto is as many as there are, which is recorded; a number is hashed",
    "trainer.max_time": "how long a run may take",
    "callbacks.early_stopping.patience": "the same",
    "scheduler.total_iters": "of a constant factor 1",
    "trainer.limit_train_batches": "no limit by another word; 0.5 is hashed",
}
# Keys that are not hashed, with the overrides that set a different value, which are trained.
NO_WEIGHT = {
    "trainer.enable_progress_bar": "trainer.enable_progress_bar=false",
    "trainer.detect_anomaly": "trainer.detect_anomaly=true",
    "trainer.profiler": "trainer.profiler=simple",
    "trainer.limit_val_batches": "trainer.limit_val_batches=1.0",
    "trainer.limit_test_batches": "trainer.limit_test_batches=1.0",
    "callbacks.checkpoint": "callbacks.checkpoint.every_minutes=null",
    "callbacks.snapshots": "callbacks=snapshots",
    "data.train_size": "data.train_size=270",
}
# Two spellings of one run: the shorter one, and additions that have no effect with it.
SPELLINGS = [
    ("scheduler=constant", "scheduler.total_iters=2 scheduler.lightning.interval=step"),
    ("scheduler=one_cycle scheduler.cycle_momentum=false", "scheduler.base_momentum=0.5 scheduler.max_momentum=0.6"),
    ("optimizer=sgd optimizer.momentum=0 optimizer.nesterov=false", "optimizer.dampening=0.5"),
    ("protocol=report", "data.split_seed=3"),
]


def _options(composed: Compose) -> Iterator[dict[str, Any]]:
    """Yield a composition with each option of each group of settings."""
    whole = {"experiment", "study", "search", "hydra"}
    for path in sorted(conf_folder().glob("*/*.yaml")):
        if path.parent.name not in whole:
            yield resolved(composed(f"{path.parent.name}={path.stem}"))


def _other_values(key: str, value: Any) -> list[Any]:
    """Return other values for a key."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value / 2 + 0.125]
    if isinstance(value, list):
        return [[*value, 7]]
    return ["cpu" if key == "trainer.accelerator" else "another", 3]


def _with_value(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    node: Any = config
    *path, name = key.split(".")
    for part in path:
        node = node[part]
    node[name] = value
    return config


def test_every_key_makes_a_different_run_or_is_known_to_change_no_weight(composed: Compose) -> None:
    known = NOT_TRIED.keys() | NO_WEIGHT.keys()
    left_out, seen = set(), set()
    for config in _options(composed):
        own = fingerprint(config)
        for key, value in leaves(config):
            if key in seen or key.endswith("_partial_") or value == {}:
                continue
            seen.add(key)
            if any(fingerprint(_with_value(config, key, other)) == own for other in _other_values(key, value)):
                left_out.add(next((name for name in known if f"{key}.".startswith(f"{name}.")), key))
    assert len(seen) > 100
    assert left_out <= known, "a key that makes no other run needs a reason, or a line in NO_WEIGHT"


@pytest.mark.parametrize("words", NO_WEIGHT.values())
def test_a_setting_outside_the_fingerprint_changes_no_weight(words: str, lab: Any, trained: Train) -> None:
    plain = trained(*TINY, "logger=none", name="plain")
    outcome: Outcome = lab(*TINY, "logger=none", words, "hydra.run.dir=other")
    assert outcome.code == 0, outcome.stderr
    other = Run("other")
    assert other.result()["fingerprint"] == plain.result()["fingerprint"]
    weights = [torch.load(run.last_checkpoint, weights_only=True)["state_dict"] for run in (plain, other)]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


@pytest.mark.parametrize(("words", "more"), SPELLINGS)
def test_a_setting_without_effect_keeps_the_fingerprint(
    words: str, more: str, composed: Compose, trained: Train
) -> None:
    first, second = words.split(), [*words.split(), *more.split()]
    assert fingerprint(resolved(composed(*first))) == fingerprint(resolved(composed(*second)))
    runs = [trained(*TINY, "logger=none", *each, name=name) for each, name in ((first, "first"), (second, "second"))]
    weights = [torch.load(run.last_checkpoint, weights_only=True)["state_dict"] for run in runs]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_unverified_images_are_identified_by_their_folder(composed: Compose) -> None:
    def identity(*words: str) -> str:
        return fingerprint(resolved(composed("data=cifar10", *words)))

    unverified = ["data.root=/a data.verify=false", "data.root=/b data.verify=false", "data.root=/a"]
    assert len({identity(*words.split()) for words in unverified}) == 3
    assert identity("data.root=/a") == identity("data.root=/b")


@pytest.mark.parametrize(
    "words",
    [
        "trainer.precision=bf16-mixed",
        "trainer.precision=32-true",
        "compile=true",
        "cuda_graphs=true",
        "trainer=cpu",
        "trainer.devices=2",
        "trainer.sync_batchnorm=true",
        "trainer.memory_format=contiguous",
        "optimizer.fused=false",
        "optimizer.foreach=true",
    ],
)
def test_a_typed_hardware_setting_makes_a_different_run_and_auto_does_not(composed: Compose, words: str) -> None:
    identity = fingerprint(resolved(composed(words)))
    assert identity != fingerprint(resolved(composed()))
    assert fingerprint(resolved(composed("trainer=ddp"))) == fingerprint(resolved(composed()))
