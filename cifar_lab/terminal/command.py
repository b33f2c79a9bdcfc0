"""Command lines from annotated functions. A user's error is one line on stderr."""

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
from cifar_lab.terminal.process import printing, show_nothing


def application() -> typer.Typer:
    """Return an empty application with plain-text help, and without typer's completion."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_command(
    function: Callable[..., object], *, loses: tuple[type[Exception], ...] = (BrokenPipeError,)
) -> NoReturn:
    """Run a function as the subcommand of its name; an integer that it returns is the exit code.

    Its annotations declare the arguments, and the first lines of its docstring are the help.

    Args:
        function: The command.
        loses: Errors of standard output to ignore: all of them if the function trains, a closed pipe if it writes
            files. A closed pipe ends a command that only prints, with code 0.

    Raises:
        SystemExit: Always. 2: typer refuses the command line, or the function raises a `UsageError` or an `OSError`;
            1: any other exception, which is a bug, with its traceback.
    """
    app = application()
    app.command()(printing(loses=loses)(_refusing(function)))
    gc.disable()  # runs have no cycles, and for thousands of them collection takes nearly as long as reading
    try:
        run(app, f"cifar-lab {function.__name__}")
    finally:
        gc.enable()


def run_commands(name: str, functions: Sequence[Callable[..., object]], text: str) -> NoReturn:
    """Like `run_command`, for several functions, each a subcommand of `name`, whose help begins with `text`.

    Ctrl-C exits with 130 and prints that the same command continues. Errors of standard output are ignored, because
    these commands run for a long time.

    Raises:
        SystemExit: Always.
    """
    app = application()
    app.callback(help=text)(lambda: None)
    for function in functions:
        app.command()(printing()(_refusing(function, "interrupted; the same command continues from here")))
    run(app, f"cifar-lab {name}")


def _refusing(function: Callable[..., object], at_interrupt: str = "interrupted") -> Callable[..., object]:
    """Wrap a function to report its `UsageError` and `OSError` as errors of the command line."""

    @functools.wraps(function)
    def command(*arguments: object, **options: object) -> object:
        try:
            result = function(*arguments, **options)
            sys.stdout.flush()  # notice a closed pipe here, not at the process's end
            return result
        except BrokenPipeError:  # the reader, such as `head`, has exited
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:  # before typer, which turns it into another exception
            print(at_interrupt, file=sys.stderr)
            return exit_codes.interrupted(signal.SIGINT)
        except (exit_codes.UsageError, OSError) as error:
            raise typer.TyperException(str(error)) from error

    return command


@printing(loses=())
def run(app: typer.Typer, name: str) -> NoReturn:
    """Run an application under the name that its help shows; raise `SystemExit` as `run_command` does."""
    show_nothing()
    try:
        code = app(prog_name=name, standalone_mode=False)
    except typer.TyperException as error:
        print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(exit_codes.USAGE)
    except Exception:
        sys.exit(report_fault())
    sys.exit(code if isinstance(code, int) else 0)
