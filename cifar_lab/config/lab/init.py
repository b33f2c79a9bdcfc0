"""Create a lab: `cifar-lab init my_lab`."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.command import run_command

_TEMPLATE = Path(__file__).parent / "template"


def init(folder: Annotated[Path, typer.Argument(help="A new or empty folder.")]) -> None:
    """Create a folder for your own components: a loss, a network, their option files and a test."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} {'is not empty' if folder.is_dir() else 'is a file'}; name a new folder")
    shutil.copytree(_TEMPLATE, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    print(f"created {folder}; cd {folder} && cifar-lab train loss=mine model=mine data=synthetic epochs=2")


def main() -> None:
    """Run the command line."""
    run_command(init)
