import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cifar_lab import __version__, cli, train
from cifar_lab.cli import COMMANDS
from tests.conftest import Called, holds, refusal

MODULE, SCRIPT = "python -m cifar_lab.train", "cifar-lab train"
FOLDER = Path(sys.executable).parent
OF_NETWORKS = ("evaluate", "predict", "explain", "export", "compare")
HEAVY = {"torch", "lightning", "pandas", "matplotlib", "captum", "onnx", "safetensors", "optuna", "hydra", "omegaconf"}
Ended = tuple[int, str, str]


@pytest.fixture
def script(called: Called, monkeypatch: pytest.MonkeyPatch) -> Called:
    """Call the console script in this process; return the exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    return partial(called, cli.main)


@pytest.fixture
def completes(called: Called, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return the completions that a shell offers for a line."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def offered(line: str, shell: str = "bash", main: Callable[[], None] = cli.main) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        code, out, err = called(main, "-sc", f"query={shell}")
        assert (code, err) == (0, "")
        return out.split()

    return offered


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{SCRIPT} loss=f", ["loss=focal"]),
        (f"{SCRIPT} model=vgg_a_", ["model=vgg_a_dropout", "model=vgg_a_light"]),
        (f"{SCRIPT} optimizer.l", ["optimizer.lr="]),
        ("cifar-lab tr", ["train"]),
        ("cifar-lab ", list(COMMANDS)),
        ("cifar-lab nothing x", []),
        (f"{SCRIPT} 'experiment=glob(activation_*)' lo", ["logger=", "loss="]),
        (f"{SCRIPT} 'experiment=glob(acti", []),
        (f"{SCRIPT} seed=[ optimizer.l", []),
    ],
)
def test_the_shell_completes_subcommands_options_and_keys(
    completes: Callable[..., list[str]], line: str, words: list[str]
) -> None:
    assert completes(line) == words


def test_fish_and_the_module_form_are_completed_and_installed_too(
    completes: Callable[..., list[str]], script: Called
) -> None:
    for shell in ("bash", "fish"):
        code, out, _ = script("-sc", f"install={shell}")
        assert code == 0
        assert "-m cifar_lab.train" in out
    assert "train.py" not in out
    schedulers = ["scheduler=constant", "scheduler=cosine"]
    assert completes(f"{SCRIPT} scheduler=c", "fish") == schedulers
    assert completes(f"{MODULE} scheduler=c", "bash", train.main) == schedulers


def test_without_a_subcommand_the_command_lists_them(script: Called) -> None:
    assert script("--version")[1].split() == ["cifar-lab", __version__]
    refusal(script(), *COMMANDS)
    code, out, _ = script("--help")
    assert code == 0
    rows = [row.split() for row in out.splitlines()]
    assert all([name, *line.split()] in rows for name, line in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_has_a_module_that_runs(name: str) -> None:
    assert callable(importlib.import_module(f"cifar_lab.{cli._MODULES.get(name, name)}").main)


def test_a_subcommand_runs_its_module_and_flags_after_train_are_hydras(script: Called) -> None:
    refusal(script("trian", "loss=ce"), "'trian'", "'train'")
    refusal(script("train", "loss=foo"), "loss=foo")
    assert "python -m cifar_lab.train" in script("train", "--help")[1]
    code, out, err = script("train", "--cfg", "job", "--package", "loss", "loss=focal", "loss.gamma=3")
    assert code == 0, err
    assert "gamma: 3" in out
    assert script("train", "--version")[1].split()[0] == "Hydra"


def test_a_file_in_the_current_folder_shadows_no_module_and_components_there_are_found(tmp_path: Path) -> None:
    for folder, name in (("bin", "cifar-lab"), ("here", "queue"), ("here", "my_lab")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.py").write_text(f"print('{name} of here')")
    script = tmp_path / "bin" / "cifar-lab.py"
    script.write_text("from cifar_lab.cli import main\ntry: main()\nexcept SystemExit: import queue, my_lab\n")
    done = subprocess.run(
        [sys.executable, script, "--version"], cwd=tmp_path / "here", capture_output=True, text=True, check=False
    )
    assert (done.stdout.splitlines()[1:], done.stderr) == (["my_lab of here"], "")


def _run_script(code: str, *arguments: str, folder: Path) -> tuple[Ended, set[str]]:
    """Run a Python script; return its exit code and output, and the modules that it imported."""
    line = [sys.executable, "-c", f"import sys\ntry: {code}\nfinally: print('\\fimported', *sys.modules)", *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    page, _, modules = done.stdout.partition("\fimported ")
    assert not list(folder.iterdir())
    return (done.returncode, page, done.stderr), set(modules.split())


def test_help_imports_neither_torch_nor_hydra(tmp_path: Path) -> None:
    assert not HEAVY & _run_script("import cifar_lab.cli", folder=tmp_path)[1]


@pytest.mark.parametrize("command", OF_NETWORKS)
def test_help_and_refusals_of_commands_on_networks_do_not_import_torch(command: str, tmp_path: Path) -> None:
    code = f"from cifar_lab.{command} import main; main()"
    (status, page, error), modules = _run_script(code, "--help", folder=tmp_path)
    assert status == 0, error
    holds(page, f"cifar-lab {command}", "RUN..." if command == "compare" else "RUN|WEIGHTS", "--allow")
    ended, of_refusal = _run_script(code, *["nowhere", "image.png"][: 1 if command == "export" else 2], folder=tmp_path)
    refusal(ended, "nowhere")
    assert not HEAVY & (modules | of_refusal)


@pytest.mark.parametrize(
    ("command", "words", "fact"),
    [
        ("train", "data=cifar10 data.root=nowhere", "nowhere"),
        ("search", "search=adam epochs=0", "epochs=0"),
        pytest.param("train", "optimizer.lr=nan", "optimizer.lr=nan", marks=pytest.mark.slow),
    ],
)
def test_a_refused_composition_does_not_import_torch(command: str, words: str, fact: str, tmp_path: Path) -> None:
    ended, modules = _run_script(f"from cifar_lab.{command} import main; main()", *words.split(), folder=tmp_path)
    refusal(ended, fact)
    assert not (HEAVY - {"hydra", "omegaconf"}) & modules


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., list[str]]:
    """Run a shell script with our commands in a folder whose name has a space, as a virtual environment's may."""
    place = tmp_path / "my environment"
    place.mkdir()
    for name in ("python", "cifar-lab"):
        (place / name).write_text(f'#!/bin/sh\nexec "{FOLDER / name}" "$@"\n')
        (place / name).chmod(0o755)

    def words(name: str, script: str) -> list[str]:
        environment = os.environ | {"PATH": f"{place}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run([name, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return words


@pytest.mark.parametrize("form", [SCRIPT, pytest.param(MODULE, marks=pytest.mark.slow)])
def test_bash_completes_both_forms_of_the_command(shell: Callable[..., list[str]], form: str) -> None:
    script = f"""
        eval "$({form.removesuffix(" train")} -sc install=bash)"
        COMP_LINE="{form} scheduler=c" COMP_POINT={len(form) + 12} COMP_CWORD={len(form.split())}
        hydra_bash_completion
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert shell("bash", script) == ["scheduler=constant", "scheduler=cosine"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize("form", [SCRIPT, MODULE])
def test_fish_completes_both_forms_of_the_command(shell: Callable[..., list[str]], form: str) -> None:
    script = f'{form.removesuffix(" train")} -sc install=fish | source; complete -C "{form} loss=f"'
    assert shell("fish", script) == ["loss=focal"]
