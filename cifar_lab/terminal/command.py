"""Ordinary command lines: a function's annotations are the arguments, a mistake is one line on stderr."""

import functools
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import typer

from cifar_lab.machine import exit_codes
from cifar_lab.terminal.faults import report_fault


def application() -> typer.Typer:
    """An empty application in the project's manner: plain text, and no completion beside Hydra's."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_command(function: Callable[..., object]) -> NoReturn:
    """Run one function as the subcommand of its name; an integer that it returns is the exit code.

    Args:
        function: Its annotations say what the command line takes, its docstring's first lines are the help.

    Raises:
        SystemExit: Always; 2 where typer or, by a `ValueError` or an `OSError`, the function refuses what was asked
            for.
    """
    app = application()
    app.command()(_refusing(function))
    gc.disable()  # what thousands of runs hold has no cycles, and to look for some takes nearly as long as to read it
    try:
        run(app, f"cifar-lab {function.__name__}")
    finally:
        gc.enable()


def run_commands(name: str, functions: Sequence[Callable[..., object]], text: str) -> NoReturn:
    """Run one of several functions, each the subcommand of its name; otherwise as `run_command` does.

    Ctrl-C ends it with 130, in a line that says that the same command goes on.

    Args:
        name: What they are subcommands of.
        functions: As for `run_command`.
        text: The help's first line.

    Raises:
        SystemExit: Always.
    """
    app = application()
    app.callback(help=text)(lambda: None)
    for function in functions:
        app.command()(_refusing(_going_on(function)))
    run(app, f"cifar-lab {name}")


def _going_on(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def command(*arguments: object, **options: object) -> object:
        try:
            return function(*arguments, **options)
        except KeyboardInterrupt:  # here, as typer makes another exception of it
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return exit_codes.interrupted(signal.SIGINT)

    return command


def _refusing(function: Callable[..., object]) -> Callable[..., object]:
    """The function, whose `ValueError` and `OSError` are mistakes of the command line."""

    @functools.wraps(function)
    def command(*arguments: object, **options: object) -> object:
        try:
            result = function(*arguments, **options)
            sys.stdout.flush()  # what is still buffered finds a closed pipe here, not as the process ends
            return result
        except BrokenPipeError:  # whoever reads, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:  # here, as typer makes another exception of it
            print("interrupted", file=sys.stderr)
            return exit_codes.interrupted(signal.SIGINT)
        except (ValueError, OSError) as error:
            raise typer.TyperException(str(error)) from error

    return command


def run(app: typer.Typer, name: str) -> NoReturn:
    """Run an application on the process's command line, under a name that its help shows.

    Raises:
        SystemExit: Always, as `run_command` does.
    """
    try:
        code = app(prog_name=name, standalone_mode=False)
    except typer.TyperException as error:
        print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(exit_codes.USAGE)
    except Exception:
        sys.exit(report_fault())
    sys.exit(code if isinstance(code, int) else 0)
