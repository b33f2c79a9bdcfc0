"""The types of the top-level keys, and the settings that Hydra needs before it composes."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from cifar_lab.config import naming, parser, precedence, weights
from cifar_lab.data import own


@dataclass
class Schema:
    """Types of the top-level keys; `conf/train.yaml` has their defaults and descriptions."""

    name: str = MISSING
    seed: int = MISSING
    weights: str | None = MISSING
    weights_digest: str | None = MISSING
    freeze: list[str] = MISSING
    epochs: int | float = MISSING
    batch_size: int = MISSING
    bn: bool = MISSING
    l1: float = MISSING
    grad_clip: float | None = MISSING
    compile: bool = MISSING
    cuda_graphs: bool = MISSING
    tta: str = MISSING
    tta_below: float = MISSING
    activation: Any = MISSING
    model: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    data: Any = MISSING
    augment: Any = MISSING
    protocol: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    averaging: Any = MISSING
    probe: Any = MISSING
    callbacks: Any = MISSING
    tags: list[str] = MISSING
    allow: list[str] = MISSING
    resume: str | None = MISSING
    retrain: bool = MISSING
    retry_failed: bool = MISSING
    retry_diverged: bool = MISSING
    jobs_per_device: int = MISSING
    published: float | None = MISSING
    debug: Any = None


def register() -> None:
    """Register the schema and the resolvers of `conf/train.yaml` with Hydra. May be called repeatedly."""
    precedence.install()
    parser.install()
    ConfigStore.instance().store(name="schema", node=Schema)
    OmegaConf.register_new_resolver("default_name", naming.default_name, replace=True)
    OmegaConf.register_new_resolver("run_folder", naming.run_folder, replace=True)
    OmegaConf.register_new_resolver("digest", own.digest, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("weights_digest", weights.digest, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("num_classes", naming.num_classes, replace=True)


def conf_folder() -> Path:
    """Return the folder of the option files: inside an installed package, or next to the package in a checkout.

    Raises:
        FileNotFoundError: The installation has no such folder.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"no conf/train.yaml in or next to {package}; install the package again")


@cache
def settings_of(group: str, target: str) -> frozenset[str]:
    """Return the keys of the project's own option for a target; empty if there is none."""
    for path in sorted((conf_folder() / group).glob("*.yaml")):
        option = OmegaConf.load(path)
        if isinstance(option, DictConfig) and option.get("_target_") == target:
            return frozenset(_keys(path))
    return frozenset()


def _keys(path: Path) -> set[str]:
    """Return the keys of an option file and of the options that it builds on."""
    option = OmegaConf.load(path)
    assert isinstance(option, DictConfig)
    keys = {str(key) for key in option} - {"defaults"}
    for parent in option.get("defaults", ()):
        if isinstance(parent, str) and parent != "_self_":
            keys |= _keys(path.parent / f"{parent}.yaml")
    return keys
