"""Numbers of paired seeds with their intervals, and the files of a comparison."""

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
    """A number over seeds."""

    value: float  # the point estimate
    interval: Interval | None  # 95 %, by the bootstrap over seeds; None of fewer than three
    seeds: int  # number of seeds
    # 95 %, by Student's t, of a ratio on its logarithms; None of fewer than three, and of a median
    t_interval: Interval | None = None
    effect: Effect | None = None  # of a ratio on its logarithms; None if a value is not finite, and of a median

    def text(self) -> str:
        """`2.61 [2.2, 3.1]`, `2.61 (one seed)`, `2.61 (2 seeds)`."""
        if self.interval is not None:
            return f"{self.value:.3g} [{self.interval[0]:.3g}, {self.interval[1]:.3g}]"
        return f"{self.value:.3g} ({'one seed' if self.seeds == 1 else f'{self.seeds} seeds'})"

    def judged(self) -> str:
        """`2.61 [2.2, 3.1], t 1.7 to 4.0`: with the interval that decides, if there is one."""
        by_t = "" if self.t_interval is None else f", t {self.t_interval[0]:.3g} to {self.t_interval[1]:.3g}"
        return f"{self.text()}{by_t}"


def ratio(quotients: Sequence[float] | np.ndarray) -> Estimate:
    """The geometric mean of a quotient over seeds, `(n,)`; NaN if a seed has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        in_log = difference(np.log(np.asarray(quotients, dtype=float)))
        bootstrapped, by_t = (
            None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1])))
            for interval in (in_log.interval, in_log.t_interval)
        )
        return Estimate(float(np.exp(in_log.value)), bootstrapped, in_log.seeds, by_t, in_log.effect)


def difference(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean over seeds of a difference, `(n,)`."""
    array = np.asarray(values, dtype=float)
    effect = of_seeds(array) if np.isfinite(array).all() else None
    return Estimate(float(array.mean()), bootstrap_interval(array), len(array), t_interval(array), effect)


def median(values: Sequence[float] | np.ndarray) -> Estimate:
    """The median over seeds, `(n,)`."""
    array = np.asarray(values, dtype=float)
    return Estimate(float(np.median(array)), bootstrap_interval(array, np.median), len(array))


def listed(values: Iterable[float]) -> str:
    """`0.001, 0.1`: rising, joined by commas."""
    return ", ".join(f"{value:g}" for value in sorted(values))


class Outputs(NamedTuple):
    """A comparison in sentences and files."""

    sentences: list[str]  # the findings
    tables: dict[str, pd.DataFrame]  # by the name of their CSV file, without suffix
    figures: list[Path]  # the pictures' files

    def add(
        self,
        folder: Path | None,
        name: str,
        draw: Callable[[], Figure],
        sentences: Sequence[str],
        tables: Mapping[str, pd.DataFrame],
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        """Print the sentences, and write, if there is a folder, a figure and its arrays as `name`, and tables.

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
