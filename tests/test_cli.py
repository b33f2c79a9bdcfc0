import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_lab import __version__
from cifar_lab.cli import COMMANDS


def _cifar_lab(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("cifar-lab")
    return subprocess.run([script, *arguments], capture_output=True, text=True, check=False, env=environment or None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cifar-lab train loss=f", ["loss=focal"]),
        ("cifar-lab train model=vgg_a_", ["model=vgg_a_dropout", "model=vgg_a_light"]),
        ("cifar-lab train optimizer.l", ["optimizer.lr="]),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_the_shell_completes_options_and_keys(line: str, words: list[str], shell: str) -> None:
    done = _cifar_lab("-sc", f"query={shell}", COMP_LINE=line, COMP_POINT=str(len(line)), PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == words


def test_a_subcommand_is_its_module() -> None:
    done = _cifar_lab("train", "loss=foo")
    assert done.returncode == 2
    assert done.stderr.startswith("error: loss=foo does not exist")
    assert "python -m cifar_lab.train" in _cifar_lab("train", "--help").stdout


def test_without_a_subcommand_it_says_what_there_is() -> None:
    assert _cifar_lab("--version").stdout == f"cifar-lab {__version__}\n"
    assert _cifar_lab().returncode == 2
    assert _cifar_lab().stderr == f"error: no subcommand; there are {', '.join(COMMANDS)}\n"
    shown = _cifar_lab("--help")
    assert shown.returncode == 0
    for name, line in COMMANDS.items():
        assert [name, *line.split()] in [row.split() for row in shown.stdout.splitlines()]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_has_a_module_that_runs(name: str) -> None:
    assert callable(importlib.import_module(f"cifar_lab.{name}").main)


def test_a_mistyped_subcommand_is_refused_with_the_nearest_name() -> None:
    done = _cifar_lab("trian", "loss=ce")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: No such command 'trian'. Did you mean 'train'?\n"


def test_flags_after_train_are_hydras() -> None:
    done = _cifar_lab("train", "--cfg", "job", "--package", "loss", "loss=focal", "loss.gamma=3")
    assert "gamma: 3" in done.stdout, done.stderr
    assert _cifar_lab("train", "--version").stdout.startswith("Hydra")


def test_help_waits_for_neither_torch_nor_hydra() -> None:
    line = "import sys, cifar_lab.cli; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "hydra", "omegaconf", "pandas"} & set(modules)


@pytest.mark.parametrize(
    ("line", "words"), [("cifar-lab tr", ["train"]), ("cifar-lab ", list(COMMANDS)), ("cifar-lab nothing x", [])]
)
def test_the_shell_completes_subcommands(line: str, words: list[str]) -> None:
    done = _cifar_lab("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)), PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == words


@pytest.mark.parametrize("words", ["python -m cifar_lab.train", "cifar-lab train"])
@pytest.mark.parametrize(
    ("word", "expected"), [("loss=f", ["loss=focal"]), ("scheduler=c", ["scheduler=constant", "scheduler=cosine"])]
)
def test_bash_completes_both_forms_of_the_command(words: str, word: str, expected: list[str]) -> None:
    line = f"{words} {word}"
    ask = "python -m cifar_lab.train" if words.startswith("python") else "cifar-lab"
    script = f"""
        eval "$({ask} -sc install=bash)"
        COMP_LINE="{line}" COMP_POINT={len(line)} COMP_CWORD={len(line.split()) - 1}
        hydra_bash_completion
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env={"PATH": path})
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize("words", ["python -m cifar_lab.train", "cifar-lab train"])
def test_fish_completes_both_forms_of_the_command(words: str) -> None:
    ask = "python -m cifar_lab.train" if words.startswith("python") else "cifar-lab"
    script = f'{ask} -sc install=fish | source; complete -C "{words} loss=f"'
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(["fish", "-c", script], capture_output=True, text=True, check=False, env={"PATH": path})
    assert done.stdout.split() == ["loss=focal"], done.stderr
