"""What makes two runs the same: the settings that can change their numbers."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from cifar_lab import current

# What cannot change a run's numbers, or is recorded instead of hashed: where things are, how they are shown, and on
# what they run. `None` leaves out the whole option.
_NOT_HASHED: dict[str, set[str] | None] = {
    **dict.fromkeys(("name", "logger", "allow", "published", "compile", "cuda_graphs", "resume"), None),
    **dict.fromkeys(("retry_failed", "retry_diverged", "jobs_per_device"), None),
    "callbacks": {"checkpoint", "snapshots"},
    "data": {"root", "verify", "download", "sources"},
    "optimizer": {"foreach", "fused"},
    "trainer": {"accelerator", "devices", "strategy", "num_nodes", "precision", "memory_format"}
    | {"enable_progress_bar", "deterministic", "benchmark", "detect_anomaly", "profiler"},
}
# What components that have moved are called in fingerprints: as when runs were trained with them that are finished.
_HASHED_NAMES = {
    "cifar_lab.train.callbacks.averaging.EMA": "lightning.pytorch.callbacks.EMAWeightAveraging",
    "cifar_lab.train.callbacks.averaging.SWA": "cifar_lab.callbacks.averaging.SWA",
    "cifar_lab.landscape.probe.GradientProbe": "cifar_lab.callbacks.probe.GradientProbe",
}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration, plain values, that can change numbers; equal numbers are made the same."""
    kept: dict[str, Any] = {}
    for key, value in config.items():
        left_out = _NOT_HASHED.get(key, set())
        if left_out is not None:
            is_group = isinstance(value, dict)
            kept[key] = {name: each for name, each in value.items() if name not in left_out} if is_group else value
    # Over several processes it makes the statistics of one; alone it does nothing.
    if kept.get("trainer", {}).get("sync_batchnorm"):
        kept["trainer"]["sync_batchnorm"] = False
    # null and 0 both switch clipping off, and 1 and 1.0 are one number.
    kept["grad_clip"] = kept.get("grad_clip") or 0
    # It changes no number either, but what is recorded; without one a run is what it was before there were probes.
    if not kept.get("probe"):
        kept.pop("probe", None)
    # Without warm-up an average is what it was before there was one.
    if kept.get("averaging", {}).get("warmup") is False:
        del kept["averaging"]["warmup"]
    return _canonical(kept)


def fingerprint(config: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that two resolved configurations share if nothing that changes numbers differs."""
    return digest(settings(config))


def digest(settings: Mapping[str, Any]) -> str:
    """The fingerprint of a configuration of which `settings` is the part that can change numbers."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def leaves(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its dotted key; lists are values, empty mappings too."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(element) for key, element in value.items()}
    if isinstance(value, list):
        return [_canonical(element) for element in value]
    if isinstance(value, str):
        return _HASHED_NAMES.get(current(value), value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
