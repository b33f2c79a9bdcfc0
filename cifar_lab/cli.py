"""The console script `cifar-lab`: each subcommand equals `python -m cifar_lab.<name>`.

A subcommand is imported when it is called, so `--help` and `--version` do not import Hydra or torch.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from cifar_lab import __version__
from cifar_lab.terminal.command import application, run

# Help text by subcommand, which runs `main()` of the module `cifar_lab.<name>` or of the one in `_MODULES`.
COMMANDS = {
    "train": "Train one composition, or a sweep, configured by Hydra.",
    "search": "Search for the best settings with Optuna.",
    "table": "Compare the runs of a sweep, or any other runs.",
    "compare": "Test whether compositions or networks differ.",
    "reproduce": "Run every row of the published report.",
    "report": "Write a page that compares runs with the published rows.",
    "evaluate": "Evaluate trained networks: accuracy, calibration, mistakes.",
    "predict": "Classify images with a trained network.",
    "explain": "Draw Grad-CAM maps, filters and dead units of a network.",
    "export": "Export a trained network, with a model card.",
    "landscape": "Measure the geometry of the loss around runs.",
    "benchmark": "Compare the speed of a hand-written loop and this package.",
    "status": "List runs and sweeps with their progress.",
    "init": "Create a folder for your own components.",
}
_MODULES = {"init": "config.lab.init"}

app = application()


def main() -> None:
    """Run the subcommand named on the command line; exit with 2 if there is none."""
    if not sys.flags.safe_path:
        sys.path.append(os.getcwd())  # last, so that components in the current folder shadow no module
    if sys.argv[1:2] in (["-sc"], ["--shell-completion"]):
        _complete()
    else:
        run(app, "cifar-lab")


def _complete() -> None:
    """Print shell completions: the subcommands, and Hydra's own after `train`."""
    line = os.environ.get("COMP_LINE", "")
    words = line.split()[1:] + [""] * line.endswith(" ")
    if len(words) == 1:
        print("\n".join(name for name in COMMANDS if name.startswith(words[0])))
    elif not words or words[0] == "train":
        _call("train")


def _call(name: str) -> None:
    importlib.import_module(f"cifar_lab.{_MODULES.get(name, name)}").main()


def _subcommand(name: str) -> Callable[[], None]:
    def command() -> None:
        # The arguments bypass typer, because flags, including `--help`, belong to the subcommand or to Hydra.
        sys.argv.remove(name)
        _call(name)

    return command


for _name, _help in COMMANDS.items():
    app.command(
        _name,
        help=_help,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_subcommand(_name))


@app.callback(invoke_without_command=True)
def _cifar_lab(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Compose, train and compare ablations on CIFAR-10."""
    if version:
        print(f"cifar-lab {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.TyperException(f"no subcommand; there are {', '.join(COMMANDS)}")
