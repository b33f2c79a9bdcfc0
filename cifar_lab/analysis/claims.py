"""What the published report claims in words, each with the number that decides it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cifar_lab.analysis.curves import epochs_to, instability, mean_jump
from cifar_lab.analysis.reproduction import PROTOCOLS, Entry, Measured, Reproduction
from cifar_lab.analysis.significance import SEEDS_FOR_TESTS, Difference, differences

SUPPORTED, NOT_SUPPORTED, UNTESTED = "supported", "not supported", "untested"
_ALIKE = 0.005  # rows whose means surely differ by less are alike
_TUNED = "study=optimizer, each at its own rate"


@dataclass(frozen=True)
class Claim:
    """A claim and what became of it.

    Attributes:
        words: The report's.
        decides: Which number decides, and how.
        numbers: What was measured.
        verdict: supported, not supported or untested.
    """

    words: str
    decides: str
    numbers: str
    verdict: str


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
        *_batch_norm(reproduction),
    ]


def _activation(found: Reproduction) -> list[Claim]:
    rows = _rows(found, {"LeakyReLU": "activation_leaky_relu", "ReLU": "activation_relu", "ELU": "activation_elu"})
    accuracies, protocol = _accuracies(rows)
    told = _told(accuracies, protocol)
    pairs = _pairs(accuracies)
    weaker = [pairs.get(("LeakyReLU", "ELU")), pairs.get(("ReLU", "ELU"))]
    return [
        Claim(
            "LeakyReLU and ReLU have similar performance",
            f"the 95 % interval of their difference lies within ± {100 * _ALIKE:g} points, or leaves 0 out",
            told,
            _alike([pairs.get(("LeakyReLU", "ReLU"))]),
        ),
        Claim(
            "ELU is significantly weaker",
            "below both by Welch's test, corrected by Holm",
            told,
            _all(weaker, lambda pair: pair.is_significant and pair.mean > 0),
        ),
        Claim("LeakyReLU revives dying units", "share of dead units in each", "not measured yet", UNTESTED),
    ]


def _losses(found: Reproduction) -> list[Claim]:
    rows = _rows(
        found,
        {
            "cross-entropy": "loss_ce",
            "focal": "loss_focal",
            "label smoothing": "loss_label_smoothing",
            "MSE": "loss_mse",
        },
    )
    unstable, protocol = _of_curves(rows, instability)
    speed, _ = _of_curves(rows, lambda metrics: epochs_to(metrics, 0.8))
    accuracies, _ = _accuracies(rows)
    shown = _told(unstable, protocol, digits=3)
    fast = _told(speed, protocol, percent=False)
    calm, pairs, faster = _pairs(unstable), _pairs(accuracies), _pairs(speed)
    measure = "standard deviation of the epoch-to-epoch changes of val/acc over the last 20 epochs"
    ranks = _ranks(unstable)
    return [
        Claim(
            "Cross-entropy was more stable than focal loss",
            f"{measure}, in percent; Welch's test",
            shown,
            _all([calm.get(("cross-entropy", "focal"))], lambda pair: pair.is_significant and pair.mean < 0),
        ),
        Claim(
            "Focal loss is fast but less stable",
            "epochs to 80 %, fewer than cross-entropy's; and stability as above",
            f"{fast}; {shown}",
            _all(
                [faster.get(("cross-entropy", "focal")), _turned(calm.get(("cross-entropy", "focal")))],
                lambda pair: pair.is_significant and pair.mean > 0,
            ),
        ),
        Claim(
            "Label smoothing is of median stability and high performance",
            f"{measure}: neither the least nor the most of the four; accuracy above cross-entropy's",
            f"{shown}; {_told(accuracies, protocol)}",
            UNTESTED
            if ranks is None
            else _all(
                [_turned(pairs.get(("cross-entropy", "label smoothing")))],
                lambda pair: pair.is_significant and pair.mean > 0 and ranks["label smoothing"] in (1, 2),
            ),
        ),
        Claim(
            "MSE is stable, of normal performance",
            f"{measure}: below the mean of the four; accuracy not the highest",
            f"{shown}; {_told(accuracies, protocol)}",
            UNTESTED
            if ranks is None
            else _verdict(ranks["MSE"] <= 1 and max(accuracies, key=lambda name: accuracies[name].mean()) != "MSE"),
        ),
        _long_training(found.measured),
    ]


def _long_training(runs: Sequence[Measured]) -> Claim:
    names = {"ce": "cross-entropy", "label_smoothing": "label smoothing", "mse": "MSE"}
    gained: dict[str, np.ndarray] = {}
    for option, name in names.items():
        short, long = (_study(runs, "loss", option, epochs) for epochs in (50, 100))
        if seeds := sorted(short.keys() & long.keys()):
            gained[name] = np.array([long[seed] - short[seed] for seed in seeds])
    pairs = _pairs(gained)
    return Claim(
        "Label smoothing and MSE show great potential after many epochs",
        "what 100 epochs gain over 50, seed by seed, in study=loss: more than cross-entropy's",
        _told(gained, "holdout", change=True),
        _all(
            [_turned(pairs.get(("cross-entropy", name))) for name in ("label smoothing", "MSE")],
            lambda pair: pair.is_significant and pair.mean > 0,
        ),
    )


def _optimizers(found: Reproduction) -> list[Claim]:
    options = {"Adam": "adam", "SGD": "sgd", "SignSGD": "sign_sgd"}
    tuned = {name: _study(found.measured, "optimizer", option) for name, option in options.items()}
    accuracies = {name: np.array(list(of.values())) for name, of in tuned.items() if of}
    at_adams, protocol = _accuracies(
        _rows(found, {"Adam": "optimizer_adam", "SGD": "optimizer_sgd", "SignSGD": "optimizer_sign_sgd"})
    )
    told = f"{_told(accuracies, 'holdout')} in {_TUNED}; {_told(at_adams, protocol)} all at Adam's rate"
    pairs = _pairs(accuracies)
    return [
        Claim(
            "Adam outperformed SGD due to adaptive rates",
            f"Welch's test in {_TUNED}",
            told,
            _all([pairs.get(("Adam", "SGD"))], lambda pair: pair.is_significant and pair.mean > 0),
        ),
        Claim(
            "SignSGD shows only a small improvement over SGD",
            f"above SGD by Welch's test, by less than 1 point, in {_TUNED}",
            told,
            _all(
                [_turned(pairs.get(("SGD", "SignSGD")))],
                lambda pair: pair.is_significant and 0 < pair.mean < 0.01,
            ),
        ),
    ]


def _schedules(found: Reproduction) -> list[Claim]:
    rows = _rows(found, {"step": "scheduler_step", "plateau": "scheduler_plateau", "cosine": "scheduler_cosine"})
    accuracies, protocol = _accuracies(rows)
    jumps, _ = _of_curves(rows, mean_jump)
    pairs, smoother = _pairs(accuracies), _pairs(jumps)
    names = [("step", "plateau"), ("step", "cosine"), ("plateau", "cosine")]
    return [
        Claim(
            "The performances of the schedules almost tied",
            f"the 95 % intervals of all differences lie within ± {100 * _ALIKE:g} points, or one leaves 0 out",
            _told(accuracies, protocol),
            _alike([pairs.get(pair) for pair in names]),
        ),
        Claim(
            "Plateau and cosine gave smoother transitions than StepLR",
            "mean size of the epoch-to-epoch changes of val/loss; Welch's test",
            _told(jumps, protocol, percent=False, digits=4),
            _all([smoother.get(pair) for pair in names[:2]], lambda pair: pair.is_significant and pair.mean > 0),
        ),
    ]


def _compact(parameters: int) -> Claim:
    return Claim(
        "The best model is a compact network of 2.6 M parameters",
        "its own number of parameters",
        f"{parameters:,} parameters",
        _verdict(round(parameters / 1e6, 1) == 2.6),
    )


def _batch_norm(found: Reproduction) -> list[Claim]:
    entries = {entry.row.name: entry for entry in found.entries}
    with_bn, without = (entries[f"{name},optimizer.lr=1e-3"] for name in ("vgg_a_bn", "vgg_a"))
    reached, protocol = _of_curves({"with": with_bn, "without": without}, lambda metrics: epochs_to(metrics, 0.5))
    lasting = {
        name: [run for rate in ("1e-4", "5e-4", "1e-3", "2e-3") for run in entries[f"{name},optimizer.lr={rate}"].runs]
        for name in ("vgg_a_bn", "vgg_a")
    }
    diverged = {name: sum(run.record.state == "diverged" for run in runs) for name, runs in lasting.items()}
    ended = {name: sum(run.is_finished for run in runs) for name, runs in lasting.items()}
    # Ten classes: a network that has learnt nothing is right in a tenth of the images.
    useless = {
        name: sum(run.is_finished and run.record.result["test/acc_final"] < 0.15 for run in runs)
        for name, runs in lasting.items()
    }
    all_rates = all(
        entries[f"{name},optimizer.lr={rate}"].runs for name in lasting for rate in ("1e-4", "5e-4", "1e-3", "2e-3")
    )
    first = {name: values.max() for name, values in reached.items() if len(values)}
    stable = ended["vgg_a_bn"] and not diverged["vgg_a_bn"] and not useless["vgg_a_bn"]
    study = "the BatchNorm study is still to come"
    return [
        Claim(
            "With BatchNorm 50 % validation accuracy by epoch 10",
            "the first epoch with 50 %, at learning rate 1e-3, in every run",
            _told(reached, protocol, percent=False),
            UNTESTED if "with" not in first else _verdict(first["with"] <= 10),
        ),
        Claim(
            "Without BatchNorm 50 % only by epoch 25",
            "the first epoch with 50 %, at learning rate 1e-3; the published runs have 20 epochs",
            _told(reached, protocol, percent=False),
            UNTESTED if "without" not in first else _verdict(not first["without"] <= 20),
        ),
        Claim(
            "BatchNorm allows larger learning rates without divergence",
            "with it all rates from 1e-4 to 2e-3 train, without it one diverges or ends below 15 %",
            ", ".join(
                f"{label}: {ended[name]} finished, {useless[name]} of them below 15 %, {diverged[name]} diverged"
                for name, label in (("vgg_a_bn", "with"), ("vgg_a", "without"))
            )
            if all_rates
            else "not all rates have been run",
            _verdict(bool(stable and (diverged["vgg_a"] or useless["vgg_a"]))) if all_rates else UNTESTED,
        ),
        *(
            Claim(words, decides, study, UNTESTED)
            for words, decides in (
                (
                    "BatchNorm makes the loss landscape smoother, of lower variance",
                    "spread of the loss along the gradient",
                ),
                ("BatchNorm reduces the Lipschitz constant", "largest change of the gradient over the distance moved"),
                ("BatchNorm improves gradient predictiveness", "distance of the gradient before and after a step"),
                ("BatchNorm reduces internal covariate shift", "change of the layers' inputs between steps"),
            )
        ),
    ]


def _rows(found: Reproduction, experiments: Mapping[str, str]) -> dict[str, Entry]:
    return {name: found.entry(experiment) for name, experiment in experiments.items()}


def _protocol(rows: Mapping[str, Entry]) -> str:
    """The protocol under which the row with the fewest runs has the most; the sound one where both have as many."""
    return max(reversed(PROTOCOLS), key=lambda protocol: min(len(entry.finished(protocol)) for entry in rows.values()))


def _accuracies(rows: Mapping[str, Entry]) -> tuple[dict[str, np.ndarray], str]:
    protocol = _protocol(rows)
    return {name: entry.values("test/acc", protocol) for name, entry in rows.items()}, protocol


def _of_curves(
    rows: Mapping[str, Entry], measure: Callable[[pd.DataFrame], float]
) -> tuple[dict[str, np.ndarray], str]:
    protocol = _protocol(rows)
    numbers = {
        name: np.array([measure(run.metrics) for run in entry.finished(protocol) if run.metrics is not None])
        for name, entry in rows.items()
    }
    return numbers, protocol


def _study(runs: Sequence[Measured], study: str, option: str, epochs: int | None = None) -> dict[int, float]:
    """Test accuracies by seed of a study's runs with an option of the group of its name, on all training images."""
    return {
        run.record.seed: run.record.result["test/acc"]
        for run in runs
        if run.is_finished
        and run.record.seed is not None
        and run.record.options.get("study") == study
        and run.record.options.get(study) == option
        and run.record.settings.get("data.train_size") is None
        and run.protocol == "holdout"
        and run.record.result["epochs"] == (epochs or 50)
    }


