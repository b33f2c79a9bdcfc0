"""Names of data, protocols, splits and files of weights for readers."""

from collections.abc import Mapping
from typing import Any

_DATA_NAMES = {"cifar10": "CIFAR-10", "synthetic": "synthetic data"}
_REPORT_NAMES = {"ELU": "eLU", "CrossEntropyLoss": "CrossEntropy", "SignSGD": "CustomSignSGD"}
_PROTOCOLS = {
    "holdout": "the epoch chosen on held-out training images, the test set read once",
    "report": "the epoch chosen on the test set, as in the report",
}


def data_name(option: str) -> str:
    """The name of the data of an option of `data`."""
    return _DATA_NAMES.get(option, option)


def protocol_words(protocol: str) -> str:
    """A protocol in a few words."""
    return _PROTOCOLS.get(protocol, "not one of ours")


def val_label(protocol: str) -> str:
    """The images of `val/*` under a protocol."""
    return "test (report protocol)" if protocol == "report" else "validation (held out)"


def has_constant_rate(settings: Mapping[str, Any]) -> bool:
    """Whether a schedule leaves the learning rate as it is, so that a shorter run is the beginning of a longer one."""
    return settings.get("scheduler._target_") == "torch.optim.lr_scheduler.ConstantLR"


def float32_digits(value: float) -> float:
    """The seven digits of a float32, without those that its conversion to a float adds."""
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
