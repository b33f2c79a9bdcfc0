"""Numbers of the runs that a claim compares, from rows of the report and from studies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cifar_lab.report.claims.evidence import UNKNOWN, Condition
from cifar_lab.report.reproduction import PROTOCOLS, Reproduction
from cifar_lab.runs import Record
from cifar_lab.statistics.significance import SEEDS_FOR_TESTS, Effect, of_rows

NO_RUN = "no finished run of full length"
Runs = Mapping[str, Sequence[Record]]  # by row name in a claim


@dataclass(frozen=True)
class Quantity:
    """A number of a run, and its format."""

    name: str  # for readers
    # None if the run has not recorded it, NaN if the run has never reached it
    measure: Callable[[Record], float | None]
    unit: str = "%"  # in `%`, numbers are fractions and differences are points
    digits: int = 2  # decimals; epochs of a single run have none
    change: bool = False  # whether it is a difference, which is printed with its sign

    def text(self, values: np.ndarray) -> str:
        """Format numbers `(n,)`, n at least 1, as `89.31 ± 0.20 % (5)`; NaN counts as never reached."""
        reached = values[~np.isnan(values)]
        never = len(values) - len(reached)
        if not len(reached):
            return f"never ({never})"
        scale, places = 100 if self.unit == "%" else 1, self.digits
        if self.unit == "epochs" and len(reached) == 1:
            places = 0
        spread = f" ± {scale * reached.std(ddof=1):.{places}f}" if len(reached) > 1 else ""
        mean = f"{scale * reached.mean():{'+' if self.change else ''}.{places}f}{spread} {self.unit}".rstrip()
        return f"{mean} ({len(reached)}{f', never in {never}' if never else ''})"

    def difference_text(self, names: tuple[str, str], effect: Effect) -> str:
        """Format an effect with its 95 % interval: `; LeakyReLU − ELU +2.46 points (+2.25 to +2.67)`."""
        scale, unit = (100, "points") if self.unit == "%" else (1, self.unit)
        mean, low, high = (f"{scale * value:+.{self.digits}f}" for value in (effect.mean, *effect.interval))
        return f"; {' − '.join(names)} {f'{mean} {unit}'.rstrip()} ({low} to {high})"


def of_curve(measure: Callable[[pd.DataFrame], float]) -> Callable[[Record], float | None]:
    """Turn a function of a run's metrics into a measure of the run."""
    return lambda run: None if run.metrics is None else measure(run.metrics)


ACCURACY = Quantity("test accuracy", lambda run: run.result.get("test/acc"))


@dataclass(frozen=True)
class Numbers:
    """A number of each run that a claim compares.

    A row in which a run has diverged, or has never reached the quantity, is reported but not compared: keeping only the
    survivors would bias the mean.
    """

    quantity: Quantity
    values: Mapping[str, np.ndarray]  # from finished runs that have recorded it, `(n,)`, by row name
    protocol: str  # of all runs
    # such as `1 of 5 diverged`, by row name, over all protocols
    diverged: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def not_compared(self) -> dict[str, str]:
        """Reasons why rows are not compared, by row name."""
        never = {
            name: f"{np.isnan(values).sum()} of {len(values)} never reached it"
            for name, values in self.values.items()
            if np.isnan(values).any()
        }
        return {**never, **self.diverged}

    def difference(self, first: str, second: str) -> Effect | None:
        """Return the difference of two rows' means; None if one has no run or is not compared."""
        rows = [self.values[first], self.values[second]]
        return of_rows(*rows) if all(map(len, rows)) and not {first, second} & self.not_compared.keys() else None

    def condition(self, decide: Callable[..., Condition], first: str, second: str, **options: Any) -> Condition | None:
        """Apply `decide` (`above` or `alike`) to a difference; return None if a row has no run."""
        if (effect := self.difference(first, second)) is not None:
            return decide(effect, **options)
        is_known = all(len(self.values[name]) or name in self.not_compared for name in (first, second))
        return UNKNOWN if is_known else None

    def others(self, name: str) -> list[str]:
        """Return the other rows, sorted by mean."""
        means = {other: float(values.mean()) for other, values in self.values.items() if other != name and len(values)}
        return sorted(means, key=lambda other: means[other])

    def text(self, pairs: Sequence[tuple[str, str]] | None = None) -> str:
        """Format the rows as `ReLU 89.31 ± 0.20 % (5), ELU 87.45 % (1), protocol=report`, and list diverged rows.

        With `pairs`, append their differences if there are enough seeds for a test, and list all rows that are not
        compared.
        """
        parts = [f"{name} {self.quantity.text(values)}" for name, values in self.values.items() if len(values)]
        text = f"{', '.join(parts)}, protocol={self.protocol}" if parts else NO_RUN
        for pair in pairs or ():
            effect = self.difference(*pair)
            if effect is not None and effect.seeds >= SEEDS_FOR_TESTS:
                text += self.quantity.difference_text(pair, effect)
        why, words = (self.diverged, "") if pairs is None else (self.not_compared, "not compared: ")
        reasons = ", ".join(f"{name} ({reason})" for name, reason in why.items())
        return f"{text}{f'; {words}{reasons}' if reasons else ''}"


