"""The report's claims on BatchNorm and training, each with the number that decides it."""

from collections.abc import Callable, Sequence

import numpy as np

from cifar_lab.landscape.batch_norm.runs import INITS, NAMES, Group, optimizer_of
from cifar_lab.landscape.batch_norm.training import trains
from cifar_lab.report.claims import landscape as landscape_claims
from cifar_lab.report.claims.evidence import NOT_MEASURED, UNKNOWN, Claim, Condition, distance, trains_study
from cifar_lab.report.claims.landscape import Landscape
from cifar_lab.report.claims.numbers import Quantity, numbers_of, of_curve, rows_of
from cifar_lab.report.reproduction import Reproduction
from cifar_lab.runs import Record
from cifar_lab.statistics.significance import SEEDS_FOR_INTERVALS, SEEDS_FOR_TESTS, of_seeds, stratified_exact
from cifar_lab.table.curves import epochs_to

_RATES = ("1e-4", "5e-4", "1e-3", "2e-3")
_ROWS = {True: "vgg_a_bn", False: "vgg_a"}
_HALF = Quantity("epochs to 50 %", of_curve(lambda metrics: epochs_to(metrics, 0.5)), unit="epochs", digits=1)


def claims(reproduction: Reproduction, landscape: Landscape | None = None) -> list[Claim]:
    """Return the claims on the VGG-A rows and the loss landscape, without verdicts.

    `landscape` is computed from the runs if it is None.
    """
    measured = landscape_claims.landscape(reproduction.measured) if landscape is None else landscape
    return [
        *_half_right(reproduction, measured.band_group),
        _larger_rates(
            reproduction, [group for group in (measured.band_group, measured.probed_group) if group is not None]
        ),
        *landscape_claims.claims(measured),
    ]


def _half_right(reproduction: Reproduction, shorter: Group | None) -> list[Claim]:
    decides = "mean over seeds of the first epoch with 50 %, at learning rate 1e-3, by Student's t"
    (with_bn, by), (without, by_without) = (_half_by(reproduction, shorter, bn) for bn in (True, False))
    return [
        Claim(
            "With BatchNorm 50 % validation accuracy by epoch 10",
            f"{decides}: at most 10",
            with_bn,
            [by(10, True)],
            trains_study("bn_landscape", "bn=true", "optimizer.lr=1e-3"),
        ),
        Claim(
            "Without BatchNorm 50 % only by epoch 25",
            f"{decides}: above 24; the published runs have 20 epochs, so they can only contradict it",
            without,
            [by_without(24, False)],
            trains_study("bn_landscape", "bn=false", "optimizer.lr=1e-3"),
        ),
    ]


def _half_by(
    reproduction: Reproduction, shorter: Group | None, bn: bool
) -> tuple[str, Callable[[float, bool], Condition | None]]:
    """Describe when a network's runs reach 50 %, and return a function that tests this against an epoch.

    Uses full-length runs, or else the study's runs on all images: at a constant learning rate a shorter run equals the
    first epochs of a longer one. A run that has not reached 50 % counts as reaching it in the epoch after its last one
    if that is against the condition; otherwise the result is unknown.
    """
    name = NAMES[bn]
    row = f"{_ROWS[bn]},optimizer.lr=1e-3"
    epochs = float(reproduction.entry(row).row.settings["epochs"])
    reached = numbers_of(rows_of(reproduction, {name: row}), _HALF)
    words = reached.text()
    is_whole = shorter is None or bool(len(reached.values[name]) or reached.diverged)
    if shorter is not None and not is_whole and shorter.is_beginning:
        reached = numbers_of({name: [run.record for run in shorter.arm(bn, "xavier", 1e-3)]}, _HALF)
        epochs = shorter.length[1]
        words = f"{reached.text()}, from runs of {epochs:g} epochs" if len(reached.values[name]) else words
    values = reached.values[name]

    def condition(epoch: float, is_latest: bool) -> Condition | None:
        if not len(values):
            return UNKNOWN if reached.diverged else None
        if reached.diverged or (np.isnan(values).any() and not (is_latest and epochs >= epoch)):
            return UNKNOWN
        mean = of_seeds(np.where(np.isnan(values), epochs + 1, values))
        gap = epoch + 0.5 - mean.mean  # epochs are whole numbers
        return distance(mean, gap if is_latest else -gap, SEEDS_FOR_INTERVALS)

    return words, condition


def _larger_rates(reproduction: Reproduction, studied: Sequence[Group]) -> Claim:
    """Return the claim for the report's rows and rates, and for the studies' initialisations and rates.

    A seed with runs under both protocols counts once.
    """
    words = "BatchNorm allows larger learning rates without divergence"
    decides = (
        "share of seeds that train, neither diverging nor ending below 15 %: larger with BatchNorm, by the exact "
        f"Mantel-Haenszel test over settings with {SEEDS_FOR_TESTS} seeds or more"
    )
    settings = [
        (f"Adam {rate}", {bn: reproduction.entry(f"{name},optimizer.lr={rate}").runs for bn, name in _ROWS.items()})
        for rate in _RATES
    ]
    settings += [
        (
            f"{INITS.get(init, init)}, {optimizer_of(group)} {lr:g}",
            {bn: tuple(run.record for run in group.arm(bn, init, lr)) for bn in (True, False)},
        )
        for group in studied
        for init, lr in dict.fromkeys((run.init, run.lr) for run in group.runs)
    ]
    sentences, tables = [], []
    for name, runs in settings:
        seeds = [_train_by_seed(runs[bn]) for bn in (True, False)]
        if all(seeds):
            counts = [(sum(trained.values()), len(trained)) for trained in seeds]
            one, other = (f"{good} of {number}" for good, number in counts)
            sentences.append(f"{name}: {one} seeds train with it, {other} without")
            tables.append([(good, number - good) for good, number in counts])
    command = "; ".join(trains_study(study) for study in ("bn_landscape", "bn_smoothness"))
    return Claim(words, decides, "; ".join(sentences) or NOT_MEASURED, [_more_train(np.array(tables))], command)


def _train_by_seed(runs: Sequence[Record]) -> dict[int | None, bool]:
    """Return, by seed, whether all its ended runs train."""
    ended = [run for run in runs if run.has_ended]
    return {run.seed: all(trains(other) for other in ended if other.seed == run.seed) for run in ended}


def _more_train(tables: np.ndarray) -> Condition | None:
    """Make the condition that more seeds train with BatchNorm.

    `tables` `(S, 2, 2)` holds, for each setting and network (with BatchNorm first), the numbers that do and do not.
    """
    if not len(tables):
        return None
    enough = tables[(tables.sum(axis=2) >= SEEDS_FOR_TESTS).all(axis=1)]
    if not len(enough):
        return Condition(np.nan, None, lambda level: SEEDS_FOR_TESTS)
    expected = enough[:, 0].sum(axis=1) * enough[:, :, 0].sum(axis=1) / enough.sum(axis=(1, 2))
    return Condition(float((enough[:, 0, 0] - expected).sum()), stratified_exact(enough))
