"""What the published report claims in words of BatchNorm, each with the number that decides it."""

from collections.abc import Sequence

import numpy as np

from cifar_lab.analysis import landscape_claims
from cifar_lab.analysis.curves import epochs_to
from cifar_lab.analysis.evidence import (
    NOT_MEASURED,
    NOT_SUPPORTED,
    UNTESTED,
    Claim,
    of_curves,
    rows_of,
    told_of,
    verdict,
)
from cifar_lab.analysis.landscape_claims import Landscape
from cifar_lab.analysis.landscape_runs import INITS, Group, optimizer_of
from cifar_lab.analysis.landscape_training import trains
from cifar_lab.analysis.reproduction import Reproduction
from cifar_lab.analysis.significance import SEEDS_FOR_INTERVALS

_RATES = ("1e-4", "5e-4", "1e-3", "2e-3")
_ROWS = {True: "vgg_a_bn", False: "vgg_a"}


def claims(reproduction: Reproduction, landscape: Landscape | None = None) -> list[Claim]:
    """Those of the VGG-A rows, and those that the study of the loss landscape decides.

    Args:
        reproduction: What was measured.
        landscape: What was found of the loss landscape in it, where that is known already.
    """
    found = landscape_claims.landscape(reproduction.measured) if landscape is None else landscape
    return [
        *_half_right(reproduction, found.band_group),
        _larger_rates(reproduction, [group for group in (found.band_group, found.probed_group) if group is not None]),
        *landscape_claims.claims(found),
    ]


def _half_right(found: Reproduction, shorter: Group | None) -> list[Claim]:
    """From full-length runs, else from the study's: at a constant rate a shorter run is a longer one's beginning."""
    rows = rows_of(found, {"with": "vgg_a_bn,optimizer.lr=1e-3", "without": "vgg_a,optimizer.lr=1e-3"})
    reached, protocol = of_curves(rows, lambda metrics: epochs_to(metrics, 0.5))
    told = told_of(reached, protocol, unit="epochs")
    if shorter is not None and not any(len(values) for values in reached.values()):
        metrics = {
            name: [run.measured.metrics for run in shorter.arm(bn, "xavier", 1e-3)]
            for name, bn in (("with", True), ("without", False))
        }
        reached = {
            name: np.array([epochs_to(one, 0.5) for one in of_network if one is not None])
            for name, of_network in metrics.items()
        }
        if any(len(values) for values in reached.values()):
            told = f"{told_of(reached, 'holdout', unit='epochs')}, of runs of {shorter.length[1]:g} epochs"
        # Who has not come so far in a shorter run may still do so in time.
        reached = {name: values for name, values in reached.items() if not np.isnan(values).any()}
    # The latest of the runs; NaN if one has never come so far.
    latest = {name: float(values.max()) for name, values in reached.items() if len(values)}
    decides = "the first epoch with 50 %, at learning rate 1e-3, in every run"
    return [
        Claim(
            "With BatchNorm 50 % validation accuracy by epoch 10",
            decides,
            told,
            UNTESTED if "with" not in latest else verdict(latest["with"] <= 10),
        ),
        Claim(
            "Without BatchNorm 50 % only by epoch 25",
            f"{decides}; the published runs have 20 epochs, so none can show it, but earlier is against it",
            told,
            NOT_SUPPORTED if latest.get("without", 25) <= 20 else UNTESTED,
        ),
    ]


def _larger_rates(found: Reproduction, studied: Sequence[Group]) -> Claim:
    """Of the report's rows at its rates, and of the studies at theirs; each setting is an initialisation and a rate."""
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
            {bn: tuple(run.measured for run in group.arm(bn, init, lr)) for bn in (True, False)},
        )
        for group in studied
        for init, lr in dict.fromkeys((run.init, run.lr) for run in group.runs)
    ]
    told, gains, losses, known = [], 0, 0, 0
    for name, runs in settings:
        ended = {bn: [trains(run) for run in of_network if run.has_ended] for bn, of_network in runs.items()}
        if not all(ended.values()):
            continue
        counts = [f"{sum(ended[bn])} of {len(ended[bn])}" for bn in (True, False)]
        told.append(f"{name}: {counts[0]} train with it, {counts[1]} without")
        if min(map(len, ended.values())) >= SEEDS_FOR_INTERVALS:
            known += 1
            gains += all(ended[True]) and not any(ended[False])
            losses += all(ended[False]) and not any(ended[True])
    if not known:
        return Claim(words, decides, "; ".join(told) or NOT_MEASURED, UNTESTED)
    return Claim(words, decides, "; ".join(told), verdict(bool(gains and not losses)))
