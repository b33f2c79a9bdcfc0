"""Estimates over paired seeds with their intervals, and the files of a comparison."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cifar_lab.figures import Figure
from cifar_lab.runs.files import replacing, write_figure
from cifar_lab.statistics.accuracies import Interval
from cifar_lab.statistics.significance import Effect, bootstrap_interval, of_seeds, t_interval


class Estimate(NamedTuple):
    """An estimate over seeds."""

    value: float  # the point estimate
    interval: Interval | None  # 95 % bootstrap interval over seeds; None for fewer than three seeds
    seeds: int  # number of seeds
    # 95 % Student's t interval, of a ratio's logarithms; None for fewer than three seeds and for a median
    t_interval: Interval | None = None
    effect: Effect | None = None  # of a ratio's logarithms; None if a value is not finite and for a median

    def text(self) -> str:
        """Format as `2.61 [2.2, 3.1]`, `2.61 (one seed)` or `2.61 (2 seeds)`."""
        if self.interval is not None:
            return f"{self.value:.3g} [{self.interval[0]:.3g}, {self.interval[1]:.3g}]"
        return f"{self.value:.3g} ({'one seed' if self.seeds == 1 else f'{self.seeds} seeds'})"

    def judged(self) -> str:
        """Format as `2.61 [2.2, 3.1], t 1.7 to 4.0`; the t interval, if there is one, decides."""
        by_t = "" if self.t_interval is None else f", t {self.t_interval[0]:.3g} to {self.t_interval[1]:.3g}"
        return f"{self.text()}{by_t}"


def ratio(quotients: Sequence[float] | np.ndarray) -> Estimate:
    """Return the geometric mean over seeds of quotients `(n,)`; NaN if one is NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        in_log = difference(np.log(np.asarray(quotients, dtype=float)))
        bootstrapped, by_t = (
            None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1])))
            for interval in (in_log.interval, in_log.t_interval)
        )
        return Estimate(float(np.exp(in_log.value)), bootstrapped, in_log.seeds, by_t, in_log.effect)


def difference(values: Sequence[float] | np.ndarray) -> Estimate:
    """Return the mean over seeds of differences `(n,)`."""
    array = np.asarray(values, dtype=float)
    effect = of_seeds(array) if np.isfinite(array).all() else None
    return Estimate(float(array.mean()), bootstrap_interval(array), len(array), t_interval(array), effect)


def median(values: Sequence[float] | np.ndarray) -> Estimate:
    """Return the median over seeds of `values` `(n,)`."""
    array = np.asarray(values, dtype=float)
    return Estimate(float(np.median(array)), bootstrap_interval(array, np.median), len(array))


def listed(values: Iterable[float]) -> str:
    """Format values in ascending order as `0.001, 0.1`."""
    return ", ".join(f"{value:g}" for value in sorted(values))


class Outputs(NamedTuple):
    """Results of a comparison."""

    sentences: list[str]  # the results in words
    tables: dict[str, pd.DataFrame]  # by CSV file name, without suffix
    figures: list[Path]  # image files

    def add(
        self,
        folder: Path | None,
        name: str,
        draw: Callable[[], Figure],
        sentences: Sequence[str],
        tables: Mapping[str, pd.DataFrame],
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        """Print the sentences, and write the figure and arrays as `name` and the tables to `folder` unless it is None.

        Raises:
            OSError: The folder cannot be written.
        """
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.figures.extend(write_figure(draw, folder / f"{name}.png", dpi=120))
            for of_table, frame in tables.items():
                with replacing(folder / f"{of_table}.csv") as file:
                    frame.to_csv(file, index=False, lineterminator="\n")
            with replacing(folder / f"{name}.npz", "wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        self.tables.update(tables)
        self.sentences.extend(sentences)
        print("\n".join(sentences))
