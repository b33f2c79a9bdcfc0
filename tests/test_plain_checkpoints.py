"""Checkpoints hold only plain values and tensors, so any torch can read them without running code."""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cifar_lab.runs import Run
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.fitting import fit_and_test
from tests.conftest import TINY, Compose

PLAIN = {dict, OrderedDict, list, tuple, str, int, float, bool, type(None), torch.Tensor}


def _foreign(value: Any, place: str) -> Iterator[str]:
    """Yield the places of other types in nested containers; a subclass, such as numpy's floats, is another type."""
    if type(value) not in PLAIN:
        yield f"{place}: {type(value).__module__}.{type(value).__qualname__}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _foreign(key, f"{place}, a key")
            yield from _foreign(inner, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _foreign(inner, f"{place}[{index}]")


@pytest.mark.parametrize(
    "arguments",
    [
        ("averaging=swa", "averaging.start=0.5", "scheduler=plateau", "augment=randaugment"),
        ("averaging=ema", "scheduler=one_cycle", "callbacks=early_stopping", "optimizer=sgd", "augment=cutout"),
        ("averaging=lookahead", "scheduler=linear", "optimizer=muon", "optimizer.decay_norms=false"),
    ],
    ids=["swa, plateau, randaugment", "ema, one cycle, early stopping", "lookahead, linear, muon"],
)
def test_a_checkpoint_holds_nothing_but_plain_values_and_tensors(
    composed: Compose, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    run = Run(tmp_path)
    fit_and_test(composed(*TINY, *arguments), Attempt(run))
    paths = [run.last_checkpoint, run.previous_checkpoint, run.best_checkpoint, *run.weights.iterdir()]
    for path in paths:
        assert not list(_foreign(torch.load(path, weights_only=True), path.name))
