"""The report's claims on losses, decided by `study=loss`, in which only the loss varies."""

from collections.abc import Iterable, Sequence

import numpy as np

from cifar_lab.report.claims.evidence import UNKNOWN, Claim, Condition, above, trains_options
from cifar_lab.report.claims.numbers import (
    ACCURACY,
    NO_RUN,
    Numbers,
    Quantity,
    numbers_of,
    of_curve,
    of_study,
    rows_of,
    study_of,
)
from cifar_lab.report.reproduction import Reproduction
from cifar_lab.runs import Record
from cifar_lab.table.curves import epochs_to, instability

_OPTIONS = {"cross-entropy": "ce", "focal": "focal", "label smoothing": "label_smoothing", "MSE": "mse"}
_TWO = ("cross-entropy", "focal")

_CHANGES = Quantity("changes of val/acc", of_curve(instability), digits=3)
_FINAL = Quantity("final test accuracy", lambda run: run.result.get("test/acc_final"))
_SPEED = Quantity("epochs to 80 %", of_curve(lambda metrics: epochs_to(metrics, 0.8)), unit="epochs", digits=1)
_GAIN = Quantity("gain", lambda run: None, change=True)  # a difference of two runs, so no single run has one

_STABILITY = (
    "standard deviation of the epoch-to-epoch changes of val/acc over the last 20 epochs, in study=loss, with that of "
    "the final test accuracy over seeds"
)


_CHOSEN = "by Bonferroni over these three"


def claims(reproduction: Reproduction) -> list[Claim]:
    """Return the claims on the report's loss table, without verdicts."""
    return [*_of_two(reproduction), *_of_four(reproduction), _long_training(reproduction.measured)]


def _of_two(reproduction: Reproduction) -> list[Claim]:
    changes, finals, speed = (_of_study(reproduction, _TWO, quantity) for quantity in (_CHANGES, _FINAL, _SPEED))
    wilder = _TWO[::-1]
    command = trains_options("loss", _options(_TWO))
    return [
        Claim(
            "Cross-entropy was more stable than focal loss",
            f"{_STABILITY}: lower by Welch's test",
            _sentence(reproduction, (changes, [wilder]), (finals, None)),
            [changes.condition(above, *wilder)],
            command,
        ),
        Claim(
            "Focal loss is fast but less stable",
            f"epochs to 80 %, fewer than cross-entropy's; and {_STABILITY}, higher; both by Welch's test",
            _sentence(reproduction, (speed, [_TWO]), (changes, [wilder]), (finals, None)),
            [speed.condition(above, *_TWO), changes.condition(above, *wilder)],
            command,
        ),
    ]


def _of_four(reproduction: Reproduction) -> list[Claim]:
    changes, finals, accuracies = (
        _of_study(reproduction, _OPTIONS, quantity) for quantity in (_CHANGES, _FINAL, ACCURACY)
    )
    name = "label smoothing"
    of_two = _of_study(reproduction, ("cross-entropy", name), ACCURACY)
    better = name, "cross-entropy"
    calm, calmer, highest = changes.others(name), changes.others("MSE"), accuracies.others("MSE")[-1:]
    middle = [(name, other) for other in calm[:1]] + [(other, name) for other in calm[-1:]]
    low = [(other, "MSE") for other in calmer[1:2]]
    command = trains_options("loss", _options(_OPTIONS))
    return [
        Claim(
            "Label smoothing has median stability and high performance",
            f"{_STABILITY}: above the lowest and below the highest of the other three; accuracy above cross-entropy's; "
            f"by Welch's test, {_CHOSEN}",
            _sentence(reproduction, (changes, middle), (finals, None), (of_two, [better])),
            [*_chosen(changes, middle, 2), of_two.condition(above, *better)],
            command,
        ),
        Claim(
            "MSE is stable, with normal performance",
            f"{_STABILITY}: below the second lowest of the other three; accuracy below their highest; by Welch's test, "
            f"{_CHOSEN}",
            _sentence(
                reproduction, (changes, low), (finals, None), (accuracies, [(other, "MSE") for other in highest])
            ),
            [*_chosen(changes, low, 1), *_chosen(accuracies, [(other, "MSE") for other in highest], 1)],
            command,
        ),
    ]


def _chosen(numbers: Numbers, pairs: Sequence[tuple[str, str]], number: int) -> list[Condition | None]:
    """Return conditions on rows chosen by their means, each above another; None each if a row has no runs."""
    if numbers.not_compared or not all(map(len, numbers.values.values())):
        return [UNKNOWN if numbers.not_compared else None] * number
    return [numbers.condition(above, *pair, times=len(numbers.values) - 1) for pair in pairs]


def _long_training(runs: Sequence[Record]) -> Claim:
    names = ("cross-entropy", "label smoothing", "MSE")
    gained: dict[str, np.ndarray] = {}
    diverged: dict[str, str] = {}
    for name in names:
        short, long = (of_study(runs, "loss", _OPTIONS[name], epochs) for epochs in (50, 100))
        lost = {seed for of in (short, long) for seed, run in of.items() if not run.is_finished}
        both = [(short[seed], long[seed]) for seed in sorted((short.keys() & long.keys()) - lost)]
        gained[name] = np.array([after.result["test/acc"] - before.result["test/acc"] for before, after in both])
        if lost:
            diverged[name] = f"{len(lost)} of {len(short.keys() | long.keys())} diverged"
    gains = Numbers(_GAIN, gained, "holdout", diverged)
    more = [(name, "cross-entropy") for name in names[1:]]
    return Claim(
        "Label smoothing and MSE show great potential after many epochs",
        "gain of 100 epochs over 50 per seed, in study=loss: larger than cross-entropy's by Welch's test",
        gains.text(more),
        [gains.condition(above, *pair) for pair in more],
        "; ".join(trains_options("loss", _options(names), *typed) for typed in ((), ("epochs=100",))),
    )


def _options(names: Iterable[str]) -> list[str]:
    return [_OPTIONS[name] for name in names]


def _of_study(reproduction: Reproduction, names: Iterable[str], quantity: Quantity) -> Numbers:
    return numbers_of(study_of(reproduction, "loss", {name: _OPTIONS[name] for name in names}), quantity)


def _sentence(reproduction: Reproduction, *compared: tuple[Numbers, Sequence[tuple[str, str]] | None]) -> str:
    """Describe the numbers of the study, diverged losses, and the numbers of the report's rows."""
    of_study = [(numbers.quantity.name, numbers.text(pairs)) for numbers, pairs in compared]
    rows = [
        rows_of(reproduction, {name: f"loss_{_OPTIONS[name]}" for name in numbers.values}) for numbers, _ in compared
    ]
    of_rows = [
        (numbers.quantity.name, numbers_of(runs, numbers.quantity).text())
        for (numbers, _), runs in zip(compared, rows, strict=True)
    ]
    diverged = compared[0][0].diverged
    if 0 < len(diverged) < len(compared[0][0].values):
        of_study.append(("less stable because diverged", ", ".join(diverged)))
    return f"study=loss, {_listed(of_study)}; the report's rows, which vary more than the loss, {_listed(of_rows)}"


def _listed(sentences: Sequence[tuple[str, str]]) -> str:
    """Join the text of each quantity; return `NO_RUN` if there are no runs for any."""
    known = [f"{name}: {words}" for name, words in sentences]
    return "; ".join(known) if any(words != NO_RUN for _, words in sentences) else NO_RUN
