"""The published report's claims on BatchNorm, each with the number that decides it."""

from collections.abc import Sequence

import numpy as np

from cifar_lab.landscape.batch_norm.runs import INITS, NAMES, Group, optimizer_of
from cifar_lab.landscape.batch_norm.training import trains
from cifar_lab.report.claims import landscape as landscape_claims
from cifar_lab.report.claims.evidence import NOT_MEASURED, NOT_SUPPORTED, UNTESTED, Claim, trains_study, verdict
from cifar_lab.report.claims.landscape import Landscape
from cifar_lab.report.claims.numbers import Quantity, numbers_of, of_curve, rows_of
from cifar_lab.report.reproduction import Reproduction
from cifar_lab.statistics.significance import SEEDS_FOR_INTERVALS
from cifar_lab.table.curves import epochs_to

_RATES = ("1e-4", "5e-4", "1e-3", "2e-3")
_ROWS = {True: "vgg_a_bn", False: "vgg_a"}
_HALF = Quantity("epochs to 50 %", of_curve(lambda metrics: epochs_to(metrics, 0.5)), unit="epochs", digits=1)


def claims(reproduction: Reproduction, landscape: Landscape | None = None) -> list[Claim]:
    """Those of the VGG-A rows, and those that the study of the loss landscape decides.

    `landscape` saves the time to find it in the runs again.
    """
    found = landscape_claims.landscape(reproduction.measured) if landscape is None else landscape
    return [
        *_half_right(reproduction, found.band_group),
        _larger_rates(reproduction, [group for group in (found.band_group, found.probed_group) if group is not None]),
        *landscape_claims.claims(found),
    ]


def _half_right(found: Reproduction, shorter: Group | None) -> list[Claim]:
    decides = "the first epoch with 50 %, at learning rate 1e-3, in every run"
    (with_bn, latest_with), (without, latest_without) = (_half_by(found, shorter, bn) for bn in (True, False))
    return [
        Claim(
            "With BatchNorm 50 % validation accuracy by epoch 10",
            decides,
            with_bn,
            UNTESTED if latest_with is None else verdict(latest_with <= 10),
            trains_study("bn_landscape", "bn=true", "optimizer.lr=1e-3"),
        ),
        Claim(
            "Without BatchNorm 50 % only by epoch 25",
            f"{decides}; the published runs have 20 epochs, so none can show it, but earlier is against it",
            without,
            NOT_SUPPORTED if latest_without is not None and latest_without <= 20 else UNTESTED,
            trains_study("bn_landscape", "bn=false", "optimizer.lr=1e-3"),
        ),
    ]


def _half_by(found: Reproduction, shorter: Group | None, bn: bool) -> tuple[str, float | None]:
    """When a network's runs reach 50 %, in words, and the last of them, infinite if one never does; None if not known.

    From full-length runs, else from the study's on all images: at a constant rate a shorter run is the beginning of a
    longer one.
    """
    name = NAMES[bn]
    reached = numbers_of(rows_of(found, {name: f"{_ROWS[bn]},optimizer.lr=1e-3"}), _HALF)
    told = reached.told()
    is_whole = shorter is None or bool(len(reached.values[name]) or reached.diverged)
    if shorter is not None and not is_whole and shorter.is_beginning:
        reached = numbers_of({name: [run.record for run in shorter.arm(bn, "xavier", 1e-3)]}, _HALF)
        told = f"{reached.told()}, of runs of {shorter.length[1]:g} epochs" if len(reached.values[name]) else told
    latest = float(reached.values[name].max(initial=0.0))
    # A longer run may reach what a shorter one has not; how far a diverged one came is not known.
    if not len(reached.values[name]) or reached.diverged or (np.isnan(latest) and not is_whole):
        return told, None
    return told, np.inf if np.isnan(latest) else latest


def _larger_rates(found: Reproduction, studied: Sequence[Group]) -> Claim:
    """For the report's rows at its rates, and the studies' initialisations and rates.

    A seed that was run under both protocols counts once.
    """
    words = "BatchNorm allows larger learning rates without divergence"
    decides = (
        "in a setting every run with it trains and every run without it diverges or ends below 15 %, over three seeds "
        "or more, and nowhere the other way round"
    )
    settings = [
        (f"Adam {rate}", {bn: found.entry(f"{name},optimizer.lr={rate}").runs for bn, name in _ROWS.items()})
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
    told, gains, losses, known = [], 0, 0, 0
    for name, runs in settings:
        ended = {bn: [run for run in of_network if run.has_ended] for bn, of_network in runs.items()}
        if not all(ended.values()):
            continue
        trained = {bn: [trains(run) for run in of_network] for bn, of_network in ended.items()}
        seeds = min(len({run.seed for run in of_network}) for of_network in ended.values())
        counts = [f"{sum(trained[bn])} of {len(trained[bn])}" for bn in (True, False)]
        of_seeds = f", of {seeds} seed{'s' * (seeds > 1)}" if seeds < min(map(len, trained.values())) else ""
        told.append(f"{name}: {counts[0]} train with it, {counts[1]} without{of_seeds}")
        if seeds >= SEEDS_FOR_INTERVALS:
            known += 1
            gains += all(trained[True]) and not any(trained[False])
            losses += all(trained[False]) and not any(trained[True])
    command = "; ".join(trains_study(study) for study in ("bn_landscape", "bn_smoothness"))
    decision = verdict(bool(gains and not losses)) if known else UNTESTED
    return Claim(words, decides, "; ".join(told) or NOT_MEASURED, decision, command)
