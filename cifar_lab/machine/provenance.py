"""Versions and source behind a result."""

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import cifar_lab

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the packages on which its numbers depend."""
    packages = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "cifar_lab": cifar_lab.__version__, **packages}


@cache
def git_revision() -> str | None:
    """The commit of the source checkout, with `-dirty` if files differ from it; None outside a checkout.

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


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
