"""Check the values of a composition before anything heavy is imported or built."""

import difflib
import importlib.util
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import WHOLE_LIMIT
from cifar_lab.runs.fingerprints import leaves


class Range(NamedTuple):
    """Numbers that a key accepts, their description, and whether they must be integers."""

    allows: Callable[[float], bool]
    words: str
    whole: bool = False


_COUNT = Range(lambda x: x >= 1, "a whole number of at least 1", whole=True)
_EPOCHS = Range(
    lambda x: x > 0 and (isinstance(x, int) or not x.is_integer()),
    "a whole number of at least 1, or a fraction such as 6.6",
)
_COUNT_OR_NONE = Range(lambda x: x >= 0, "a whole number of at least 0", whole=True)
_SEED = Range(lambda x: 0 <= x < 2**32, "a whole number from 0 to 2**32 - 1", whole=True)
_POSITIVE = Range(lambda x: x > 0, "a number above 0")
_NOT_NEGATIVE = Range(lambda x: x >= 0, "a number of at least 0")
_SHARE = Range(lambda x: 0 <= x <= 1, "a number from 0 to 1")
_SHARE_BELOW_1 = Range(lambda x: 0 <= x < 1, "a number from 0 up to, but not including, 1")
_BATCHES = Range(
    lambda x: x > 0 and (isinstance(x, int) or x <= 1), "a whole number of batches, or a fraction of them up to 1.0"
)

# Ranges by the last part of a key. Lists are checked element by element; other keys accept any finite number.
RANGES: dict[str, Range] = {
    name: limit
    for limit, names in {
        _EPOCHS: "epochs T_max",
        _COUNT: "batch_size filters widths blocks stages hidden stem depth step_size T_0 T_mult "
        "num_train num_test train_size accumulate_grad_batches check_val_every_n_epoch total_steps ns_steps "
        "update_every_n_steps every_n_steps frequency num_nodes jobs_per_device every every_epochs "
        "timeout_min signal_delay_s array_parallelism nodes tasks_per_node gpus_per_node gpus_per_task "
        "cpus_per_task cpus_per_gpu mem_gb batches passes operators",
        _COUNT_OR_NONE: "patience cooldown padding size cutout num_ops total_iters at max_num_timeout max_retries",
        _SEED: "seed split_seed data_seed",
        _BATCHES: "limit_train_batches limit_val_batches limit_test_batches",
        _POSITIVE: "lr max_lr eps std div_factor final_div_factor every_minutes etas relative sgd_lr",
        _NOT_NEGATIVE: "num_cpus num_gpus l1 grad_clip weight_decay alpha gamma negative_slope eta_min min_lr "
        "min_delta threshold norms biases head power warmup_epochs brightness contrast",
        _SHARE: "smoothing pct_start anneal factor final published bn_momentum tta_below",
        _SHARE_BELOW_1: "dropout momentum dampening betas val_fraction test_fraction label_noise skip_easy decay start "
        "base_momentum max_momentum sgd_momentum near block_dropout",
        Range(lambda x: 0 < x <= 1, "a number above 0, at most 1"): "imbalance",
        Range(lambda x: True, "a finite number"): "mean logit_scale",
        Range(lambda x: x >= 2, "a whole number of at least 2", whole=True): "num_classes",
        Range(lambda x: 0 <= x <= 30, "a whole number from 0 to 30", whole=True): "magnitude",
    }.items()
    for name in names.split()
}
# Lists of a fixed length: one value per colour channel, or per moving average of Adam.
_LENGTHS = {"mean": 3, "std": 3, "betas": 2}
# Keys that accept null although their option has a value.
_NULLABLE = ("grad_clip", "every_minutes", "mean", "std", "hidden", "stem")
# Types of keys whose default is null.
_NULL_OR: dict[str, type] = {
    **dict.fromkeys(("download", "foreach", "fused", "benchmark"), bool),
    **dict.fromkeys(("digest", "max_time", "path", "root"), str),
    **dict.fromkeys(("sources", "mean", "std"), list),
}
# Keys of Lightning that accept text or a number: `auto` or 2, `32-true` or 64.
_SEVERAL_KINDS = ("precision", "devices", "deterministic")
WORDS: dict[str, tuple[str | int, ...]] = {
    "labels": ("fine", "coarse"),
    "resize": ("crop", "squash"),
    "test_set": ("cifar10", "cifar10_1"),
    "init": ("default", "xavier", "he", "identity"),
    "shortcut": ("projection", "padding"),
    "tta": ("none", "flip", "flip_translate"),
    "strategy": ("auto", "ddp"),
    "accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "profiler": ("simple", "advanced", "pytorch"),
    "memory_format": ("auto", "channels_last", "contiguous"),
    "mode": ("min", "max"),
    "kind": ("fast", "overfit", "profile"),
    "threshold_mode": ("rel", "abs"),
    "anneal_strategy": ("cos", "linear"),
    "interval": ("epoch", "step"),
    "precision": ("auto", "32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true", 16, 32, 64),
}
# Arguments of Lightning's Trainer that our own keys set.
TWINS = {
    "trainer.max_epochs": "epochs",
    "trainer.gradient_clip_val": "grad_clip",
    "trainer.gradient_clip_algorithm": "grad_clip",
    "trainer.logger": "logger",
    "trainer.callbacks": "callbacks",
    "trainer.default_root_dir": "hydra.run.dir",
}


