"""Fingerprints of runs: hashes of the settings that can change their numbers."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from cifar_lab import current
from cifar_lab.runs.sizes import train_available

# Settings that cannot change a run's numbers: paths and display. `None` excludes the whole option.
_NOT_HASHED: dict[str, set[str] | None] = {
    **dict.fromkeys(("name", "logger", "tags", "allow", "published", "resume"), None),
    **dict.fromkeys(("retrain", "retry_failed", "retry_diverged", "jobs_per_device"), None),
    "callbacks": {"checkpoint", "snapshots"},
    "data": {"download", "sources"},
    "trainer": {"strategy", "enable_progress_bar", "detect_anomaly", "profiler"},
}
# Hardware settings, with the value that leaves the choice to the hardware. The choice is recorded; other values are
# hashed.
HARDWARE: dict[str, Any] = {
    "compile": False,
    "cuda_graphs": False,
    "optimizer.foreach": None,
    "optimizer.fused": None,
    "trainer.accelerator": "auto",
    "trainer.devices": 1,
    "trainer.num_nodes": 1,
    "trainer.precision": "auto",
    "trainer.memory_format": "auto",
    "trainer.deterministic": "auto",
    "trainer.benchmark": None,
}
_PRECISIONS = {16: "16-mixed", 32: "32-true", 64: "64-true"}
# Limits on a run's length, like `epochs`, with the value that is hashed instead.
LIMITS: dict[str, Any] = {"trainer.max_time": None, "callbacks.early_stopping.patience": 10.0}
# Settings that are newer than finished runs, with the value that gives the same run as without the setting.
_OFF = (
    *("augment.reflect", "data.augment.reflect", "data.drop_last", "averaging.warmup", "optimizer.decay_by_rate"),
    *("model.blur_pool", "model.preactivation"),
)
NEUTRAL: dict[str, Any] = {
    "tta": "none",  # changes no weights, only recorded numbers, like a probe
    "tta_below": 1.0,
    **dict.fromkeys(("debug", "weights", "weights_digest", "model.stem"), None),
    "freeze": [],
    "model.shortcut": "projection",
    "model.block_dropout": 0.0,
    **dict.fromkeys(_OFF, False),
    **{f"optimizer.relative_lr.{kind}": 1.0 for kind in ("norms", "biases", "head")},
    "optimizer.relative_lr": {},
    **dict.fromkeys(("augment.cutout", "data.augment.cutout"), 0),
    "data.skip_easy": 0.0,
    "data.imbalance": 1.0,
    "data.label_noise": 0.0,
    "data.test_set": "cifar10",
    "optimizer.decay_norms": True,
}
# Paths whose content is hashed in their place, with the key of its digest.
_DIGESTS = {"data.path": "data.digest", "weights": "weights_digest"}
# Names of moved components in fingerprints: those under which finished runs were trained.
_HASHED_NAMES = {
    "cifar_lab.train.callbacks.averaging.EMA": "lightning.pytorch.callbacks.EMAWeightAveraging",
    "cifar_lab.train.callbacks.averaging.SWA": "cifar_lab.callbacks.averaging.SWA",
    "cifar_lab.landscape.probe.GradientProbe": "cifar_lab.callbacks.probe.GradientProbe",
}


def settings(config: Mapping[str, Any], *, with_hardware: bool = True) -> dict[str, Any]:
    """Return the settings of a resolved configuration that can change numbers, in canonical form.

    Args:
        config: The configuration, plain values.
        with_hardware: Keep explicit values of `HARDWARE`, which make a different run.
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        left_out = _NOT_HASHED.get(key, set())
        if left_out is not None:
            is_group = isinstance(value, dict)
            kept[key] = {name: each for name, each in value.items() if name not in left_out} if is_group else value
    _leave_to_hardware(kept, with_hardware)
    for key, hashed in LIMITS.items():
        if value_of(kept, key) is not None:
            kept = with_value(kept, key, hashed)
    data = kept.get("data") or {}
    if data.pop("verify", True):  # the published images, in any folder
        data.pop("root", None)
    for key in _contents(kept):  # the same content, in any folder
        kept = _without(kept, key)
    data = kept.get("data") or {}
    if data.get("train_size") is not None and data["train_size"] == train_available(data):
        data["train_size"] = None
    _neutralise(kept, data)
    # null and 0 both disable clipping, and 1 and 1.0 are the same number.
    kept["grad_clip"] = kept.get("grad_clip") or 0
    # A probe changes only recorded numbers; without one, a run is the same as before probes existed.
    if not kept.get("probe"):
        kept.pop("probe", None)
    for key, neutral in NEUTRAL.items():
        if value_of(kept, key) == neutral:
            kept = _without(kept, key)
    return _canonical(kept)


