"""Numbers of paired seeds in words: a ratio or a median with its interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cifar_lab.figures import Figure
from cifar_lab.runs import replacing
from cifar_lab.runs.outputs import write_figure
from cifar_lab.statistics.significance import bootstrap_interval, t_interval


class Estimate(NamedTuple):
    """A number over seeds.

    Attributes:
        value: It.
        interval: 95 %, by the bootstrap over seeds; None of fewer than three.
        seeds: How many it is of.
        t_interval: 95 %, by Student's t, of a ratio on its logarithms; None of fewer than three, and of a median.
    """

    value: float
    interval: tuple[float, float] | None
    seeds: int
    t_interval: tuple[float, float] | None = None

    def told(self, digits: int = 3) -> str:
        """`2.61 [2.2, 3.1]`, `2.61 (one seed)`, `2.61 (2 seeds)`."""
        number = f"{self.value:.{digits}g}"
        if self.interval is not None:
            low, high = (f"{bound:.{digits}g}" for bound in self.interval)
            return f"{number} [{low}, {high}]"
        return f"{number} ({'one seed' if self.seeds == 1 else f'{self.seeds} seeds'})"

    def judged(self, digits: int = 3) -> str:
        """`2.61 [2.2, 3.1], t 1.7 to 4.0`: with the interval that decides, where there is one."""
        if self.t_interval is None:
            return self.told(digits)
        low, high = (f"{bound:.{digits}g}" for bound in self.t_interval)
        return f"{self.told(digits)}, t {low} to {high}"


def ratio(quotients: Sequence[float] | np.ndarray) -> Estimate:
    """The geometric mean of a quotient over seeds; NaN if a seed has none.

    Args:
        quotients: `(n,)`, of each seed's two runs.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.log(np.asarray(quotients, dtype=float))
        bootstrapped, by_t = (_exp(interval(logarithms)) for interval in (bootstrap_interval, t_interval))
        return Estimate(float(np.exp(logarithms.mean())), bootstrapped, len(logarithms), by_t)


def _exp(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (float(np.exp(interval[0])), float(np.exp(interval[1])))


def difference(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean over seeds of a difference.

    Args:
        values: `(n,)`, of each seed's two runs.
    """
    found = np.asarray(values, dtype=float)
    return Estimate(float(found.mean()), bootstrap_interval(found), len(found), t_interval(found))


def median(values: Sequence[float] | np.ndarray) -> Estimate:
    """The median over seeds.

    Args:
        values: `(n,)`, one for each seed.
    """
    found = np.asarray(values, dtype=float)
    return Estimate(float(np.median(found)), bootstrap_interval(found, np.median), len(found))


class Written(NamedTuple):
    """What a comparison has left.

    Attributes:
        sentences: What was found.
        tables: By the name of their CSV file, without suffix.
        figures: The pictures' files.
    """

    sentences: list[str]
    tables: dict[str, pd.DataFrame]
    figures: list[Path]


def save(
    output: Path, name: str, figure: Figure, tables: dict[str, pd.DataFrame], arrays: dict[str, np.ndarray]
) -> Path:
    """Write a figure, and beside it its tables as CSV and its arrays as npz.

    Args:
        output: Made if it does not exist.
        name: Of the figure and the arrays, without suffix.
        figure: What is drawn.
        tables: By their name, without suffix.
        arrays: By their name.

    Returns:
        The figure's file.

    Raises:
        OSError: The folder cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_figure(figure, output / f"{name}.png", dpi=120)
    for table, frame in tables.items():
        with replacing(output / f"{table}.csv") as file:
            frame.to_csv(file, index=False, lineterminator="\n")
    with replacing(output / f"{name}.npz", "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return output / f"{name}.png"
