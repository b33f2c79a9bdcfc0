"""What the published report claims in words, each with the number that decides it."""

from collections.abc import Mapping, Sequence

import numpy as np

from cifar_lab.analysis import batch_norm_claims
from cifar_lab.analysis.curves import epochs_to, instability, mean_jump
from cifar_lab.analysis.dead_units import negative_only
from cifar_lab.analysis.evidence import (
    ALIKE,
    NOT_MEASURED,
    UNTESTED,
    Claim,
    accuracies_of,
    alike,
    all_hold,
    of_curves,
    of_runs,
    of_study,
    pairs_of,
    ranks,
    rows_of,
    told_of,
    told_pairs,
    turned,
    verdict,
)
from cifar_lab.analysis.measured import Measured
from cifar_lab.analysis.reproduction import Reproduction

__all__ = ["Claim", "claims"]

_TOLD_APART = "Welch's test, corrected by Holm, tells two apart"
_TUNED = "study=optimizer, each at its own rate"


def claims(reproduction: Reproduction, parameters: Mapping[str, int]) -> list[Claim]:
    """Every claim of the report.

    Args:
        reproduction: What was measured.
        parameters: Each row's number of parameters, by the row's name.
    """
    return [
        *_activation(reproduction),
        *_losses(reproduction),
        *_optimizers(reproduction),
        *_schedules(reproduction),
        _compact(parameters["best_cnn"]),
        *batch_norm_claims.claims(reproduction),
    ]


def _activation(found: Reproduction) -> list[Claim]:
    rows = rows_of(found, {"LeakyReLU": "activation_leaky_relu", "ReLU": "activation_relu", "ELU": "activation_elu"})
    accuracies, protocol = accuracies_of(rows)
    told = told_of(accuracies, protocol)
    pairs = pairs_of(accuracies)
    similar = [pairs.get(("LeakyReLU", "ReLU"))]
    weaker = [pairs.get(("LeakyReLU", "ELU")), pairs.get(("ReLU", "ELU"))]
    return [
        Claim(
            "LeakyReLU and ReLU have similar performance",
            f"the 95 % interval of their difference lies within ± {100 * ALIKE:g} points; not if {_TOLD_APART}",
            told + told_pairs(similar),
            alike(similar),
        ),
        Claim(
            "ELU is significantly weaker",
            "below both by Welch's test, corrected by Holm",
            told + told_pairs(weaker),
            all_hold(weaker, lambda pair: pair.is_significant and pair.mean > 0),
        ),
        _revived(found),
    ]


def _revived(found: Reproduction) -> Claim:
    rows = rows_of(found, {"ReLU": "activation_relu", "LeakyReLU": "activation_leaky_relu"})
    shares, protocol = of_runs(rows, negative_only)
    pair = pairs_of(shares).get(("ReLU", "LeakyReLU"))
    is_measured = any(len(values) for values in shares.values())
    return Claim(
        "LeakyReLU revives dying units",
        "fewer units whose input is never above 0 (python -m cifar_lab.explain RUN) than with ReLU, by Welch's test",
        told_of(shares, protocol) + told_pairs([pair]) if is_measured else NOT_MEASURED,
        all_hold([pair], lambda tested: tested.is_significant and tested.mean > 0),
    )


def _losses(found: Reproduction) -> list[Claim]:
    rows = rows_of(
        found,
        {
            "cross-entropy": "loss_ce",
            "focal": "loss_focal",
            "label smoothing": "loss_label_smoothing",
            "MSE": "loss_mse",
        },
    )
    unstable, protocol = of_curves(rows, instability)
    speed, _ = of_curves(rows, lambda metrics: epochs_to(metrics, 0.8))
    accuracies, _ = accuracies_of(rows)
    shown = told_of(unstable, protocol, digits=3)
    fast = told_of(speed, protocol, unit="epochs")
    calm, pairs, faster = pairs_of(unstable), pairs_of(accuracies), pairs_of(speed)
    measure = "standard deviation of the epoch-to-epoch changes of val/acc over the last 20 epochs"
    places = ranks(unstable)
    calmer, slower = [calm.get(("cross-entropy", "focal"))], [faster.get(("cross-entropy", "focal"))]
    better = [turned(pairs.get(("cross-entropy", "label smoothing")))]
    return [
        Claim(
            "Cross-entropy was more stable than focal loss",
            f"{measure}, in percent; Welch's test",
            shown + told_pairs(calmer, digits=3),
            all_hold(calmer, lambda pair: pair.is_significant and pair.mean < 0),
        ),
        Claim(
            "Focal loss is fast but less stable",
            "epochs to 80 %, fewer than cross-entropy's; and stability as above",
            f"{fast}{told_pairs(slower, 'epochs', 1)}; {shown}{told_pairs(calmer, digits=3)}",
            all_hold([*slower, *map(turned, calmer)], lambda pair: pair.is_significant and pair.mean > 0),
        ),
        Claim(
            "Label smoothing is of median stability and high performance",
            f"{measure}: neither the least nor the most of the four; accuracy above cross-entropy's",
            f"{shown}; {told_of(accuracies, protocol)}{told_pairs(better)}",
            UNTESTED
            if places is None
            else all_hold(
                better,
                lambda pair: pair.is_significant and pair.mean > 0 and places["label smoothing"] in (1, 2),
            ),
        ),
        Claim(
            "MSE is stable, of normal performance",
            f"{measure}: among the two lowest of the four; accuracy not the highest",
            f"{shown}; {told_of(accuracies, protocol)}",
            UNTESTED
            if places is None
            else verdict(places["MSE"] <= 1 and max(accuracies, key=lambda name: accuracies[name].mean()) != "MSE"),
        ),
        _long_training(found.measured),
    ]


