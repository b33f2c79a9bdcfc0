"""Tests of the report's conclusions on modern experiments, by studies that vary one factor."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cifar_lab.report.claims.evidence import MARGIN, Claim, above, alike, judged, trains_study
from cifar_lab.report.claims.numbers import ACCURACY, numbers_of, typed
from cifar_lab.runs import Record
from cifar_lab.statistics.significance import SEEDS_FOR_TESTS

# Conclusion of the report, study, values of the two arms, and the condition on the first minus the second.
_CONCLUSIONS = (
    ("LeakyReLU and ReLU have similar performance", "activation", ("leaky_relu", "relu"), alike),
    ("ELU is weaker than LeakyReLU", "activation", ("leaky_relu", "elu"), above),
    ("Adam is above SGD", "optimizer", ("adam", "sgd"), above),
    ("Label smoothing is above cross-entropy", "loss", ("label_smoothing", "ce"), above),
    ("MSE is above cross-entropy", "loss", ("mse", "ce"), above),
    ("Cross-entropy is above focal loss", "loss", ("ce", "focal"), above),
    ("BatchNorm raises the accuracy", "batch_norm", ("true", "false"), above),
)
_AXES = {"batch_norm": "bn"}  # studies whose axis has a different name
# `data` is not listed, because it would replace the data settings of an experiment.
_RUN = {"study", "experiment", "seed", "data.root", "logger", "tags", "trainer", "callbacks", "probe"}
# Settings that may differ between arms.
_RATES = ("optimizer.lr", "optimizer.sgd_lr", "optimizer.relative_lr", "optimizer.weight_decay", "loss.smoothing")


@dataclass(frozen=True)
class Base:
    """An experiment that is not a published row, with its runs on CIFAR-10."""

    name: str
    own: tuple[Record, ...]  # finished runs of the unchanged experiment, by seed
    of_studies: tuple[Record, ...]  # runs of studies on it
    claims: tuple[Claim, ...]


def bases(runs: Sequence[Record]) -> list[Base]:
    """Return the experiments of the runs, each with verdicts on the report's conclusions.

    An arm consists of the runs with the study's most common rates. If the study has no such arm, the runs of the
    experiment without a study are the arm. Verdicts follow `evidence.RULE` within an experiment.
    """
    by_name: dict[str, list[Record]] = {}
    for run in runs:
        by_name.setdefault(str(run.options["experiment"]), []).append(run)
    bases = []
    for name, of_base in sorted(by_name.items()):
        own = [run for run in of_base if run.is_finished and not run.options.get("study") and not typed(run) - _RUN]
        studied = tuple(run for run in of_base if run.options.get("study"))
        is_varied = any(run.options.get("study") or typed(run) - _RUN for run in of_base)
        claims = [_claim(name, of_base, *conclusion) for conclusion in _CONCLUSIONS] if is_varied else []
        bases.append(Base(name, tuple(sorted(own, key=lambda run: run.seed or 0)), studied, tuple(judged(claims))))
    return bases


def pflop(run: Record) -> float:
    """Return the training compute of a run in 10^15 operations, counting three forward passes per step."""
    result = run.result
    return float(3 * result["flops_per_image"] * result["train_size"] * result["epochs"] / 1e15)


def _claim(base: str, runs: Sequence[Record], words: str, study: str, pair: tuple[str, str], decide: Any) -> Claim:
    axis = _AXES.get(study, study)
    arms = {value: _arm(runs, study, axis, value) for value in pair}
    protocols = list({run.protocol: None for arm in arms.values() for run in arm}) or [""]
    numbers = numbers_of(arms, ACCURACY, protocols)
    effect = numbers.difference(*pair)
    size = f"; d = {effect.mean / effect.deviation:+.1f}" if effect is not None and effect.deviation > 0 else ""
    rates = [f"{value}: {word}" for value, arm in arms.items() for word in sorted(_rates(arm[0]) if arm else ())]
    return Claim(
        words,
        f"{'above' if decide is above else f'within ± {100 * MARGIN:g} points'}, by Welch's test in study={study}",
        f"{numbers.text([pair])}{size}" + (f" ({'; '.join(rates)})" if rates else ""),
        [numbers.condition(decide, *pair)],
        trains_study(study, f"experiment={base}", f"{axis}={','.join(pair)}", seeds=SEEDS_FOR_TESTS),
    )


def _arm(runs: Sequence[Record], study: str, axis: str, value: str) -> list[Record]:
    """Return the ended runs with a value on a study's axis and the most common rates."""
    fitting = [
        run
        for run in runs
        if run.has_ended
        and str(run.options.get(axis, run.settings.get(axis))).lower() == value
        and all(key in {*_RUN, axis} or key.startswith(_RATES) for key in typed(run))
    ]
    of_study = [run for run in fitting if run.options.get("study") == study]
    ended = of_study or [run for run in fitting if not run.options.get("study")]
    most = Counter(_rates(run) for run in ended).most_common(1)
    return [run for run in ended if _rates(run) == most[0][0]]


def _rates(run: Record) -> frozenset[str]:
    return frozenset(word for word in run.overrides if word.startswith(_RATES))