def _pairs(rows: Mapping[str, np.ndarray]) -> dict[tuple[str, str], Difference]:
    whole = {name: values for name, values in rows.items() if not np.isnan(values).any()}
    return {(pair.first, pair.second): pair for pair in differences(whole)}


def _turned(pair: Difference | None) -> Difference | None:
    """The same difference, the other way round."""
    if pair is None:
        return None
    low, high = pair.interval
    return Difference(pair.second, pair.first, -pair.mean, (-high, -low), pair.p, pair.adjusted)


def _ranks(rows: Mapping[str, np.ndarray]) -> dict[str, int] | None:
    """Each row's place by its mean, from 0 for the lowest; None where a row has too few runs."""
    if any(len(values) < SEEDS_FOR_TESTS or np.isnan(values).any() for values in rows.values()):
        return None
    return {name: place for place, name in enumerate(sorted(rows, key=lambda name: float(rows[name].mean())))}


def _alike(pairs: Sequence[Difference | None]) -> str:
    """Supported where all surely differ by less than what counts, not supported where one surely differs."""
    known = [pair for pair in pairs if pair is not None]
    if len(known) < len(pairs):
        return UNTESTED
    if all(pair.interval[0] >= -_ALIKE and pair.interval[1] <= _ALIKE for pair in known):
        return SUPPORTED
    return NOT_SUPPORTED if any(pair.is_significant for pair in known) else UNTESTED


