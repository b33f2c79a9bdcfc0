"""The claims of the published report, each with the number that decides it."""

import itertools
from collections.abc import Mapping, Sequence

from cifar_lab.report.claims import batch_norm, losses
from cifar_lab.report.claims.evidence import (
    MARGIN,
    NOT_MEASURED,
    Claim,
    above,
    alike,
    distance,
    fact,
    judged,
    trains_options,
    trains_rows,
)
from cifar_lab.report.claims.landscape import Landscape
from cifar_lab.report.claims.numbers import ACCURACY, Numbers, Quantity, numbers_of, of_curve, rows_of, study_of
from cifar_lab.report.reproduction import Reproduction
from cifar_lab.runs import Record
from cifar_lab.statistics.significance import SEEDS_FOR_TESTS
from cifar_lab.table.curves import largest_jump, mean_jump

__all__ = ["Claim", "claims"]

_RELUS = {"LeakyReLU": "activation_leaky_relu", "ReLU": "activation_relu"}
_SCHEDULES = {"step": "scheduler_step", "plateau": "scheduler_plateau", "cosine": "scheduler_cosine"}
_WITHIN = f"within ± {100 * MARGIN:g} points, by Welch's test"
_SMALL = 0.01  # upper bound of a small improvement
_TUNED = "study=optimizer, each at its own learning rate"
# Explains the runs of the sweep that trains both rows.
_TRAINED = "outputs/experiment-seed/experiment=activation_*relu,*"
_EXPLAINED = f'for run in {_TRAINED}; do python -m cifar_lab.explain "$run"; done'

_FEWEST_IMAGES = 2_000  # the share of dead units can only fall with more images, so smaller counts are not comparable


def _negative_only(run: Record) -> float | None:
    """Return the share of units whose input is never above 0, from 0 to 1; None if counted on too few images."""
    counted = run.dead_units or {}
    try:
        share, images = float(counted["negative_only"]), int(counted["images"])
    except (ValueError, TypeError, KeyError):
        return None
    return share if images >= _FEWEST_IMAGES and 0 <= share <= 1 else None


_NEGATIVE_ONLY = Quantity("units whose input is never above 0", _negative_only)
_LARGEST_JUMP = Quantity("largest change", of_curve(largest_jump), unit="", digits=3)
_MEAN_JUMP = Quantity("mean change", of_curve(mean_jump), unit="", digits=4)


def claims(
    reproduction: Reproduction, parameters: Mapping[str, int], landscape: Landscape | None = None
) -> list[Claim]:
    """Return every claim of the report with its verdict.

    Args:
        reproduction: The measured runs.
        parameters: Number of parameters by row name.
        landscape: Result of `landscape`, if already computed.
    """
    return judged(
        [
            *_activation(reproduction),
            *losses.claims(reproduction),
            *_optimizers(reproduction),
            *_schedules(reproduction),
            _compact(parameters["best_cnn"]),
            *batch_norm.claims(reproduction, landscape),
        ]
    )


def _of_rows(reproduction: Reproduction, experiments: Mapping[str, str], quantity: Quantity) -> tuple[Numbers, str]:
    """Return a number of the compared rows, and the command that trains them under the same protocol."""
    numbers = numbers_of(rows_of(reproduction, experiments), quantity)
    return numbers, trains_rows(experiments.values(), numbers.protocol)


def _activation(reproduction: Reproduction) -> list[Claim]:
    of_two, trains_two = _of_rows(reproduction, _RELUS, ACCURACY)
    of_all, trains_all = _of_rows(reproduction, {**_RELUS, "ELU": "activation_elu"}, ACCURACY)
    similar = "LeakyReLU", "ReLU"
    weaker = [(name, "ELU") for name in _RELUS]
    return [
        Claim(
            "LeakyReLU and ReLU have similar performance",
            f"difference {_WITHIN}",
            of_two.text([similar]),
            [of_two.condition(alike, *similar)],
            trains_two,
        ),
        Claim(
            "ELU is significantly weaker",
            "below both, by Welch's test",
            of_all.text(weaker),
            [of_all.condition(above, *pair) for pair in weaker],
            trains_all,
        ),
        _revived(reproduction),
    ]


