"""The report's claims on BatchNorm and the loss landscape, each with the numbers that decide it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from cifar_lab.landscape.batch_norm import bands, smoothness
from cifar_lab.landscape.batch_norm.bands import BandComparison
from cifar_lab.landscape.batch_norm.numbers import Estimate
from cifar_lab.landscape.batch_norm.runs import INITS, Group, groups
from cifar_lab.landscape.batch_norm.smoothness import SmoothnessComparison
from cifar_lab.landscape.batch_norm.training import cosine_gain
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.report.claims.evidence import NOT_MEASURED, UNTESTED, Claim, trains_study, verdict
from cifar_lab.runs import Record

T = TypeVar("T")

_PROBED = trains_study("bn_smoothness")
# One learning rate is enough.
_SHIFTED = (
    f"{trains_study('bn_landscape')}; python -m cifar_lab.landscape covariate-shift "
    "outputs/study-bn_landscape/*lr=0.001,*"
)

_OF_VGG_A = {
    "model._target_": "cifar_lab.models.VGG",
    "model.stages": [[64], [128], [256, 256], [512, 512], [512, 512]],
    "data._target_": "cifar_lab.data.datamodule.CIFAR10DataModule",
}
_EVERY = (
    "95 % interval by Student's t over three seeds or more (of ratios, on their logarithms), for each initialisation "
    "that was run"
)


@dataclass(frozen=True)
class Landscape:
    """The runs that decide: VGG-A on CIFAR-10 with and without BatchNorm, the longest.

    Attributes:
        bands: A comparison for each initialisation, over several learning rates.
        band_group: The runs of the bands.
        smoothness: Of probes.
        probed_group: The runs with these probes.
    """

    bands: tuple[BandComparison, ...] = ()
    band_group: Group | None = None
    smoothness: SmoothnessComparison | None = None
    probed_group: Group | None = None

    @cached_property
    def runs(self) -> list[Record]:
        """Those that have ended, each once."""
        runs = [run.record for group in (self.band_group, self.probed_group) if group is not None for run in group.runs]
        return [run for run in {run.identity: run for run in runs}.values() if run.has_ended]


def landscape(measured: Sequence[Record]) -> Landscape:
    """Find the runs that decide, by their settings: on the most training images, of the most epochs, the most runs."""
    candidates = [run for run in measured if all(run.settings.get(key) == value for key, value in _OF_VGG_A.items())]
    found = sorted(groups(candidates), key=lambda group: (*group.length, len(group.runs)), reverse=True)
    bands, band_group = _first(found, _bands)
    smoothness, probed_group = _first(found, _smoothness)
    return Landscape(bands or (), band_group, smoothness, probed_group)


def claims(found: Landscape) -> list[Claim]:
    """Those that losses, probes and covariate shifts of the study decide."""
    return [
        _smoother(found),
        _lipschitz(found.smoothness),
        _predictive(found.smoothness),
        _covariate_shift(found.band_group, found.probed_group),
    ]


def _smoother(found: Landscape) -> Claim:
    ratios = _ratios(found.smoothness, "loss_range")
    told = [f"loss variation {_told(ratios)}"] if ratios else []
    for band in found.bands:
        told.append(f"band of the training loss over steps 1 to {band.steps:,}: ratio {band.band_ratio().judged()}, in "
                    f"ln(max/min) {band.band_ratio(in_log=True).judged()}")  # fmt: skip
    return Claim(
        "BatchNorm makes the loss landscape smoother, of lower variance",
        f"range of the loss along the gradient, without BatchNorm over with it: above 1, {_EVERY}; beside it the band "
        "of the training loss over learning rates",
        "; ".join(told) or NOT_MEASURED,
        _all_above(list(ratios.values()), 1),
        _PROBED,
    )


def _lipschitz(found: SmoothnessComparison | None) -> Claim:
    ratios = _ratios(found, "hessian_norm")
    told = NOT_MEASURED
    if found is not None:
        means = {init: [100 * found.mean(bn, init, "share_at_ceiling") for bn in (True, False)] for init in found.inits}
        shares = [f"{INITS.get(init, init)} {one:.0f} and {other:.0f}" for init, (one, other) in means.items()]
        told = (
            f"||Hg||/||g|| {_told(ratios)}; largest beta {_told(_ratios(found, 'beta'))}, at the ceiling 1/eta_min of "
            f"its grid with BatchNorm and without in {'; '.join(shares)} % of the probes"
        )
        for name in found.relative_quantities:
            distance = name.removeprefix("change_at_")
            told += f"; relative change of the gradient {distance} ||w|| away {_told(_ratios(found, name))}"
    return Claim(
        "BatchNorm reduces the Lipschitz constant",
        f"||Hg||/||g||, the limit of the gradient's change over the distance moved, without BatchNorm over with it: "
        f"above 1, {_EVERY}",
        told,
        _all_above(list(ratios.values()), 1),
        _PROBED,
    )


def _predictive(found: SmoothnessComparison | None) -> Claim:
    ratios = _ratios(found, "gradient_range")
    gains = {} if found is None else {init: found.cosine_gain(init) for init in found.inits}
    verdicts = {_all_above(list(ratios.values()), 1), _all_above(list(gains.values()), 0)}
    told = NOT_MEASURED
    if found is not None:
        cosines = "; ".join(
            f"{INITS.get(init, init)} {found.mean(True, init, 'cosine'):.3g} against "
            f"{found.mean(False, init, 'cosine'):.3g}, gain {gain.judged()}"
            for init, gain in gains.items()
        )
        told = f"gradient range {_told(ratios)}; cos(g, g') at eta = lr with BatchNorm against without: {cosines}"
    return Claim(
        "BatchNorm improves gradient predictiveness",
        "range of ||g − g'|| along the gradient, without BatchNorm over with it: above 1; and cos(g, g') after a step "
        f"of the learning rate, which knows no lengths: larger with it; {_EVERY}",
        told,
        UNTESTED if UNTESTED in verdicts else verdict(len(verdicts) == 1 and verdict(True) in verdicts),
        _PROBED,
    )


def _covariate_shift(*of_groups: Group | None) -> Claim:
    gains, told = [], []
    for group in {id(group): group for group in of_groups if group is not None}.values():
        for init in group.inits:
            if (found := cosine_gain(group, init)) is not None:
                gain, with_bn, without = found
                gains.append(gain)
                told.append(f"{INITS.get(init, init)} {with_bn:.3g} against {without:.3g}, gain {gain.judged()}")
    return Claim(
        "BatchNorm reduces internal covariate shift",
        "cos(G, G') of a layer's gradient before and after the layers below have taken their step (arXiv:1805.11604), "
        f"median over layers and epochs: larger with BatchNorm, {_EVERY}",
        "; ".join(told) or NOT_MEASURED,
        _all_above(gains, 0),
        _SHIFTED,
    )


def _ratios(found: SmoothnessComparison | None, quantity: str) -> dict[str, Estimate]:
    return {} if found is None else {init: found.ratio(init, quantity) for init in found.inits}


def _told(ratios: dict[str, Estimate]) -> str:
    return ", ".join(f"{INITS.get(init, init)} {estimate.judged()}" for init, estimate in ratios.items())


def _all_above(estimates: Sequence[Estimate], bound: float) -> str:
    """Whether every interval lies above a bound; untested without one of them."""
    intervals = [estimate.t_interval for estimate in estimates]
    if not intervals or None in intervals:
        return UNTESTED
    return verdict(all(interval[0] > bound for interval in intervals if interval is not None))


def _first(found: Sequence[Group], compared: Callable[[Group], T]) -> tuple[T | None, Group | None]:
    """The first group that can be compared."""
    for group in found:
        with suppress(ValueError):  # it lacks one of the networks
            return compared(group), group
    return None, None


def _bands(group: Group) -> tuple[BandComparison, ...]:
    """For every initialisation that has both networks at two rates; ValueError without one."""
    made = []
    for init in group.inits:
        with_bn, without = ({run.lr for run in group.runs if (run.bn, run.init) == (bn, init)} for bn in (True, False))
        if len(with_bn & without) > 1:
            made.append(bands.compare(group, init))
    if not made:
        raise UsageError("no initialisation has both networks at two learning rates")
    return tuple(made)


def _smoothness(group: Group) -> SmoothnessComparison:
    """At the learning rate of the most probed runs, the highest of equals; ValueError without both networks."""
    rates = [run.lr for run in smoothness.probed_runs(group)]
    return smoothness.compare(group, max(rates, key=lambda rate: (rates.count(rate), rate), default=0.0))