def _all(pairs: Sequence[Difference | None], holds: Callable[[Difference], bool]) -> str:
    known = [pair for pair in pairs if pair is not None]
    return _verdict(all(map(holds, known))) if len(known) == len(pairs) else UNTESTED


def _verdict(holds: bool) -> str:
    return SUPPORTED if holds else NOT_SUPPORTED


def _told(
    rows: Mapping[str, np.ndarray],
    protocol: str,
    *,
    percent: bool = True,
    change: bool = False,
    digits: int = 2,
) -> str:
    """`ReLU 89.31 ± 0.20 (5), ELU 87.45 (1), protocol=report`; what no run has shown is left out."""
    parts = []
    for name, values in rows.items():
        if len(values) and not math.isnan(values.mean()):
            scale, sign = 100 if percent else 1, "+" if change else ""
            places = digits if percent or digits > 2 else 0 if len(values) == 1 else 1
            spread = f" ± {scale * values.std(ddof=1):.{places}f}" if len(values) > 1 else ""
            parts.append(
                f"{name} {scale * values.mean():{sign}.{places}f}{' %' if percent else ''}{spread} ({len(values)})"
            )
        elif len(values):
            parts.append(f"{name} never ({len(values)})")
    return f"{', '.join(parts)}, protocol={protocol}" if parts else "no run of full length"
