"""What readers call data, protocols and splits."""

from collections.abc import Mapping
from typing import Any

_DATA_NAMES = {"cifar10": "CIFAR-10", "synthetic": "synthetic data"}


_PROTOCOLS = {
    "holdout": "the epoch chosen on held-out training images, the test set read once",
    "report": "the epoch chosen on the test set, as in the report",
}


def data_name(option: str) -> str:
    """What a reader calls the data of an option of `data`."""
    return _DATA_NAMES.get(option, option)


def protocol_words(protocol: str) -> str:
    """What a protocol does, in a few words."""
    return _PROTOCOLS.get(protocol, "not one of ours")


def val_label(protocol: str) -> str:
    """What `val/*` was measured on under a protocol."""
    return "test (report protocol)" if protocol == "report" else "validation (held out)"


def has_constant_rate(settings: Mapping[str, Any]) -> bool:
    """Whether a schedule leaves the learning rate as it is, so that a shorter run is a longer one's beginning."""
    return settings.get("scheduler._target_") == "torch.optim.lr_scheduler.ConstantLR"
