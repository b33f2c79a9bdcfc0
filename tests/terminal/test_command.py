import sys
from typing import Annotated

import pytest
import typer

from cifar_lab.terminal.command import run_command, run_commands
from tests.conftest import names


def _ended(monkeypatch: pytest.MonkeyPatch, function: object, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["cifar-lab", *arguments])
    with pytest.raises(SystemExit) as end:
        run_command(function)
    return end.value.code


def halve(number: Annotated[int, typer.Argument(help="Even.")], shout: bool = False) -> int | None:
    """Halves."""
    if number % 2:
        raise ValueError(f"number={number}:\n odd")
    print(f"{number // 2}{'!' * shout}")
    return 3 if number == 6 else None


def test_annotations_are_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended(monkeypatch, halve, "--shout", "4") == 0
    assert capsys.readouterr().out == "2!\n"
    assert _ended(monkeypatch, halve, "--help") == 0
    help_page = capsys.readouterr().out
    assert "cifar-lab halve" in help_page
    assert "Halves." in help_page
    assert "Even." in help_page


def test_an_integer_that_the_function_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _ended(monkeypatch, halve, "6") == 3


@pytest.mark.parametrize(
    ("arguments", "fact"), [(["5"], "number=5: odd"), ([], "'number'"), (["4", "--louder"], "--louder")]
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: list[str], fact: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ended(monkeypatch, halve, *arguments) == 2
    names(capsys.readouterr().err, fact)


def stop(number: int) -> None:
    """Stop as Ctrl-C does."""
    raise KeyboardInterrupt


def test_several_functions_are_subcommands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def ended(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["cifar-lab", *arguments])
        with pytest.raises(SystemExit) as end:
            run_commands("numbers", [halve, stop], "Numbers.")
        return end.value.code, capsys.readouterr().err

    assert ended("halve", "6") == (3, "")
    code, line = ended("halve", "5")
    assert code == 2
    names(line, "number=5: odd")
    code, line = ended("stop", "5")
    assert (code, line.count("\n")) == (130, 1)
    code, line = ended()
    assert code == 2
    names(line)


def test_ctrl_c_is_a_line_and_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    assert _ended(monkeypatch, stopped) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_a_fault_of_the_program_is_a_traceback_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        """Breaks."""
        raise KeyError("a bug")

    assert _ended(monkeypatch, broken) == 1
    *lines, last = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and "KeyError" in lines[-1]
    names(last, "CONTRIBUTING.md")