def typed(run: Record) -> set[str]:
    """Return the keys of a run's command line that choose an option or can change numbers."""
    return {line.lstrip("+~").partition("=")[0] for line in run.overrides} & (run.settings.keys() | run.options.keys())


def numbers_of(runs: Runs, quantity: Quantity, protocols: Sequence[str] = PROTOCOLS) -> Numbers:
    """Return a number of each run that has it, under the most informative protocol.

    This is the protocol with the most rows that have enough runs for tests; ties are broken by the runs of the smallest
    row, then by all runs, then in favour of the last of `protocols`.
    """

    def values(of_row: Sequence[Record], protocol: str) -> np.ndarray:
        values = [quantity.measure(run) for run in of_row if run.is_finished and run.protocol == protocol]
        return np.array([value for value in values if value is not None], dtype=float)

    def decides(protocol: str) -> tuple[int, int, int]:
        counts = [len(of_row) for of_row in by_protocol[protocol].values()]
        return sum(count >= SEEDS_FOR_TESTS for count in counts), min(counts), sum(counts)

    by_protocol = {
        protocol: {name: values(of_row, protocol) for name, of_row in runs.items()} for protocol in reversed(protocols)
    }
    protocol = max(by_protocol, key=decides)
    states = {name: [run.state for run in of_row if run.has_ended] for name, of_row in runs.items()}
    diverged = {
        name: f"{ended.count('diverged')} of {len(ended)} diverged"
        for name, ended in states.items()
        if "diverged" in ended
    }
    return Numbers(quantity, by_protocol[protocol], protocol, diverged)


def rows_of(reproduction: Reproduction, experiments: Mapping[str, str]) -> dict[str, Sequence[Record]]:
    """Return the full-length runs of the experiments, by row name in a claim."""
    return {name: reproduction.entry(experiment).runs for name, experiment in experiments.items()}


def of_study(runs: Sequence[Record], study: str, option: str, epochs: int = 50) -> dict[int, Record]:
    """Return the ended runs, by seed, of a study with one option of the group of its name and nothing else changed.

    Only runs on all training images of CIFAR-10 under `protocol=holdout`.
    """
    allowed = {"study", study, "epochs", "data", "protocol", "logger", "tags", "trainer", "callbacks", "probe"}
    by_seed: dict[int, Record] = {}
    for run in runs:
        if (
            run.has_ended
            and run.seed is not None
            and (run.options.get("study"), run.options.get(study)) == (study, option)
            and run.options.get("data") == "cifar10"
            and not typed(run) - allowed
            and run.protocol == "holdout"
            and run.settings.get("epochs") == epochs == run.result.get("epochs", epochs)
            and (run.is_finished or run.seed not in by_seed)
        ):
            by_seed[run.seed] = run
    return by_seed


def study_of(reproduction: Reproduction, study: str, options: Mapping[str, str]) -> dict[str, Sequence[Record]]:
    """Return the runs of some options of a study, by row name in a claim."""
    return {name: list(of_study(reproduction.measured, study, option).values()) for name, option in options.items()}
