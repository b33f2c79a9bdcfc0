"""The console script `cifar-lab`: each subcommand is the same as `python -m cifar_lab.<name>`.

Subcommands are imported when called, so that help and version do not wait for Hydra or torch.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from cifar_lab import __version__
from cifar_lab.terminal.command import application, run

# The module `cifar_lab.<name>`, or that of `_MODULES`, whose `main()` reads the command line, and its line in the help.
COMMANDS = {
    "train": "Train a composition, or each of a sweep; by Hydra.",
    "search": "Search for the best settings, by Optuna.",
    "table": "Compare the runs of a sweep, or any runs.",
    "compare": "Test whether compositions, or two networks, differ.",
    "reproduce": "Run every row of the published report.",
    "report": "Compare runs with the published report, as a page.",
    "evaluate": "Measure trained networks: accuracy, calibration, mistakes.",
    "predict": "Classify images with a trained network.",
    "explain": "Draw Grad-CAM maps, filters and dead units of a network.",
    "export": "Write a trained network as files for use elsewhere.",
    "landscape": "Look at the geometry of the loss around runs.",
    "benchmark": "Time training by hand and by this package, side by side.",
    "status": "List runs and sweeps, and how far they are.",
    "init": "Begin a folder for components of your own.",
}
_MODULES = {"init": "config.lab.init"}

app = application()


def main() -> None:
    """Run the subcommand that the command line names; exits with 2 if it names none."""
    if not sys.flags.safe_path:
        sys.path.append(os.getcwd())  # components in the current folder are found, and replace no module
    if sys.argv[1:2] in (["-sc"], ["--shell-completion"]):
        _complete()
    else:
        run(app, "cifar-lab")


def _complete() -> None:
    """Print completions for the shell: names of subcommands, and after `train` Hydra's."""
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
        # The arguments bypass typer: flags, `--help` included, are the subcommand's or Hydra's.
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
