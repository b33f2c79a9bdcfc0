"""Description of a run for loggers, and the part of it that may leave the machine."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cifar_lab.runs import Run
from cifar_lab.runs.fingerprints import value_of
from cifar_lab.runs.labels import holds_out
from cifar_lab.train.attempt import TrainingTask

CONFUSION_MATRIX = "test/confusion_matrix"  # name of the image in every logger
# Numbers of the result by their logged names. `val/acc` is a curve that ends with the last epoch, so the value of the
# selected weights needs a different name.
_RESULT = {
    "val/acc": "val/acc_chosen",
    "val/loss": "val/loss_chosen",
    "best_epoch": "whole_run/best_epoch",
    "seconds": "whole_run/seconds",
    "images_per_second": "whole_run/images_per_second",
}
_PLANS = ("sweep.json", "trials.journal")  # files in the folder of a sweep or search
_LEAST = 4  # minimum length of an environment variable's value that is replaced within other text


def result_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a run's result by their logged names, without `test/*`, which is logged earlier."""
    return {name: result[key] for key, name in _RESULT.items() if result[key] is not None}


@dataclass(frozen=True)
class Description:
    """What loggers show of a run besides its metrics."""

    run: Run
    name: str  # of the run
    group: str | None  # name of the run's sweep or search; None for a single run
    tags: tuple[str, ...]
    words: tuple[str, ...]  # the command line
    config: Mapping[str, Any]  # resolved, plain values
    hyperparameters: Mapping[str, bool | float | str]  # the settings that distinguish the run from others
    val_is_test: bool  # whether `val/*` is measured on the test set

    @classmethod
    def of(cls, task: TrainingTask) -> "Description":
        """Build the description of a run that has started."""
        run, config = task.attempt.run, task.config
        # Not `attempt.turn`, because a run of a sweep may be resumed on its own.
        is_one_of_many = any((run.folder.parent / name).exists() for name in _PLANS)
        return cls(
            run,
            run.folder.absolute().name,
            str(config["name"]) if is_one_of_many else None,
            tuple(config.get("tags", ())),
            tuple(task.overrides),
            config,
            task.hyperparameters,
            val_is_test=not holds_out(config),
        )

    @property
    def command(self) -> str:
        """The command line, one override per line."""
        return " \\\n  ".join(["python -m cifar_lab.train", *map(shlex.quote, self.words)])

    def epochs(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield the last step (from 0) and the metrics of each recorded epoch."""
        if self.run.metrics_file.exists():
            for row in self.run.metrics().to_dict("records"):
                metrics = {str(name): float(value) for name, value in row.items() if "/" in str(name)}
                known = {name: value for name, value in metrics.items() if value == value}
                yield (
                    int(row["step"]) - 1,
                    {  # from 0, like Lightning's
                        "epoch": row["epoch"] - 1,
                        **known,
                    },
                )

    def without_private(self) -> "Description":
        """Return a copy without values of environment variables, paths of the home folder and settings of loggers.

        A value taken from a variable is replaced by the interpolation that names the variable.
        """
        hidden = {str(home): "~" for home in (Path.home(), Path.home().resolve()) if len(home.parts) > 1}
        for key, source in self.run.composition()["interpolations"].items():
            names = re.findall(r"oc\.env:\s*(\w+)", source)
            values = {os.environ.get(name, ""): f"${{oc.env:{name}}}" for name in names}
            if names and isinstance(value := value_of(self.config, key), str):
                values[value] = source
            hidden |= {value: instead for value, instead in values.items() if len(value) >= _LEAST}
        # A run folder's name contains values with these characters replaced.
        hidden |= {re.sub(r"[^A-Za-z0-9=.,_+-]+", "-", value): "-" for value in hidden if "/" in value}

        def public(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {key: public(each) for key, each in value.items()}
            if isinstance(value, list | tuple):
                return type(value)(map(public, value))
            if isinstance(value, str):
                for text, instead in hidden.items():
                    value = value.replace(text, instead)
            return value

        return replace(
            self,
            name=public(self.name),
            group=public(self.group),
            tags=public(self.tags),
            words=tuple(public(word) for word in self.words if not word.startswith("logger.")),
            config=public({key: value for key, value in self.config.items() if key != "logger"}),
            hyperparameters=public(self.hyperparameters),
        )