def check_keys(config: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a key that is not in `known`, the composition without typed values, or is missing."""
    ours, theirs = dict(leaves(config)), dict(leaves(known))
    for key in ours:
        if key not in theirs:
            raise UsageError(unknown_key(key, theirs))
    for key in theirs:
        if key not in ours and not any(other.startswith(f"{key}.") for other in ours):
            raise UsageError(f"{key} cannot be removed; set it to a value instead")


def check_installed(line: str, module: str, distribution: str, extra: str) -> None:
    """Raise `UsageError`, with the command that installs it, if a module that an override needs is missing.

    Args:
        line: The override.
        module: The module's import name.
        distribution: Its name for pip.
        extra: The extra of this project that installs it.
    """
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:  # a mere folder of that name, such as W&B's
        raise UsageError(f"{line} needs {distribution}, which is not installed: pip install 'cifar-lab[{extra}]'")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return `; did you mean NEAREST?`, or an empty string if none of `words` is close."""
    return _hint(difflib.get_close_matches(word, list(words), n=1))


def _hint(nearest: list[str]) -> str:
    return f"; did you mean {nearest[0]}?" if nearest else ""


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return a one-line message about an unknown key, with the nearest known key."""
    known = sorted({part for name in known for part in (name, name.partition(".")[0])})
    if key in TWINS:
        return f"{key} is set by {TWINS[key]}="
    group, _, name = key.rpartition(".")
    siblings = [
        other for other in known if other.rpartition(".")[0] == group and not other.endswith(("_", "lightning"))
    ]
    settable = [other for other in known if not other.endswith("_")]
    nearest = difflib.get_close_matches(key, settable, n=1, cutoff=0.75)
    if not nearest and not group:  # perhaps a setting without its group
        last_names = {other.rpartition(".")[2]: other for other in reversed(known)}
        nearest = [last_names[close] for close in difflib.get_close_matches(name, last_names, n=1, cutoff=0.75)]
    hint = _hint(nearest)
    if group in known:
        names = ", ".join(other.rpartition(".")[2] for other in siblings)
        return f"{key}: {group} has no {name}{hint or (f'; it has {names}' if names else '')}"
    return f"{key} is unknown{hint or '; python -m cifar_lab.train --help lists groups and keys'}"


def check_values(config: Mapping[str, Any], known: Mapping[str, Any], foreign: Collection[str] = ()) -> None:
    """Check the types of all values and the ranges of numbers.

    Args:
        config: The resolved composition.
        known: The composition without typed values, which defines the types.
        foreign: Groups whose component is not from this project; our ranges do not apply to them.

    Raises:
        ValueError: A value is not accepted. The message names the value and the accepted values.
    """
    defaults = dict(leaves(known))
    for key, value in leaves(config):
        if not key.endswith(("_target_", "_partial_")):
            is_ours = key.partition(".")[0] not in foreign
            _check_value(key, value, defaults.get(key), is_ours)


def _check_value(key: str, value: Any, default: Any, is_ours: bool = True) -> None:
    name = key.rpartition(".")[2]
    limit = RANGES.get(name) if is_ours else None
    if value is None and (default is None or name in _NULLABLE):
        return
    default = [] if default is None and _NULL_OR.get(name) is list else default
    if isinstance(default, list):
        if not isinstance(value, list):
            raise UsageError(f"{key}={value}: it takes a list{f' like {default}' if default else ''}")
        if is_ours and len(value) != _LENGTHS.get(name, len(value)):
            raise UsageError(f"{key}={value}: it takes {_LENGTHS[name]} numbers")
        for element in value:
            _check_value(key, element, _element(default, limit), is_ours)
        return
    if default is None and name in _NULL_OR and not isinstance(value, _NULL_OR[name]):
        raise UsageError(f"{key}={value}: it takes {_kind(_NULL_OR[name]())}, or null")
    if limit is not None and not isinstance(value, bool | int | float):
        is_text = isinstance(value, str) and value.strip("+-").replace(".", "", 1).isdecimal()
        hint = "; this is text; ${oc.decode:${oc.env:NAME}} makes it a number" if is_text else ""
        raise UsageError(f"{key}={value}: it takes {limit.words}{hint}")
    if default is not None and name not in _SEVERAL_KINDS and _kind(value) != _kind(default):
        raise UsageError(f"{key}={value}: it takes {limit.words if limit else _kind(default)}")
    if is_ours and name in WORDS and value not in WORDS[name]:
        raise UsageError(f"{key}={value} is unknown; one of {', '.join(map(str, WORDS[name]))}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        whole = limit is not None and limit.whole and not isinstance(value, int)
        if isinstance(value, int) and abs(value) >= WHOLE_LIMIT:
            raise UsageError(f"{key} is a number of {len(str(abs(value)))} digits; it takes less than 2**63")
        if not math.isfinite(value) or whole or (limit is not None and not limit.allows(value)):
            raise UsageError(f"{key}={value}: it takes {limit.words if limit else 'a finite number'}")


def _element(default: list[Any], limit: Range | None) -> Any:
    """Return a typical element of a list: its first, or a number if the list takes numbers."""
    return default[0] if default else None if limit is None else 0


def accepted(key: str, default: Any) -> str:
    """Describe the values that `check_values` accepts for a dotted key with the value `default` in its option."""
    name = key.rpartition(".")[2]
    return f"{_words(name, default)}, or null" if default is None or name in _NULLABLE else _words(name, default)


def _words(name: str, default: Any) -> str:
    if default is None and _NULL_OR.get(name) is list:
        default = []
    if isinstance(default, list) and (default or name in RANGES):
        return f"a list, each {_words(name, _element(default, RANGES.get(name)))}"
    if name in WORDS:
        return ", ".join(map(str, WORDS[name]))
    if name in RANGES:
        return RANGES[name].words
    if name in _SEVERAL_KINDS:
        return "a word, a number, true or false"
    return _kind(_NULL_OR.get(name, str)() if default is None else default)


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a word", list: "a list"}
    return kinds.get(type(value), "null" if value is None else "a group of settings")
