"""The report's claims on BatchNorm and the loss landscape, each with the numbers that decide it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from cifar_lab.landscape.batch_norm import bands, smoothness
from cifar_lab.landscape.batch_norm.bands import BandComparison
from cifar_lab.landscape.batch_norm.numbers import Estimate
from cifar_lab.landscape.batch_norm.runs import INITS, NAMES, Group, groups
from cifar_lab.landscape.batch_norm.smoothness import SmoothnessComparison
from cifar_lab.landscape.batch_norm.training import cosine_gain
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.report.claims.evidence import NOT_MEASURED, UNKNOWN, Claim, Condition, above, trains_study
from cifar_lab.runs import Record
from cifar_lab.runs.labels import data_changes
from cifar_lab.statistics.significance import SEEDS_FOR_INTERVALS

T = TypeVar("T")

_PROBED = trains_study("bn_smoothness")
# One learning rate suffices.
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
    "95 % interval by Student's t over three seeds or more (ratios on a log scale), for each initialisation from "
    "which both networks train"
)


@dataclass(frozen=True)
class Landscape:
    """The deciding runs: VGG-A on CIFAR-10 with and without BatchNorm."""

    bands: tuple[BandComparison, ...] = ()  # one per initialisation, over several learning rates
    band_group: Group | None = None  # runs of the bands
    smoothness: SmoothnessComparison | None = None  # comparison of the probes
    probed_group: Group | None = None  # runs of the probes

    @cached_property
    def runs(self) -> list[Record]:
        """Ended runs, without duplicates."""
        runs = [run.record for group in (self.band_group, self.probed_group) if group is not None for run in group.runs]
        return [run for run in {run.identity: run for run in runs}.values() if run.has_ended]


def _is_vgg_a(run: Record) -> bool:
    return all(run.settings.get(key) == value for key, value in _OF_VGG_A.items()) and not data_changes(run.settings)


def landscape(measured: Sequence[Record]) -> Landscape:
    """Find the deciding runs: those with the most training images, then the most epochs, then the largest group."""
    candidates = [run for run in measured if _is_vgg_a(run)]
    of_settings = sorted(groups(candidates), key=lambda group: (*group.length, len(group.runs)), reverse=True)
    bands, band_group = _first(of_settings, _bands)
    smoothness, probed_group = _first(of_settings, _smoothness)
    return Landscape(bands or (), band_group, smoothness, probed_group)


def claims(landscape: Landscape) -> list[Claim]:
    """Return the claims on losses, probes and covariate shift, without verdicts."""
    return [
        _smoother(landscape),
        *_lipschitz(landscape),
        _predictive(landscape),
        _covariate_shift(landscape.band_group, landscape.probed_group),
    ]


def _smoother(landscape: Landscape) -> Claim:
    ratios = _ratios(landscape, "loss_range")
    facts = [f"loss variation {_ratios_text(ratios)}"] if ratios else []
    for band in landscape.bands:
        ratio, in_log = band.band_ratio().judged(), band.band_ratio(in_log=True).judged()
        facts.append(
            f"band of the training loss over steps 1 to {band.steps:,}: ratio {ratio}, in ln(max/min) {in_log}"
        )
    return Claim(
        "BatchNorm makes the loss landscape smoother, with lower variance",
        f"range of the loss along the gradient, without BatchNorm over with it: above 1, {_EVERY}; the band of the "
        "training loss over learning rates is reported too",
        _measured(facts, landscape.probed_group),
        _all_above(ratios),
        _PROBED,
    )


def _lipschitz(landscape: Landscape) -> list[Claim]:
    """Compare the Lipschitz constants of loss (gradient norm) and gradient (beta), at a point and over a step."""
    quantities = {
        ("loss", "at the point"): ("grad_norm", "||g||"),
        ("loss", "over a step"): ("moved_grad_norm", "largest ||g'|| over the grid of step sizes"),
        ("gradient", "at the point"): ("hessian_norm", "||Hg||/||g||, a lower bound of the Hessian's norm"),
        ("gradient", "over a step"): ("beta", "largest ||g − g'||/(eta ||g||) over the grid of step sizes"),
    }
    claims = []
    for (of, where), (quantity, words) in quantities.items():
        ratios = _ratios(landscape, quantity)
        facts = [_ratios_text(ratios)] if ratios else []
        if landscape.smoothness is not None and quantity == "beta":
            facts += _beyond_beta(landscape.smoothness)
        claims.append(
            Claim(
                f"BatchNorm reduces the Lipschitz constant of the {of}, {where}",
                f"{words} (arXiv:1805.11604), without BatchNorm over with it: above 1, {_EVERY}",
                _measured(facts, landscape.probed_group),
                _all_above(ratios),
                _PROBED,
            )
        )
    return claims


def _beyond_beta(comparison: SmoothnessComparison) -> Iterator[str]:
    """Describe the probes at which beta is at its ceiling, and the change of the gradient at relative distances."""
    means = {
        init: [100 * comparison.mean(bn, init, "share_at_ceiling") for bn in (True, False)] for init in comparison.inits
    }
    shares = [f"{INITS.get(init, init)} {one:.0f} and {other:.0f}" for init, (one, other) in means.items()]
    yield f"share of probes at the ceiling 1/eta_min of the grid, with BatchNorm and without: {'; '.join(shares)} %"
    for name in comparison.relative_quantities:
        ratios = {init: comparison.ratio(init, name) for init in comparison.inits}
        yield f"relative change of the gradient {name.removeprefix('change_at_')} ||w|| away: {_ratios_text(ratios)}"


def _predictive(landscape: Landscape) -> Claim:
    ratios, probed = _ratios(landscape, "gradient_range"), landscape.smoothness
    gains = {} if probed is None else {init: probed.cosine_gain(init) for init in probed.inits}
    facts = []
    if probed is not None:
        cosines = "; ".join(
            f"{INITS.get(init, init)} {probed.mean(True, init, 'cosine'):.3g} against "
            f"{probed.mean(False, init, 'cosine'):.3g}, gain {gain.judged()}"
            for init, gain in gains.items()
        )
        facts = [
            f"gradient range {_ratios_text(ratios)}; cos(g, g') at eta = lr with BatchNorm against without: {cosines}"
        ]
    return Claim(
        "BatchNorm improves gradient predictiveness",
        "range of ||g − g'|| along the gradient, without BatchNorm over with it: above 1; and cos(g, g') after a step "
        f"of the learning rate, which ignores norms: larger with BatchNorm; {_EVERY}",
        _measured(facts, landscape.probed_group),
        [*_all_above(ratios), *_all_above(gains)],
        _PROBED,
    )


def _covariate_shift(*of_groups: Group | None) -> Claim:
    gains, facts = {}, []
    compared = list({id(group): group for group in of_groups if group is not None}.values())
    for number, group in enumerate(compared):
        for init in group.inits:
            if (measured := cosine_gain(group, init)) is not None:
                gain, with_bn, without = measured
                gains[number, init] = gain
                facts.append(f"{INITS.get(init, init)} {with_bn:.3g} against {without:.3g}, gain {gain.judged()}")
    return Claim(
        "BatchNorm reduces internal covariate shift",
        "cos(G, G') of a layer's gradient before and after the step of the layers below (arXiv:1805.11604), "
        f"median over layers and epochs: larger with BatchNorm, {_EVERY}",
        _measured(facts, *compared),
        _all_above(gains),
        _SHIFTED,
    )


def _ratios(landscape: Landscape, quantity: str) -> dict[str, Estimate]:
    probed = landscape.smoothness
    return {} if probed is None else {init: probed.ratio(init, quantity) for init in probed.inits}


def _ratios_text(ratios: Mapping[str, Estimate]) -> str:
    return ", ".join(f"{INITS.get(init, init)} {estimate.judged()}" for init, estimate in ratios.items())


def _measured(facts: Sequence[str], *of_groups: Group | None) -> str:
    """Join the measurements, and list the networks with diverged runs, which are not compared."""
    if not facts:
        return NOT_MEASURED
    ended = [run for group in of_groups if group is not None for run in group.runs if run.record.has_ended]
    arms = Counter((run.init, run.bn) for run in ended)
    diverged = Counter((run.init, run.bn) for run in ended if run.record.state == "diverged")
    left_out = [
        f"{INITS.get(init, init)} {NAMES[bn]} ({number} of {arms[init, bn]} diverged)"
        for (init, bn), number in diverged.items()
    ]
    return "; ".join(facts) + (f"; not compared: {', '.join(left_out)}" if left_out else "")


def _all_above(estimates: Mapping[Any, Estimate]) -> list[Condition | None]:
    """Return the condition of each estimate, above 0 or a ratio above 1; `[None]` if there is none."""
    effects = [estimate.effect for estimate in estimates.values()]
    return [UNKNOWN if effect is None else above(effect, SEEDS_FOR_INTERVALS) for effect in effects] or [None]


def _first(of_settings: Sequence[Group], compared: Callable[[Group], T]) -> tuple[T | None, Group | None]:
    """Return the first comparison that succeeds, with its group."""
    for group in of_settings:
        with suppress(ValueError):  # the group lacks one of the networks
            return compared(group), group
    return None, None


def _bands(group: Group) -> tuple[BandComparison, ...]:
    """Compare every initialisation that has both networks at two rates; raise ValueError if there is none."""
    made = []
    for init in group.inits:
        with_bn, without = ({run.lr for run in group.runs if (run.bn, run.init) == (bn, init)} for bn in (True, False))
        if len(with_bn & without) > 1:
            made.append(bands.compare(group, init))
    if not made:
        raise UsageError("no initialisation has both networks at two learning rates")
    return tuple(made)


def _smoothness(group: Group) -> SmoothnessComparison:
    """Compare at the learning rate with the most probed runs, the highest of ties.

    Raises:
        ValueError: No initialisation has a seed with probes of both networks.
    """
    rates = [run.lr for run in smoothness.probed_runs(group)]
    return smoothness.compare(group, max(rates, key=lambda rate: (rates.count(rate), rate), default=0.0))
