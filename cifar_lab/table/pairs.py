"""Paired tests of the best composition of a table against each other one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Record
from cifar_lab.statistics.accuracies import Interval
from cifar_lab.statistics.paired import Tested, holm, paired_t
from cifar_lab.statistics.power import seeds_needed
from cifar_lab.table.comparison import Row, by_name

_TEST_IMAGES = ("data._target_", "data.num_test", "data.data_seed")
_MOST_WRITTEN = 10

HALF_A_POINT = 0.005


@dataclass(frozen=True)
class Pair:
    """The tested difference of two test accuracies."""

    first: str  # name of a composition or run
    second: str  # name of the one that is subtracted
    accuracies: tuple[float, float]  # of both, from 0 to 1, over their common seeds or images
    paired_by: str  # `seed`: paired t-test; `image`: McNemar's test
    number: int  # number of seeds or images
    difference: float  # `first` minus `second`
    interval: Interval  # 95 % confidence interval, not corrected for several pairs
    p: float  # two-sided
    adjusted: float  # `p` with Holm's correction over the pairs
    seeds_needed: int | None = None  # to detect half a point with power 0.8, at the deviation of these seeds
    discordant: tuple[int, int] | None = None  # images that only `first`, and only `second`, classifies correctly

    def words(self) -> str:
        """Return one line, in percentage points."""
        low, high = self.interval
        verdict = "significant" if self.adjusted < 0.05 else "not significant"
        line = (
            f"- {self.first} ({self.accuracies[0]:.2%}) minus {self.second} ({self.accuracies[1]:.2%}): "
            f"{100 * self.difference:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}, p {self.p:.2g}"
            f"{f', by Holm {self.adjusted:.2g}' if self.adjusted != self.p else ''}: {verdict}"
        )
        if self.discordant is not None:
            only_first, only_second = self.discordant
            return (
                f"{line}; {self.number:,} images, correct by the first only {only_first:,}, second only {only_second:,}"
            )
        return f"{line}; {self.number} seeds, {self.seeds_needed:,} needed to detect half a point"


def check_comparable(records: Sequence[Record]) -> None:
    """Raise `UsageError` if finished runs have different test sets or protocols: accuracies are not comparable."""
    for name, of in (("protocols", lambda record: f"protocol={record.protocol}"), ("test sets", _test_set)):
        different = sorted({of(record) for record in records})
        if len(different) > 1:
            raise UsageError(f"runs of different {name} cannot be compared: {'; '.join(different)}")


def _test_set(record: Record) -> str:
    own = [f"{key}={record.settings[key]}" for key in _TEST_IMAGES if key in record.settings]
    return ", ".join([f"data={record.result['options']['data']}", f"{record.result['test_size']:,} images", *own])


def by_seed(rows: Mapping[str, Row], metric: str = "test/acc") -> list[Pair]:
    """Test the row with the highest mean test accuracy against each other row, over their common finished seeds.

    Args:
        rows: At least one row, by name; each has a finished run with the metric.
        metric: Key of the accuracy in a result.

    Returns:
        Pairs by descending mean accuracy; rows that share fewer than two seeds with the best one are left out.
    """
    best, *others = sorted(rows, key=lambda name: -rows[name].values(metric).mean())
    seeds = {
        name: {record.seed: record.result[metric] for record in row.finished if metric in record.result}
        for name, row in rows.items()
    }
    tested_pairs = []
    for other in others:
        common = sorted(seed for seed in seeds[best].keys() & seeds[other].keys() if seed is not None)
        if len(common) < 2:
            continue
        first, second = (np.array([seeds[name][seed] for seed in common]) for name in (best, other))
        needed = seeds_needed(float((first - second).std(ddof=1)), HALF_A_POINT, paired=True)
        means = float(first.mean()), float(second.mean())
        tested_pairs.append((best, other, means, len(common), paired_t(first, second), {"seeds_needed": needed}))
    return corrected("seed", tested_pairs)


def corrected(
    paired_by: str, tested_pairs: Sequence[tuple[str, str, tuple[float, float], int, Tested, Mapping[str, Any]]]
) -> list[Pair]:
    """Apply Holm's correction to tested pairs, each given as names, accuracies, number, test and further attributes."""
    adjusted = holm([tested.p for *_, tested, _ in tested_pairs]).tolist()
    return [
        Pair(first, second, accuracies, paired_by, number, *tested, p, **more)
        for (first, second, accuracies, number, tested, more), p in zip(tested_pairs, adjusted, strict=True)
    ]


def described(rows: Sequence[Row], metric: str = "test/acc") -> list[str]:
    """Return lines on the best row against each other row; none if fewer than two rows have a result."""
    finished = [row for row in rows if len(row.values(metric))]
    if len(finished) < 2:
        return []
    try:
        check_comparable([record for row in finished for record in row.finished])
    except UsageError as error:
        return [f"- not tested: {error}"]
    pairs = by_seed(by_name(finished), metric)
    lines = [pair.words() for pair in pairs[:_MOST_WRITTEN]]
    if len(pairs) > len(lines):
        lines.append(
            f"- {len(pairs) - len(lines):,} more pairs, corrected together with these: `cifar-lab compare FOLDER`"
        )
    if untested := len(finished) - 1 - len(pairs):
        lines.append(f"- pairs not tested: {untested:,} with fewer than 2 common seeds; 2 are needed, 5 are better")
    return lines
