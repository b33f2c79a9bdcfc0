"""What the published report claims in words of BatchNorm, each with the number that decides it."""

from collections.abc import Mapping, Sequence

from cifar_lab.analysis import landscape_claims
from cifar_lab.analysis.curves import epochs_to
from cifar_lab.analysis.evidence import (
    NOT_SUPPORTED,
    UNTESTED,
    Claim,
    of_curves,
    rows_of,
    told_of,
    verdict,
)
from cifar_lab.analysis.landscape_claims import Landscape
from cifar_lab.analysis.landscape_training import USELESS
from cifar_lab.analysis.measured import Measured
from cifar_lab.analysis.reproduction import Reproduction

_RATES = ("1e-4", "5e-4", "1e-3", "2e-3")


def claims(reproduction: Reproduction, landscape: Landscape | None = None) -> list[Claim]:
    """Those of the VGG-A rows, and those that the study of the loss landscape decides.

    Args:
        reproduction: What was measured.
        landscape: What was found of the loss landscape in it, where that is known already.
    """
    found = landscape_claims.landscape(reproduction.measured) if landscape is None else landscape
    return [
        *_half_right(reproduction),
        _larger_rates(reproduction),
        *landscape_claims.claims(found),
    ]


def _half_right(found: Reproduction) -> list[Claim]:
    rows = rows_of(found, {"with": "vgg_a_bn,optimizer.lr=1e-3", "without": "vgg_a,optimizer.lr=1e-3"})
    reached, protocol = of_curves(rows, lambda metrics: epochs_to(metrics, 0.5))
    told = told_of(reached, protocol, unit="epochs")
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


def _larger_rates(found: Reproduction) -> Claim:
    names = ("vgg_a_bn", "vgg_a")
    rows = {name: {rate: found.entry(f"{name},optimizer.lr={rate}").runs for rate in _RATES} for name in names}
    words = "BatchNorm allows larger learning rates without divergence"
    decides = "with it all rates from 1e-4 to 2e-3 train, without it one diverges or ends below 15 %"
    if not all(runs for of_rates in rows.values() for runs in of_rates.values()):
        return Claim(words, decides, "not all rates have been run", UNTESTED)
    with_bn, without = (_ended(rows[name]) for name in names)
    stable = with_bn["finished"] and not with_bn["below 15 %"] and not with_bn["diverged"]
    told = (f"{label}: {_counted(runs)}" for label, runs in (("with", with_bn), ("without", without)))
    return Claim(
        words, decides, "; ".join(told), verdict(bool(stable and (without["diverged"] or without["below 15 %"])))
    )


def _ended(of_rates: Mapping[str, Sequence[Measured]]) -> dict[str, int]:
    runs = [run for runs in of_rates.values() for run in runs]
    finished = [run for run in runs if run.is_finished]
    return {
        "finished": len(finished),
        "below 15 %": sum(run.record.result["test/acc_final"] < USELESS for run in finished),
        "diverged": sum(run.record.state == "diverged" for run in runs),
    }


def _counted(ended: Mapping[str, int]) -> str:
    return f"{ended['finished']} finished, {ended['below 15 %']} of them below 15 %, {ended['diverged']} diverged"
