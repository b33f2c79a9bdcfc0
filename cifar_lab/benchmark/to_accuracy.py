"""Time and operations to an accuracy: a fast recipe, a plain loop of it, and the report's best CNN."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab.benchmark.budget import Lines
from cifar_lab.benchmark.comparison import flops_per_image
from cifar_lab.benchmark.processes import started
from cifar_lab.benchmark.watch import Turn
from cifar_lab.benchmark.whole import train_whole
from cifar_lab.config.command_line import parsed
from cifar_lab.config.composition import composed
from cifar_lab.config.options import options
from cifar_lab.config.preflight import plan_of
from cifar_lab.machine import hardware
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Archive, replacing
from cifar_lab.runs.sizes import train_size
from cifar_lab.table.curves import epochs_to
from cifar_lab.terminal.printing import print_table
from cifar_lab.terminal.progress import clock
from cifar_lab.train.cost import Speed, measure

# Test accuracy in percent that a recipe aims at, if its file sets no `published`.
_AIMS = {"fast_91": 91.6, "fast_94": 94.0, "fast_96": 96.0}
_REFERENCE = ["experiment=best_cnn", "protocol=report"]
_TURN_SECONDS = 10.0
CHECK_STEPS = 8


def recipe_for(target: float) -> str:
    """Return the override of the cheapest experiment `fast_*` that reaches an accuracy in percent.

    Raises:
        ValueError: No experiment reaches it.
    """
    names = sorted(option.name for option in options("experiment") if option.name.startswith("fast_"))
    own = {name: composed([f"experiment={name}"])["published"] for name in names}
    reaches = {name: _AIMS.get(name, 0.0) if own[name] is None else 100 * own[name] for name in names}
    for name, accuracy in sorted(reaches.items(), key=lambda one: one[1]):
        if accuracy >= target:
            return f"experiment={name}"
    known = ", ".join(f"{name} {accuracy:g} %" for name, accuracy in reaches.items()) or "there are none"
    raise UsageError(f"--to {target:g}: no experiment fast_* reaches it ({known}); use --recipe experiment=NAME")


def words_of(recipe: str, overrides: Sequence[str]) -> list[str]:
    """Return the recipe's checked command line, with `protocol=last` unless a protocol is given.

    Raises:
        ValueError: The command line is invalid.
    """
    typed = [*recipe.split(), *overrides]
    words = [*typed, *([] if any(word.startswith("protocol=") for word in typed) else ["protocol=last"])]
    plan_of(parsed(words))
    return words


class Race:
    """Train a recipe with `cifar_lab.train` and with the best plain loop, in turns of about ten seconds.

    Args:
        words: Command line of the recipe.
        folder: Folder of the recipe's run.
    """

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self.words = list(words)
        self.folder = folder.resolve()
        self.config = composed(words)
        self.speed: Speed = measure(self.config)
        data = self.config["data"]
        self.train_size = train_size(data)
        self.test_size = data.get("num_test", 10_000)
        epochs, every = self.config["epochs"], self.config["trainer"]["check_val_every_n_epoch"] or 1
        self.training_seconds: float = epochs * self.train_size / self.speed.training
        self.evaluation_seconds: float = (int(epochs // every) + 2) * self.test_size / self.speed.evaluation

    def run(self) -> list[dict[str, Any]]:
        """Train both loops and return their results."""
        ours_words = [*self.words, f"hydra.run.dir={self.folder}"]
        names = [("cifar_lab.train", ours_words), ("plain loop", self.words)]
        seconds, losses = np.zeros(2), tuple[list[float], list[float]](([], []))
        lines = Lines()
        with started(names, train_whole, seeded=True) as (ours, plain):
            steps = max(1, round(_TURN_SECONDS * self.speed.training / self.config["batch_size"]))
            is_over = False
            while not is_over:
                turn = ours.take(Turn(steps, skipped=0))
                is_over = turn["is_over"]
                turns = [turn]
                if turn["losses"]:
                    turns.append(plain.take(Turn(len(turn["losses"]), skipped=0)))
                for number, each in enumerate(turns):
                    seconds[number] += each["seconds"]
                    losses[number].extend(each["losses"])
                left = max(0.0, 2 * self.training_seconds - seconds.sum())
                lines.say(f"step {len(losses[0])}: loss {losses[0][-1]:.3f}, about {clock(left)} of training left")
            results = [process.take(None) for process in (plain, ours)][::-1]
        images = results[0]["images"]
        flops = 3 * flops_per_image(self.words) * images
        return [
            {
                "name": name,
                "steps": len(losses[0]),
                "images": images,
                "pflop": flops / 1e15,
                "seconds": float(taken),
                "images_per_second": images / taken,
                "losses": own,
                **result,
            }
            for (name, _), taken, own, result in zip(names, seconds, losses, results, strict=True)
        ]


def share_of_framework(ours: Mapping[str, Any], plain: Mapping[str, Any]) -> float:
    """Return the fraction of our training time that a plain loop with the same steps saves."""
    return float((ours["seconds"] - plain["seconds"]) / ours["seconds"])


def apart(ours: Mapping[str, Any], plain: Mapping[str, Any]) -> float:
    """Return the largest relative difference of the losses over the first steps."""
    first = (one["losses"][:CHECK_STEPS] for one in (ours, plain))
    return float(np.abs(np.divide(*first) - 1).max())


def reference(target: float, archive: Archive) -> dict[str, Any]:
    """Estimate the report's best CNN from its archived curves of test-set validations and this machine's speed.

    Returns:
        A row like those of `Race.run`, without the entries of a run. `best` is the highest accuracy of the curves.
        If no curve reaches the target, `epochs` is None and the entries derived from it are missing.
    """
    config = composed(_REFERENCE)
    speed = measure(config)
    curves = [
        run.metrics
        for run in archive.read()
        if run.options.get("experiment") == "best_cnn"
        and (run.protocol, run.settings.get("epochs")) == ("report", config["epochs"])
        and run.result.get("train_size") == 50_000
        and run.metrics is not None
    ]
    reached = [epoch for curve in curves if not math.isnan(epoch := epochs_to(curve, target / 100))]
    epochs = min(reached, default=None)
    row: dict[str, Any] = {"name": "best_cnn", "images_per_second": speed.training, "epochs": epochs}
    row["best"] = max((float(curve["val/acc"].max()) for curve in curves), default=None)
    if epochs is None:
        return row
    images = 50_000 * epochs
    pflop = 3 * flops_per_image(_REFERENCE) * images / 1e15
    evaluation = {"evaluation_seconds": 10_000 * epochs / speed.evaluation}
    return {**row, "images": images, "pflop": pflop, "seconds": images / speed.training, **evaluation}


def benchmark_to(target: float, recipe: str, overrides: Sequence[str], output: Path, as_json: bool) -> int:
    """Print a time estimate, train, print a table or JSON, write `to_accuracy.json` and return the exit code."""
    words = words_of(recipe or recipe_for(target), overrides)
    best_cnn = reference(target, Archive(Path("docs/results")))
    race = Race(words, output / time.strftime("to_accuracy_%Y-%m-%d_%H-%M-%S"))
    training, evaluation = (clock(2 * each) for each in (race.training_seconds, race.evaluation_seconds))
    takes = f"about {training} of training and {evaluation} of evaluation, measured now"
    print(f"{' '.join(words)}, with cifar_lab.train and a plain loop: {takes}", file=sys.stderr, flush=True)
    ours, plain = rows = race.run()
    share, difference = share_of_framework(ours, plain), apart(ours, plain)
    device = hardware.describe(hardware.training_device(race.config["trainer"]["accelerator"]))
    results = {
        "host": device,
        "target": target,
        "words": words,
        "loops": rows,
        "best_cnn": best_cnn,
        "share_of_framework": share,
        "apart": difference,
    }
    output.mkdir(parents=True, exist_ok=True)
    with replacing(output / "to_accuracy.json") as file:
        file.write(json.dumps(results, indent=2) + "\n")
    if as_json:
        print(json.dumps(results, indent=2))
        return 0
    print_table([*(_cells(row, target) for row in rows), _reference_cells(best_cnn, target)], left=("loop", "reached"))
    print(f"the framework's share of the time: {share:.1%}")
    print(f"largest difference of the first {CHECK_STEPS} losses from the plain loop's: {difference:.1%}")
    print(f"- {output / 'to_accuracy.json'}, {race.folder}")
    return 0


def _cells(row: Mapping[str, Any], target: float) -> dict[str, str]:
    reached = max(row["acc"], row["acc_tta"] or 0.0) >= target / 100
    return {
        "loop": row["name"],
        "PFLOP": f"{row['pflop']:.4g}",
        "training": clock(row["seconds"]),
        "images/s": f"{row['images_per_second']:,.0f}",
        "evaluation": clock(row["evaluation_seconds"]),
        "test": f"{row['acc']:.2%}",
        "with tta": "-" if row["acc_tta"] is None else f"{row['acc_tta']:.2%}",
        "reached": f"{target:g} %" if reached else "no",
    }


def _reference_cells(row: Mapping[str, Any], target: float) -> dict[str, str]:
    names = ("PFLOP", "training", "images/s", "evaluation", "test", "with tta")
    cells = {"loop": f"{row['name']}, kept curve", **dict.fromkeys(names, "-")}
    cells |= {"images/s": f"{row['images_per_second']:,.0f}"}
    if row["best"] is None:
        return {**cells, "reached": "no curve kept"}
    cells["test"] = f"{row['best']:.2%}"
    if row["epochs"] is None:
        return {**cells, "reached": "not reached in its kept curve"}
    times = {"training": clock(row["seconds"]), "evaluation": clock(row["evaluation_seconds"])}
    return {**cells, "PFLOP": f"{row['pflop']:.4g}", **times, "reached": f"{target:g} % in epoch {row['epochs']:g}"}
