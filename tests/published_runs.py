"""Finished runs of published rows, as training leaves them, with numbers that a test chooses."""

import copy
import csv
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO
from unittest import mock

import numpy as np
import yaml

from cifar_lab.report.published import Row, Scale
from cifar_lab.runs import Run
from cifar_lab.runs.fingerprints import fingerprint

_HELD_OUT = 0.1
STEPS_PER_EPOCH = 10


def configured(row: Row, seed: int = 0, protocol: str = "report", scale: Scale = Scale.FULL) -> dict[str, Any]:
    """Return the composition of `row.command(scale, seed, protocol)`."""
    config = copy.deepcopy(dict(row.config))
    config["seed"] = config["data"]["seed"] = seed
    config["protocol"]["name"] = protocol
    config["protocol"]["val_fraction"] = config["data"]["val_fraction"] = _HELD_OUT if protocol == "holdout" else 0.0
    _set(config, row.shortened(scale))
    for group, key in (("scheduler", "T_max"), ("averaging", "epochs")):
        if key in config[group]:
            config[group][key] = config["epochs"]
    return config


def _set(config: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Change settings by dotted key."""
    for key, value in changes.items():
        *path, last = key.split(".")
        functools.reduce(dict.__getitem__, path, config)[last] = value


def leave_run(
    folder: Path,
    row: Row,
    accuracy: float,
    *,
    seed: int = 0,
    protocol: str = "report",
    scale: Scale = Scale.FULL,
    noise: float = 0.002,
    options: Mapping[str, str | None] | None = None,
    epochs: int | None = None,
    finished: bool = True,
    overrides: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    losses: Mapping[int, float] | None = None,
) -> Run:
    """Write a run whose chosen epoch, the last but one, has `accuracy`.

    `overrides` belong to a study's run; `changes` are settings that differ from the row's, by dotted key; `losses`
    replace the falling validation losses, by epoch.
    """
    config = configured(row, seed, protocol, scale)
    _set(config, changes or {})
    if epochs is not None:
        config["epochs"] = epochs
    epochs = config["epochs"]
    run = Run(folder)
    chosen = {"experiment": row.experiment, "data": "cifar10", "model": "cnn", **(options or {})}
    study = chosen.get("study")
    typed = row.command(scale, seed, protocol) if study is None else [f"study={study}", f"seed={seed}", *overrides]
    with mock.patch("yaml.safe_dump", _dump):
        run.start(config, typed, chosen, {"data.seed": "${seed}"})
    rows = []
    drawn = np.random.default_rng(seed)
    for epoch in range(1, epochs + 1):
        share = 1 - 0.5 ** (epoch / epochs * 8)
        reached = accuracy * share + noise * float(drawn.standard_normal()) * (epoch < epochs - 1)
        rows.append(
            {
                "epoch": epoch,
                "step": epoch * STEPS_PER_EPOCH,
                "train/loss": 2.3 - 2 * share,
                "train/acc": share,
                "val/loss": (losses or {}).get(epoch, 2.3 - 1.5 * share),
                "val/acc": accuracy if epoch == epochs - 1 else min(reached, accuracy),
            }
        )
    with run.metrics_file.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if finished:
        matrix = np.full((10, 10), 10) + np.diag(np.full(10, 900))
        run.finish(
            {
                "name": "report",
                "seed": seed,
                "protocol": protocol,
                "published": row.accuracy,
                "fingerprint": fingerprint(config),
                "num_parameters": 1000,
                "epochs": epochs,
                "best_epoch": max(1, epochs - 1),
                "train_size": int(config["data"]["train_size"] or 50000),
                "train_available": 50000,
                "test_size": 10000,
                "test/acc": accuracy,
                "test/acc_final": accuracy - 0.01,
                "val/acc": accuracy,
                "seconds": 3600.0,
                "images_per_second": 700.0,
                "precision": "32-true",
                "hardware": {"device_name": "a processor"},
                "versions": {},
                "git_revision": "0" * 40,
                "options": chosen,
                "overrides": typed,
                "classes": [str(number) for number in range(10)],
                "confusion_matrix": matrix.tolist(),
            }
        )
    return run


def _dump(content: Any, file: TextIO, **options: Any) -> None:
    """Write the same YAML with libyaml, if available, in a fraction of the time."""
    yaml.dump(content, file, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), **options)
