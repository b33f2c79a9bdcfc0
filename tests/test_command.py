import sys
from typing import Annotated

import pytest
import typer

from cifar_lab.command import run_command, run_commands


def _ended(monkeypatch: pytest.MonkeyPatch, function: object, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["cifar-lab", *arguments])
    with pytest.raises(SystemExit) as end:
        run_command(function)
    return end.value.code


def halve(number: Annotated[int, typer.Argument(help="An even number.")], shout: bool = False) -> int | None:
    """Halve a number."""
    if number % 2:
        raise ValueError(f"{number} is odd;\n give an even number")
    print(f"{number // 2}{'!' * shout}")
    return 3 if number == 6 else None


def test_annotations_are_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended(monkeypatch, halve, "--shout", "4") == 0
    assert capsys.readouterr().out == "2!\n"
    assert _ended(monkeypatch, halve, "--help") == 0
    help_page = capsys.readouterr().out
    assert "cifar-lab halve" in help_page
    assert "Halve a number." in help_page
    assert "An even number." in help_page


def test_an_integer_that_the_function_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _ended(monkeypatch, halve, "6") == 3


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["5"], "error: 5 is odd; give an even number\n"),
        ([], "error: Missing argument 'number'.\n"),
        (["4", "--louder"], "error: No such option: --louder\n"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ended(monkeypatch, halve, *arguments) == 2
    assert capsys.readouterr().err == line


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("ours")

    monkeypatch.setattr(sys, "argv", ["cifar-lab"])
    with pytest.raises(KeyError):
        run_command(broken)


def stop(number: int) -> None:
    """Stop as Ctrl-C does."""
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["halve", "6"], 3, ""),
        (["halve", "5"], 2, "error: 5 is odd; give an even number\n"),
        (["stop", "5"], 130, "interrupted; the same command goes on from here\n"),
        ([], 2, "error: Missing command.\n"),
    ],
)
def test_several_functions_are_subcommands(
    arguments: list[str], code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cifar-lab", *arguments])
    with pytest.raises(SystemExit) as end:
        run_commands("numbers", [halve, stop], "Numbers.")
    assert end.value.code == code
    assert capsys.readouterr().err == line


def test_ctrl_c_is_a_line_and_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    assert _ended(monkeypatch, stopped) == 130
    assert capsys.readouterr().err == "interrupted\n"
