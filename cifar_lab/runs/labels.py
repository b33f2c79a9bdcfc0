"""Display names of data, protocols, splits and weight files."""

from collections.abc import Mapping
from typing import Any

LAST = "last"  # the protocol that chooses no epoch
_DATA_NAMES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "fashion_mnist": "Fashion-MNIST",
    "folder": "a folder of images",
    "npz": "a file of images",
    "svhn": "SVHN",
    "synthetic": "synthetic data",
}
# Settings that change the data of an option, with their neutral values.
_CHANGES = {"label_noise": 0, "imbalance": 1, "test_set": "cifar10"}
_REPORT_NAMES = {"ELU": "eLU", "CrossEntropyLoss": "CrossEntropy", "SignSGD": "CustomSignSGD"}
PROTOCOLS = {"holdout": True, "report": False, LAST: False}  # whether they hold out training images
NO_PROBABILITIES = (
    "trained with squared error: its logits are not log-probabilities, and their softmax is not a probability"
)


def data_name(option: str) -> str:
    """Return the name of the data of an option of `data`."""
    return _DATA_NAMES.get(option, option)


def data_words(option: str, config: Mapping[str, Any]) -> str:
    """Return the name of a run's data with the settings that change it, such as `CIFAR-10 (label_noise=0.2)`."""
    changes = ", ".join(f"{name}={value}" for name, value in data_changes(config).items())
    return f"{data_name(option)} ({changes})" if changes else data_name(option)


def data_changes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that change an option's data; for the configuration see `holds_out`."""
    changes = {name: _setting(config, "data", name) for name in _CHANGES}
    return {name: value for name, value in changes.items() if value not in (None, _CHANGES[name])}


def holds_out(config: Mapping[str, Any]) -> bool:
    """Return whether a run's `val/*` are of held-out training images instead of the test set.

    Args:
        config: The run's resolved configuration, nested or by dotted keys.
    """
    shares = [_setting(config, "data", "val_fraction"), _setting(config, "protocol", "val_fraction")]
    known = [share for share in shares if share is not None]
    return bool(known[0]) if known else PROTOCOLS.get(str(_setting(config, "protocol", "name")), False)


def protocol_name(config: Mapping[str, Any]) -> str:
    """Return the name of a configuration's protocol, empty if unknown; for the configuration see `holds_out`.

    Runs of version 0.1 may have the name of one protocol and hold out images like the other.
    """
    name = str(_setting(config, "protocol", "name") or "")
    return name if name not in ("holdout", "report") else "holdout" if holds_out(config) else "report"


def _setting(config: Mapping[str, Any], group: str, name: str) -> Any:
    nested = config.get(group)
    return nested.get(name) if isinstance(nested, Mapping) else config.get(f"{group}.{name}")


def protocol_words(name: str, held_out: bool) -> str:
    """Describe how a protocol chooses the epoch."""
    if name == LAST:
        return "the last epoch's weights, no epoch chosen"
    if held_out:
        return "the epoch chosen on held-out training images, the test set read once"
    return "the epoch chosen on the test set, as in the report"


def val_label(held_out: bool) -> str:
    """Return the label of the images of `val/*`."""
    return "validation (held out)" if held_out else "test"


def has_constant_rate(settings: Mapping[str, Any]) -> bool:
    """Return whether a schedule keeps the rate constant, so that a shorter run is the beginning of a longer one."""
    return settings.get("scheduler._target_") == "torch.optim.lr_scheduler.ConstantLR"


def float32_digits(value: float) -> float:
    """Round to the seven digits of a float32, without those that its conversion to a float adds."""
    return float(f"{value:.7g}")


def weights_name(names: Mapping[str, str], accuracy: float) -> str:
    """Return the report's name for a weight file.

    Args:
        names: Class names of `activation`, `loss`, `optimizer` and `scheduler` in torch or this project.
        accuracy: From 0 to 1; the name has it times 10,000, in four digits.
    """
    parts = [_REPORT_NAMES.get(names[part], names[part]) for part in ("activation", "loss", "optimizer", "scheduler")]
    return f"best_model_{'_'.join(parts)}_{accuracy_digits(accuracy)}.pth"


def accuracy_digits(accuracy: float) -> str:
    """Format an accuracy from 0 to 1 for these names: times 10,000, in four digits or more."""
    return f"{round(accuracy * 10_000):04d}"