def _revived(reproduction: Reproduction) -> Claim:
    two = {name: _RELUS[name] for name in ("ReLU", "LeakyReLU")}
    shares, trains = _of_rows(reproduction, two, _NEGATIVE_ONLY)
    fewer = "ReLU", "LeakyReLU"
    is_measured = any(len(values) for values in shares.values.values())
    if not is_measured:  # existing runs only need `explain`
        _, trains = _of_rows(reproduction, two, ACCURACY)
    return Claim(
        "LeakyReLU revives dying units",
        "fewer units whose input is never above 0 (python -m cifar_lab.explain RUN) than with ReLU, by Welch's test",
        shares.text([fewer]) if is_measured or shares.diverged else NOT_MEASURED,
        [shares.condition(above, *fewer)],
        f"{trains}; {_EXPLAINED}",
    )


def _optimizers(reproduction: Reproduction) -> list[Claim]:
    def of_options(names: Sequence[str]) -> tuple[Numbers, str]:
        options = {name: {"Adam": "adam", "SGD": "sgd", "SignSGD": "sign_sgd"}[name] for name in names}
        rows = rows_of(reproduction, {name: f"optimizer_{option}" for name, option in options.items()})
        at_adams = f"the report's rows, all at Adam's learning rate: {numbers_of(rows, ACCURACY).text()}"
        return numbers_of(study_of(reproduction, "optimizer", options), ACCURACY), at_adams

    adam, adams_rows = of_options(("Adam", "SGD"))
    sign, signs_rows = of_options(("SignSGD", "SGD"))
    improved = sign.difference("SignSGD", "SGD")
    small = improved and distance(improved, _SMALL - improved.mean, SEEDS_FOR_TESTS)
    return [
        Claim(
            "Adam outperformed SGD due to adaptive rates",
            f"above SGD by Welch's test in {_TUNED}; whether adaptive rates are the cause is not tested",
            f"{_TUNED}: {adam.text([('Adam', 'SGD')])}; {adams_rows}",
            [adam.condition(above, "Adam", "SGD")],
            trains_options("optimizer", ("adam", "sgd")),
        ),
        Claim(
            "SignSGD shows only a small improvement over SGD",
            f"above SGD, by less than {100 * _SMALL:g} point, by Welch's test in {_TUNED}",
            f"{_TUNED}: {sign.text([('SignSGD', 'SGD')])}; {signs_rows}",
            [sign.condition(above, "SignSGD", "SGD"), small],
            trains_options("optimizer", ("sign_sgd", "sgd")),
        ),
    ]


def _schedules(reproduction: Reproduction) -> list[Claim]:
    accuracies, trains = _of_rows(reproduction, _SCHEDULES, ACCURACY)
    tied = list(itertools.combinations(_SCHEDULES, 2))
    jumps, trains_for_curves = _of_rows(reproduction, _SCHEDULES, _LARGEST_JUMP)
    means, _ = _of_rows(reproduction, _SCHEDULES, _MEAN_JUMP)
    rougher = [("step", other) for other in ("plateau", "cosine")]
    return [
        Claim(
            "The performances of the schedules almost tied",
            f"each difference {_WITHIN}",
            accuracies.text(tied),
            [accuracies.condition(alike, *pair) for pair in tied],
            trains,
        ),
        Claim(
            "StepLR gave controlled decay, plateau and cosine smoother transitions",
            "largest change of val/loss between consecutive epochs after the tenth: StepLR's above both, by Welch's "
            "test; the mean change over all epochs, dominated by the first ones, is reported too; controlled decay "
            "names no number and is not tested",
            f"{jumps.text(rougher)}; {_MEAN_JUMP.name}: {means.text()}",
            [jumps.condition(above, *pair) for pair in rougher],
            trains_for_curves,
        ),
    ]


def _compact(parameters: int) -> Claim:
    return Claim(
        "The best model is a compact network of 2.6 M parameters",
        "its number of parameters",
        f"{parameters:,} parameters",
        [fact(round(parameters / 1e6, 1) == 2.6)],
        "",
    )
