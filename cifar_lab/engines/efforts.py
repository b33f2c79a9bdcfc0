"""Relative durations of the jobs of a sweep, estimated from the few composed ones."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from cifar_lab.config import Plan
from cifar_lab.config.naming import plain
from cifar_lab.runs.sizes import train_size

# Relative duration of a composition in plain values; None if unknown.
Effort = Callable[[Mapping[str, Any]], float | None]


def efforts_of(plan: Plan, effort: Effort) -> list[float]:
    """Return the effort of each job relative to the first: the product over the words in which they differ.

    The check has composed the jobs that differ in one word. A word with unknown effort counts as 1. `effort` is not
    called if the composed jobs do not differ in the cost of training.
    """
    first = set(plan.jobs[0].words)
    composed = [(set(job.words) - first, plain(job.composed)) for job in plan.jobs if job.composed is not None]
    known = {_key(config): config for _, config in composed}
    if len(known) < 2:
        return [1.0] * len(plan.jobs)
    efforts = {key: effort(config) for key, config in known.items()}
    base = next((efforts[_key(config)] for words, config in composed if not words), None)
    single = {min(words): efforts[_key(config)] for words, config in composed if len(words) == 1}
    ratios = {word: each / base for word, each in single.items() if each and base}
    return [math.prod(ratios.get(word, 1.0) for word in set(job.words) - first) for job in plan.jobs]


def _key(config: Mapping[str, Any]) -> str:
    """Return a key that is equal for configurations with the same cost of training."""
    length = config["epochs"], train_size(config["data"]), config["trainer"]["limit_train_batches"]
    return json.dumps([config["model"], *length], sort_keys=True)
