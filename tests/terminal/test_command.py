import sys
from collections.abc import Callable
from typing import Annotated

import pytest
import typer

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.command import run_command, run_commands
from tests.conftest import names

Ended = tuple[object, str, str]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a function, or several as subcommands, on a command line; return the exit code, stdout and stderr."""

    def run(functions: object, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["cifar-lab", *arguments])
        with pytest.raises(SystemExit) as end:
            run_commands("numbers", functions, "Numbers.") if isinstance(functions, list) else run_command(functions)
        return end.value.code, *capsys.readouterr()

    return run


def halve(number: Annotated[int, typer.Argument(help="Even.")], shout: bool = False) -> int | None:
    """Halves."""
    if number % 2:
        raise UsageError(f"number={number}:\n odd")
    print(f"{number // 2}{'!' * shout}")
    return 3 if number == 6 else None


def stop() -> None:
    """Stop as Ctrl-C does."""
    raise KeyboardInterrupt


def broken() -> None:
    raise ValueError("ours")


def test_annotations_define_the_command_line_and_a_returned_integer_is_the_exit_code(
    run_cli: Callable[..., Ended],
) -> None:
    assert run_cli(halve, "--shout", "4") == (0, "2!\n", "")
    assert run_cli(halve, "6") == (3, "3\n", "")
    code, page, _ = run_cli(halve, "--help")
    assert code == 0
    assert all(fact in page for fact in ("cifar-lab halve", "Halves.", "Even."))


@pytest.mark.parametrize(
    ("functions", "arguments", "facts"),
    [
        (halve, ["5"], ["number=5: odd"]),
        (halve, [], ["'number'"]),
        (halve, ["4", "--louder"], ["--louder"]),
        ([halve, stop], ["halve", "5"], ["number=5: odd"]),
        ([halve, stop], [], []),
    ],
)
def test_a_users_mistake_gives_one_line_and_exit_code_2(
    run_cli: Callable[..., Ended], functions: object, arguments: list[str], facts: list[str]
) -> None:
    code, _, error = run_cli(functions, *arguments)
    assert code == 2
    names(error, *facts)


def test_a_bug_gives_a_traceback_and_exit_code_1(run_cli: Callable[..., Ended]) -> None:
    code, _, error = run_cli(broken)
    *lines, last = error.splitlines()
    assert (code, lines[0].startswith("Traceback"), "ValueError" in lines[-1]) == (1, True, True)
    names(last, "CONTRIBUTING.md")


def test_several_functions_are_subcommands_and_ctrl_c_gives_a_line_and_exit_code_130(
    run_cli: Callable[..., Ended],
) -> None:
    assert run_cli([halve, stop], "halve", "6")[0] == 3
    for code, _, error in (run_cli(stop), run_cli([halve, stop], "stop")):
        assert (code, error.count("\n")) == (130, 1)
