"""What decides a claim: numbers of the runs, and verdicts on them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cifar_lab.analysis.measured import Measured
from cifar_lab.analysis.reproduction import PROTOCOLS, Entry, Reproduction
from cifar_lab.analysis.significance import SEEDS_FOR_TESTS, Difference, differences

SUPPORTED, NOT_SUPPORTED, UNTESTED = "supported", "not supported", "untested"
NOT_MEASURED = "not measured: no run records it yet"
ALIKE = 0.005  # rows whose means surely differ by less are alike


@dataclass(frozen=True)
class Claim:
    """A claim and what became of it.

    Attributes:
        words: The report's.
        decides: Which number decides, and how.
        numbers: What was measured.
        verdict: supported, not supported or untested.
    """

    words: str
    decides: str
    numbers: str
    verdict: str


def rows_of(found: Reproduction, experiments: Mapping[str, str]) -> dict[str, Entry]:
    """The full-length rows of some experiments, by the names that a claim gives them."""
    return {name: found.entry(experiment) for name, experiment in experiments.items()}


def _protocol(rows: Mapping[str, Entry]) -> str:
    """The protocol under which the row with the fewest runs has the most, then the most runs; else the sound one."""

    def runs(protocol: str) -> tuple[int, int]:
        numbers = [len(entry.finished(protocol)) for entry in rows.values()]
        return min(numbers), sum(numbers)

    return max(reversed(PROTOCOLS), key=runs)


def accuracies_of(rows: Mapping[str, Entry]) -> tuple[dict[str, np.ndarray], str]:
    """Test accuracies of each row's runs, `(n,)`, and the protocol of all of them."""
    protocol = _protocol(rows)
    return {name: entry.values("test/acc", protocol) for name, entry in rows.items()}, protocol


def of_curves(rows: Mapping[str, Entry], measure: Callable[[pd.DataFrame], float]) -> tuple[dict[str, np.ndarray], str]:
    """A number of each run's curves, `(n,)` by row, and the protocol of all of them."""
    return of_runs(rows, lambda run: None if run.metrics is None else measure(run.metrics))


def of_runs(
    rows: Mapping[str, Entry], measure: Callable[[Measured], float | None]
) -> tuple[dict[str, np.ndarray], str]:
    """A number of each run that has one, `(n,)` by row, and the protocol of all of them."""
    protocol = _protocol(rows)
    numbers = {name: [measure(run) for run in entry.finished(protocol)] for name, entry in rows.items()}
    known = {name: [value for value in values if value is not None] for name, values in numbers.items()}
    return {name: np.array(values, dtype=float) for name, values in known.items()}, protocol


def of_study(runs: Sequence[Measured], study: str, option: str, epochs: int = 50) -> dict[int, float]:
    """Test accuracies by seed of a study's runs with an option of the group of its name, all else as the study has it.

    Those on CIFAR-10 alone, on all of its training images, under the sound protocol.
    """
    allowed = {"study", study, "epochs", "data", "protocol", "logger", "trainer", "callbacks", "probe"}
    found = {}
    for run in runs:
        record = run.record
        typed = {line.lstrip("+~").partition("=")[0] for line in record.overrides}
        if (
            run.is_finished
            and record.seed is not None
            and (record.options.get("study"), record.options.get(study)) == (study, option)
            and record.options.get("data") == "cifar10"
            and not typed & (record.settings.keys() | record.options.keys()) - allowed
            and run.protocol == "holdout"
            and record.result["epochs"] == epochs
        ):
            found[record.seed] = record.result["test/acc"]
    return found


def pairs_of(rows: Mapping[str, np.ndarray]) -> dict[tuple[str, str], Difference]:
    """The tested differences by the names of both rows; a row of which a run has no number is not tested."""
    whole = {name: values for name, values in rows.items() if not np.isnan(values).any()}
    return {(pair.first, pair.second): pair for pair in differences(whole)}


def turned(pair: Difference | None) -> Difference | None:
    """The same difference, the other way round."""
    if pair is None:
        return None
    low, high = pair.interval
    return Difference(pair.second, pair.first, -pair.mean, (-high, -low), pair.p, pair.adjusted)


def ranks(rows: Mapping[str, np.ndarray]) -> dict[str, int] | None:
    """Each row's place by its mean, from 0 for the lowest; None where a row has too few runs."""
    if any(len(values) < SEEDS_FOR_TESTS or np.isnan(values).any() for values in rows.values()):
        return None
    return {name: place for place, name in enumerate(sorted(rows, key=lambda name: float(rows[name].mean())))}


def alike(pairs: Sequence[Difference | None]) -> str:
    """Supported where all surely differ by less than what counts, not supported where one surely differs."""
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs):
        return UNTESTED
    if all(pair.interval[0] >= -ALIKE and pair.interval[1] <= ALIKE for pair in known):
        return SUPPORTED
    return NOT_SUPPORTED if any(pair.is_significant for pair in known) else UNTESTED


def all_hold(pairs: Sequence[Difference | None], holds: Callable[[Difference], bool]) -> str:
    """Whether something holds of all differences; untested where one of them was not tested."""
    known = [pair for pair in pairs if pair is not None]
    return verdict(all(map(holds, known))) if len(known) == len(pairs) else UNTESTED


def verdict(holds: bool) -> str:
    """The verdict on a claim that was tested."""
    return SUPPORTED if holds else NOT_SUPPORTED


def told_pairs(pairs: Sequence[Difference | None], unit: str = "points", digits: int = 2) -> str:
    """`; LeakyReLU − ELU +2.46 points (+2.25 to +2.67, p 4e-07)` for each tested one; nothing without any.

    Args:
        pairs: Differences, with Holm's p; None for one that was not tested.
        unit: What they are told in; `points` are hundredths.
        digits: Behind the point.
    """
    scale = 100 if unit == "points" else 1
    told = ""
    for pair in pairs:
        if pair is not None:
            mean, low, high = (f"{scale * value:+.{digits}f}" for value in (pair.mean, *pair.interval))
            words = f"{mean} {unit}".rstrip()
            told += f"; {pair.first} − {pair.second} {words} ({low} to {high}, p {pair.adjusted:.2g})"
    return told


def told_of(
    rows: Mapping[str, np.ndarray], protocol: str, *, unit: str = "%", change: bool = False, digits: int = 2
) -> str:
    """`ReLU 89.31 ± 0.20 % (5), ELU 87.45 % (1), protocol=report`; a row that no run has shown is left out.

    Args:
        rows: Numbers of each run, `(n,)`, by the row's name; fractions where the unit is `%`. NaN: not reached.
        protocol: Of all of them.
        unit: What the numbers are told in; epochs are told whole.
        change: Whether they are differences, told with their sign.
        digits: Behind the point.
    """
    parts, scale, sign = [], 100 if unit == "%" else 1, "+" if change else ""
    behind = f" {unit}".rstrip()
    for name, values in rows.items():
        reached = values[~np.isnan(values)]
        places = digits if unit != "epochs" else 0 if len(reached) == 1 else 1
        spread = f" ± {scale * reached.std(ddof=1):.{places}f}" if len(reached) > 1 else ""
        never = f", never in {len(values) - len(reached)}" if len(reached) < len(values) else ""
        if len(reached):
            parts.append(f"{name} {scale * reached.mean():{sign}.{places}f}{spread}{behind} ({len(reached)}{never})")
        elif len(values):
            parts.append(f"{name} never ({len(values)})")
    return f"{', '.join(parts)}, protocol={protocol}" if parts else "no run of full length"
