"""Begin a lab of one's own: `cifar-lab init my_lab`."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.command import run_command

_TEMPLATE = Path(__file__).parent / "template"


def init(folder: Annotated[Path, typer.Argument(help="The folder, which is new or empty.")]) -> None:
    """Write a folder for components of your own: a loss, a network, their options and a test."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} {'is not empty' if folder.is_dir() else 'is a file'}; name a new folder")
    shutil.copytree(_TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    print(f"{folder} is written; cd {folder} && cifar-lab train loss=mine model=mine data=synthetic epochs=2")


def main() -> None:
    """The command line."""
    run_command(init)
