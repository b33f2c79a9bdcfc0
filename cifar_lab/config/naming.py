"""What runs and sweeps are called, and what makes two runs the same."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

# What cannot change a run's numbers, or is recorded instead of hashed: where things are, how they are shown, and on
# what they run. `None` leaves out the whole option.
_NOT_HASHED: dict[str, set[str] | None] = {
    "name": None,
    "logger": None,
    "allow": None,
    "published": None,
    "data": {"root", "verify", "download", "sources"},
    "optimizer": {"foreach", "fused"},
    "trainer": {
        "accelerator",
        "devices",
        "strategy",
        "num_nodes",
        "precision",
        "memory_format",
        "enable_progress_bar",
        "deterministic",
        "benchmark",
        "detect_anomaly",
        "profiler",
    },
}
_MAX_FOLDER_NAME = 100


def default_name(*, _root_: DictConfig) -> str:
    """The name of a run that was not given one: its experiment's, else its model's."""
    # Hydra takes its own node out of the configuration that a job gets, and keeps it here.
    own = _root_.hydra if "hydra" in _root_ else HydraConfig.get()
    choices = own.runtime.choices
    return str(choices.get("experiment") or choices["model"])


def sweep_name(overrides: Iterable[Override]) -> str | None:
    """The axes that vary, joined by hyphens; None where nothing does."""
    axes = [override.get_key_element().lstrip("+") for override in overrides if override.is_sweep_override()]
    return "-".join(axes) or None


def fingerprint(config: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that two resolved configurations share if nothing that changes numbers differs.

    Args:
        config: The resolved configuration, plain values by name.
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        left_out = _NOT_HASHED.get(key, set())
        if left_out is not None:
            kept[key] = _without(value, left_out) if isinstance(value, Mapping) else value
    # null and 0 both switch clipping off, and 1 and 1.0 are one number.
    kept["grad_clip"] = kept.get("grad_clip") or 0
    kept = _canonical(kept)
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def run_folder(fingerprinted: bool, *, _root_: DictConfig) -> str:
    """A run's folder: what its command line set, short and safe as a file name.

    What all jobs of a sweep have in common is left out, by Hydra's `hydra.job.config.override_dirname.exclude_keys`.

    Args:
        fingerprinted: Add the fingerprint, so that the same command finds the same folder and another one does not.
    """
    lines = [str(line).lstrip("+") for line in _root_.hydra.overrides.task]
    common = {"name", *_root_.hydra.job.config.override_dirname.exclude_keys}
    choices = ",".join(line for line in lines if line.partition("=")[0] not in common) or "default"
    bare = re.sub(r"[\[\]{}'\"]", "", choices)
    readable = re.sub(r"[^A-Za-z0-9=.,_-]+", "-", bare).strip("-,")
    if len(readable) > _MAX_FOLDER_NAME:
        readable = f"{readable[:_MAX_FOLDER_NAME]}-{hashlib.sha256(choices.encode()).hexdigest()[:8]}"
    if not fingerprinted:
        return readable
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    return f"{readable}-{fingerprint(resolved(config))[:8]}"


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration in plain values, every interpolation replaced by what it stands for."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def class_names(config: Mapping[str, Any]) -> dict[str, str]:
    """The class behind `activation`, `loss`, `optimizer` and `scheduler`, without its module."""
    return {
        group: config[group]["_target_"].rpartition(".")[2]
        for group in ("activation", "loss", "optimizer", "scheduler")
    }


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _canonical(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_canonical(element) for element in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _without(option: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in option.items() if key not in keys}