def _long_training(runs: Sequence[Measured]) -> Claim:
    names = {"ce": "cross-entropy", "label_smoothing": "label smoothing", "mse": "MSE"}
    gained: dict[str, np.ndarray] = {}
    for option, name in names.items():
        short, long = (of_study(runs, "loss", option, epochs) for epochs in (50, 100))
        if seeds := sorted(short.keys() & long.keys()):
            gained[name] = np.array([long[seed] - short[seed] for seed in seeds])
    pairs = pairs_of(gained)
    more = [turned(pairs.get(("cross-entropy", name))) for name in ("label smoothing", "MSE")]
    return Claim(
        "Label smoothing and MSE show great potential after many epochs",
        "what 100 epochs gain over 50, seed by seed, in study=loss: more than cross-entropy's",
        told_of(gained, "holdout", change=True) + told_pairs(more),
        all_hold(more, lambda pair: pair.is_significant and pair.mean > 0),
    )


def _optimizers(found: Reproduction) -> list[Claim]:
    options = {"Adam": "adam", "SGD": "sgd", "SignSGD": "sign_sgd"}
    tuned = {name: of_study(found.measured, "optimizer", option) for name, option in options.items()}
    accuracies = {name: np.array(list(of.values())) for name, of in tuned.items() if of}
    at_adams, protocol = accuracies_of(
        rows_of(found, {"Adam": "optimizer_adam", "SGD": "optimizer_sgd", "SignSGD": "optimizer_sign_sgd"})
    )
    told = f"{told_of(accuracies, 'holdout')} in {_TUNED}; {told_of(at_adams, protocol)} all at Adam's rate"
    pairs = pairs_of(accuracies)
    over_sgd = [pairs.get(("Adam", "SGD"))], [turned(pairs.get(("SGD", "SignSGD")))]
    return [
        Claim(
            "Adam outperformed SGD due to adaptive rates",
            f"Welch's test in {_TUNED}",
            told + told_pairs(over_sgd[0]),
            all_hold(over_sgd[0], lambda pair: pair.is_significant and pair.mean > 0),
        ),
        Claim(
            "SignSGD shows only a small improvement over SGD",
            f"above SGD by Welch's test, by less than 1 point, in {_TUNED}",
            told + told_pairs(over_sgd[1]),
            all_hold(over_sgd[1], lambda pair: pair.is_significant and 0 < pair.mean < 0.01),
        ),
    ]


def _schedules(found: Reproduction) -> list[Claim]:
    rows = rows_of(found, {"step": "scheduler_step", "plateau": "scheduler_plateau", "cosine": "scheduler_cosine"})
    accuracies, protocol = accuracies_of(rows)
    jumps, _ = of_curves(rows, mean_jump)
    pairs, smoother = pairs_of(accuracies), pairs_of(jumps)
    tied = [pairs.get(pair) for pair in (("step", "plateau"), ("step", "cosine"), ("plateau", "cosine"))]
    rougher = [smoother.get(("step", other)) for other in ("plateau", "cosine")]
    return [
        Claim(
            "The performances of the schedules almost tied",
            f"the 95 % intervals of all differences lie within ± {100 * ALIKE:g} points; not if {_TOLD_APART}",
            told_of(accuracies, protocol) + told_pairs(tied),
            alike(tied),
        ),
        Claim(
            "Plateau and cosine gave smoother transitions than StepLR",
            "mean size of the epoch-to-epoch changes of val/loss; Welch's test",
            told_of(jumps, protocol, unit="", digits=4) + told_pairs(rougher, "", 4),
            all_hold(rougher, lambda pair: pair.is_significant and pair.mean > 0),
        ),
    ]


def _compact(parameters: int) -> Claim:
    return Claim(
        "The best model is a compact network of 2.6 M parameters",
        "its own number of parameters",
        f"{parameters:,} parameters",
        verdict(round(parameters / 1e6, 1) == 2.6),
    )
