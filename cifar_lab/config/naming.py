"""Names of runs and sweeps, and conversion of a composed configuration to plain values."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cifar_lab.data import lookup
from cifar_lab.runs.fingerprints import fingerprint, leaves, value_of

_MAX_FOLDER_NAME = 100
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def default_name(*, _root_: DictConfig) -> str:
    """Return the default name of a run: its study or search and its experiment, or else its model."""
    # `--cfg job --resolve` removes the `hydra` node first.
    choices = (_root_.hydra if "hydra" in _root_ else HydraConfig.get()).runtime.choices
    whole = [f"{group}-{choices[group]}" for group in ("study", "search") if choices.get(group)][:1]
    return "-".join([*whole, *filter(None, [choices.get("experiment")])]) or str(choices["model"])


def short(words: str, longest: int = _MAX_FOLDER_NAME) -> str:
    """Shorten text to a safe file name; a hash replaces the part that is cut off."""
    bare = re.sub(r"[\[\]{}'\"]", "", words)
    readable = re.sub(r"[^A-Za-z0-9=.,_+-]+", "-", bare).strip("-,")
    if len(readable) > longest:
        readable = f"{readable[:longest]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    return readable


def key_of(line: str) -> str:
    """Return the key of an override: `optimizer.lr` for `+optimizer.lr=1e-3`."""
    return line.lstrip("+~").partition("=")[0]


def own_lines(lines: Iterable[str]) -> list[str]:
    """Return a job's command line without Hydra's own overrides."""
    return [line for line in lines if not line.lstrip("+~").startswith("hydra")]


def run_folder(fingerprinted: bool, *, _root_: DictConfig) -> str:
    """Return the name of a run's folder: its overrides, shortened to a safe file name.

    Overrides that all jobs of a sweep share are excluded by `hydra.job.config.override_dirname.exclude_keys`.

    Args:
        fingerprinted: Append the fingerprint, so that only the same command finds the same folder.
    """
    lines = [str(line).lstrip("+") for line in _root_.hydra.overrides.task]
    common = {"name", "tags", "resume", "retrain", "retry_failed", "retry_diverged", "jobs_per_device"}
    common |= set(_root_.hydra.job.config.override_dirname.exclude_keys)
    choices = ",".join(line for line in lines if line.partition("=")[0] not in common) or "default"
    readable = short(choices)
    return f"{readable}-{fingerprint(plain(_root_))[:8]}" if fingerprinted else readable


def num_classes(*, _root_: DictConfig) -> int:
    """Return the number of classes of the chosen data."""
    return lookup.num_classes(_root_.data)


def resolved(config: DictConfig) -> dict[str, Any]:
    """Return the configuration in plain values, with every interpolation resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the composition without the `hydra` node, in plain values; a missing name becomes `unnamed`."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key not in ("hydra", "defaults")])
    name = OmegaConf.to_container(OmegaConf.masked_copy(own, ["name"]), resolve=False)
    if OmegaConf.is_missing(own, "name") or "default_name" in str(name):
        own.name = "unnamed"
    return resolved(own)


def with_references(config: DictConfig, values: dict[str, Any]) -> dict[str, Any]:
    """Return `values`, the composition by `plain`, with references to other keys restored, such as `${epochs}`."""

    def referring(source: Any, value: Any) -> Any:
        if isinstance(source, dict):
            return {key: referring(source[key], inner) for key, inner in value.items()}
        return source if isinstance(source, str) and _REFERENCE.fullmatch(source) else value

    sources = OmegaConf.to_container(config, resolve=False)
    assert isinstance(sources, dict)
    return {key: referring(sources[key], value) for key, value in values.items()}


def without_references(config: dict[str, Any]) -> dict[str, Any]:
    """Resolve the references that `with_references` restored."""

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: resolved(value) for key, value in node.items()}
        reference = _REFERENCE.fullmatch(node) if isinstance(node, str) else None
        return resolved(value_of(config, reference[1])) if reference else node

    return {key: resolved(value) for key, value in config.items()}


def interpolations(config: DictConfig) -> dict[str, str]:
    """Return the interpolations by dotted key, such as `${epochs}` for `scheduler.T_max`.

    A list is included, as text, if it contains an environment variable.
    """
    container = OmegaConf.to_container(config, resolve=False)
    assert isinstance(container, dict)
    references = {key: value for key, value in leaves(container) if isinstance(value, str) and "${" in value}
    listed = {key: str(value) for key, value in leaves(container) if isinstance(value, list)}
    return {**references, **{key: text for key, text in listed.items() if "oc.env" in text}}


def class_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the class names, without modules, of `activation`, `loss`, `optimizer` and `scheduler`."""
    groups = ("activation", "loss", "optimizer", "scheduler")
    return {group: config[group]["_target_"].rpartition(".")[2] for group in groups}
