"""Numbers and names as they are written."""

from collections.abc import Mapping


def float32_digits(value: float) -> float:
    """The seven digits that a float32 has, without the ones that its conversion to a float adds."""
    return float(f"{value:.7g}")


def weights_name(names: Mapping[str, str], accuracy: float) -> str:
    """The report's name for a file of weights.

    Args:
        names: The classes of `activation`, `loss`, `optimizer` and `scheduler`, as torch or this project calls them.
        accuracy: From 0 to 1; the name holds it times 10,000, in four digits.
    """
    parts = [_REPORT_NAMES.get(names[part], names[part]) for part in ("activation", "loss", "optimizer", "scheduler")]
    return f"best_model_{'_'.join(parts)}_{accuracy_digits(accuracy)}.pth"


def accuracy_digits(accuracy: float) -> str:
    """An accuracy from 0 to 1 as those names have it: times 10,000, four digits or more."""
    return f"{round(accuracy * 10_000):04d}"


_REPORT_NAMES = {"ELU": "eLU", "CrossEntropyLoss": "CrossEntropy", "SignSGD": "CustomSignSGD"}