def _neutralise(kept: dict[str, Any], data: dict[str, Any]) -> None:
    """Reset settings that have no effect, given the others, so that equivalent configurations are one run."""
    draws = data.get("train_size") is not None or data.get("imbalance", 1) != 1 or data.get("label_noise")
    if not data.get("val_fraction") and not draws and "split_seed" in data:
        data["split_seed"] = 0
    for limit in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        share = value_of(kept, f"trainer.{limit}")
        if isinstance(share, float) and share >= 1:
            kept["trainer"][limit] = None
    is_constant = value_of(kept, "scheduler._target_") == "torch.optim.lr_scheduler.ConstantLR"
    if is_constant and value_of(kept, "scheduler.factor") == 1:
        kept["scheduler"] |= {"total_iters": 0, "lightning": {"interval": "epoch", "frequency": 1}}
    elif value_of(kept, "scheduler.cycle_momentum") is False:
        kept["scheduler"] |= {"base_momentum": 0.85, "max_momentum": 0.95}
    if kept.get("freeze"):
        kept["freeze"] = sorted(set(kept["freeze"]))
    if value_of(kept, "optimizer.momentum") == 0 and value_of(kept, "optimizer.dampening"):
        kept["optimizer"]["dampening"] = 0.0


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, or None."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def with_limits(config: dict[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the `LIMITS` of the configuration `limits`, where both have them."""
    for key in LIMITS:
        group = key.rpartition(".")[0]
        if isinstance(value_of(config, group), dict) and isinstance(value_of(limits, group), dict):
            config = with_value(config, key, value_of(limits, key))
    return config


def unhashed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the fingerprint leaves out or hashes by content: `LIMITS` and paths."""
    keys = (*LIMITS, *_contents(config))
    return {key: _canonical(value) for key in keys if (value := value_of(config, key)) is not None}


def _contents(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of paths whose content has a digest."""
    return [key for key, digest_key in _DIGESTS.items() if value_of(config, digest_key)]


def is_looser(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Return whether a run may take longer by the configuration `now` than by `before`."""
    times = [value_of(config, "trainer.max_time") for config in (now, before)]
    patience = [value_of(config, "callbacks.early_stopping.patience") or 0 for config in (now, before)]
    has_more_time = times[1] is not None and (times[0] is None or _seconds(times[0]) > _seconds(times[1]))
    return has_more_time or patience[0] > patience[1]


def _seconds(text: str) -> int:
    days, hours, minutes, seconds = map(int, text.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def with_value(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a copy with a new value for a dotted key."""
    first, _, rest = key.partition(".")
    return {**config, first: with_value(config[first], rest, value) if rest else value}


def _without(config: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a copy without a dotted key, which may be missing."""
    first, _, rest = key.partition(".")
    if rest:
        return {**config, first: _without(config[first], rest)} if isinstance(config.get(first), dict) else config
    return {name: value for name, value in config.items() if name != first}


def _leave_to_hardware(kept: dict[str, Any], with_typed: bool) -> None:
    """Remove the settings of `HARDWARE` that are left to the hardware, or all of them."""
    for key, left in HARDWARE.items():
        group, _, name = key.rpartition(".")
        option = (kept.get(group) or {}) if group else kept
        if name == "devices" and name in option:
            option[name] = _device_count(option[name])
        if name == "precision" and name in option:
            option[name] = _PRECISIONS.get(option[name], option[name])
        if name in option and (option[name] == left or not with_typed):
            del option[name]


def _device_count(devices: Any) -> int:
    """Return the requested number of devices; 1 for all devices, because their number is recorded."""
    if isinstance(devices, list):
        return len(devices)
    return max(1, int(devices)) if isinstance(devices, int) or str(devices).isdecimal() else 1


def recorded(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of `HARDWARE` that were chosen for a finished run, as far as its result has them."""
    device, used = str(result.get("hardware", {}).get("device")), str(result.get("optimizer_implementation"))
    return {
        "trainer.accelerator": {"cuda": "gpu"}.get(device, device),
        "trainer.precision": result.get("precision"),
        "trainer.memory_format": str(result.get("memory_format")).removesuffix("_format"),
        "trainer.devices": result.get("world_size"),
        "optimizer.foreach": {"foreach": True, "for_loop": False}.get(used),
        "optimizer.fused": {"fused": True, "for_loop": False}.get(used),
    }


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits, equal for two resolved configurations that give the same numbers."""
    return digest(settings(config))


def digest(settings: Mapping[str, Any]) -> str:
    """Return the fingerprint of a configuration with these `settings`."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, with_hardware: bool = True
) -> dict[str, tuple[Any, Any]]:
    """Return the settings that can change numbers and differ between two configurations, by dotted key.

    Args:
        before: The first configuration.
        now: The second configuration.
        with_hardware: See `settings`.

    Returns:
        The values in both configurations; None if one has no value.
    """
    old, new = (dict(leaves(settings(config, with_hardware=with_hardware))) for config in (before, now))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return {key: (old.get(key), new.get(key)) for key in changed}


def leaves(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its dotted key; lists and empty mappings are values."""
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
