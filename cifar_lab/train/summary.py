"""The printed summary and the figures of a finished run."""

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cifar_lab import current
from cifar_lab.evaluate.figures import card, confusion_matrix
from cifar_lab.figures import Figure, painted
from cifar_lab.machine import provenance
from cifar_lab.runs import Run
from cifar_lab.runs.files import write_figure
from cifar_lab.runs.fingerprints import leaves, value_of
from cifar_lab.runs.labels import data_words, holds_out, protocol_name, protocol_words, val_label
from cifar_lab.statistics.accuracies import wilson_interval
from cifar_lab.terminal.printing import note
from cifar_lab.train import figures
from cifar_lab.train.attempt import quoted

# Optional outputs of a run, with the setting that requests them.
_EXTRAS = {
    "callbacks.snapshots": "callbacks.snapshots.every_epochs",
    "trainer.profiler": "trainer.profiler",
}


def summary(run: Run) -> str:
    """Summarise a finished run: test accuracy with its 95 % Wilson interval, data, protocol, best epoch, seconds."""
    result, config = run.result(), run.composition()["config"]
    accuracy, images, speed = result["test/acc"], result["test_size"], result["images_per_second"]
    low, high = wilson_interval(round(accuracy * images), images)
    subset = "" if result["train_size"] == result["train_available"] else f" of {result['train_available']:,}"
    lines = {
        "test accuracy": f"{accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}, {images:,} images), "
        f"after the last epoch {result['test/acc_final']:.2%}",
        **({"  with tta": _augmented(result, config)} if "test/acc_tta" in result else {}),
        "data": f"{data_words(result['options']['data'], config)}, trained on {result['train_size']:,}{subset} images",
        "protocol": f"{protocol_name(config)}: {protocol_words(protocol_name(config), holds_out(config))}",
        "best epoch": f"{result['best_epoch'] or 'none chosen'} of {math.ceil(result['epochs'])}",
        "seconds": f"{result['seconds']:,.0f}" + ("" if speed is None else f", {speed:,.0f} images/s in training"),
    }
    if result.get("probes"):
        lines["probes"] = f"{result['probes']} in {result['probe_seconds']:,.1f} s"
        if speed is not None:
            share = result["probe_seconds"] * speed / (result["epochs"] * result["train_size"])
            lines["probes"] += f", {share:.1%} of training"
    lines["folder"] = os.path.relpath(run.folder)
    return "\n".join(f"{name:14} {text}" for name, text in lines.items())


def _augmented(result: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    below = "" if config["tta_below"] >= 1 else f" where the probability is below {config['tta_below']}"
    final = f"after the last epoch {result['test/acc_tta_final']:.2%}"
    return f"{result['test/acc_tta']:.2%} (tta={config['tta']}{below}), {final}"


def origin(run: Run, config: Mapping[str, Any]) -> str:
    """Describe the origin of a finished run: date, source revision, and what differs now."""
    result = run.result()
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.result_file.stat().st_mtime))
    before, now = result.get("git_revision"), provenance.git_revision()
    words = f"trained {when}" + ("" if before is None else f", revision {_short(before)}")
    if before != now and now is not None:
        words += f" (now {_short(now)})"
    sources, trained = provenance.sources(config), result.get("sources", {})
    changed = [package for package, digest in sources.items() if trained.get(package) != digest]
    words += f"; {' and '.join(changed)} changed since" if changed else ""
    words = f"{'found':14} {words}; retrain=true trains it again"
    saved = run.config()
    lacking = [name for name, key in _EXTRAS.items() if value_of(config, key) not in (None, value_of(saved, key))]
    lacking += [f"logger={name}" for name, target in _loggers(config).items() if target not in _loggers(saved).values()]
    return f"{words}\nnote: the run was trained without {' and '.join(lacking)}; set retrain=true" if lacking else words


def _loggers(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the class of each logger by its option; a run of version 0.1 has a single logger and no option names."""
    chosen = leaves(config.get("logger") or {})
    classes = {key.partition(".")[0]: current(str(value)) for key, value in chosen if key.endswith("_target_")}
    return {name: target.rpartition(".")[2] for name, target in classes.items()}


def _short(revision: str) -> str:
    return revision[:7] + ("-dirty" if revision.endswith("-dirty") else "")


def confusion_card(result: Mapping[str, Any]) -> bytes:
    """Return the confusion matrix as a PNG of the size of a TensorBoard card; empty if drawing fails."""
    counts = np.array(result["confusion_matrix"])
    return painted(lambda: card(counts, result["classes"]), "the confusion matrix", format="png", dpi=150) or b""


def draw(run: Run, *, missing: bool = False) -> None:
    """Draw a finished run's `figures/`: curves of loss and accuracy, the learning rate, the confusion matrix.

    Args:
        run: The run.
        missing: Draw only the missing ones.

    Raises:
        OSError: A figure cannot be written.
    """
    result = run.result()
    title = f"{result['name']}: {', '.join(result['overrides']) or 'defaults'}"
    tested = f"{title}\ntest accuracy {result['test/acc']:.2%}"

    def learning_rate() -> Figure:
        rates = run.steps()["lr"]
        return figures.learning_rate(rates, max(1, round(len(rates) / result["epochs"])), title)

    drawn: dict[str, Callable[[], Figure]] = {
        "curves": lambda: figures.training_curves(
            run.metrics(), title, val_label(holds_out(run.composition()["config"]))
        ),
        "learning_rate": learning_rate,
        "confusion_matrix": lambda: confusion_matrix(np.array(result["confusion_matrix"]), result["classes"], tested),
    }
    run.figures.mkdir(exist_ok=True)
    paths = {run.figures / f"{name}.png": draw for name, draw in drawn.items()}
    due = [path for path in paths if not (missing and path.exists())]
    if [path for path in due if not write_figure(paths[path], path, dpi=120)]:
        note(f"resume={quoted(run.folder)} draws the missing figures")
