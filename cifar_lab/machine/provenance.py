"""Versions and source code behind a result."""

import hashlib
import platform
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cifar_lab

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and the packages on which its numbers depend."""
    packages = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "cifar_lab": cifar_lab.__version__, **packages}


@cache
def git_revision() -> str | None:
    """Return the commit of the source checkout, with `-dirty` if tracked files differ; None outside a checkout.

    Cached at the first call, because files edited during training are not the code that runs.
    """
    folder = Path(cifar_lab.__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return None
    try:
        revision = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{revision}-dirty" if changes else revision


def sources(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Return a digest of the Python source of each external package in a composition; None if it is not found."""
    used = dict.fromkeys(re.findall(r"'_target_': '(\w+)\.", str(config)))
    return {package: _digest(package) for package in used if package not in ("cifar_lab", "torch", "lightning")}


def _digest(package: str) -> str | None:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    folders = spec.submodule_search_locations
    files = (
        sorted(file for folder in folders for file in Path(folder).rglob("*.py")) if folders else [Path(spec.origin)]
    )
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()
