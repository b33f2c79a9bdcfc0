"""Every command that a message suggests works, even in a folder whose name a shell must quote."""

import re
import shlex
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.cli import COMMANDS
from cifar_lab.config import checked
from cifar_lab.runs import Run
from cifar_lab.search import command as search
from cifar_lab.search.space import checked_search
from cifar_lab.train import summary
from cifar_lab.train.classifier import Classifier
from tests.conftest import CHECKOUT, Lab, Train, refusal
from tests.faults import Fault, armed
from tests.kinds_of_runs import FINISHED
from tests.suggestions import commands_in, run_suggestion, suggested_arguments
from tests.test_leftover_folders import full

ODD = "o'brien's größe (1), x"
THERE = (*FINISHED, f"hydra.run.dir={ODD}")


@pytest.fixture
def stopped(lab: Lab) -> tuple[Run, str]:
    """A run that a signal stopped after its first epoch, and the error output."""
    with armed(Fault("epoch", 1, signal.SIGTERM)):
        outcome = lab(*THERE)
    assert outcome.code == 143
    return Run(ODD), outcome.stderr


def test_the_command_after_a_signal_works(lab: Lab, stopped: tuple[Run, str]) -> None:
    run, message = stopped
    run_suggestion(lab, message)
    assert run.result()["epochs"] == 2


def test_the_command_after_a_full_disk_works(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "test_step", full)
        outcome = lab(*THERE, "epochs=1")
    assert outcome.code == 1
    run_suggestion(lab, outcome.stderr)
    assert Run(ODD).has_result()


@pytest.mark.parametrize("name", ["steps.npz", ".hydra/composition.json", ".hydra/config.yaml"])
def test_the_command_for_a_damaged_file_of_a_stopped_run_works(lab: Lab, stopped: tuple[Run, str], name: str) -> None:
    run, message = stopped
    (run.folder / name).write_bytes(b"[")
    line = refusal(lab(*suggested_arguments(message)), Path(name).name)
    run_suggestion(lab, line, FINISHED)
    assert run.result()["epochs"] == 2


@pytest.mark.parametrize("name", ["composition.json", "config.yaml"])
def test_the_command_for_a_damaged_file_of_a_finished_run_works(lab: Lab, trained: Train, name: str) -> None:
    run = trained(*FINISHED, name=ODD)
    (run.folder / ".hydra" / name).write_bytes(b"[")
    run_suggestion(lab, refusal(lab(f"resume={ODD}"), name), FINISHED)
    assert run.result()["epochs"] == 2 and len(list(Path("replaced").iterdir())) == 1


def test_the_command_for_missing_figures_works(lab: Lab, trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(*FINISHED, name=ODD)
    curves = run.figures / "curves.png"
    curves.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(summary, "write_figure", lambda *_, **__: [])
        outcome = lab(f"resume={ODD}")
    run_suggestion(lab, outcome.stderr)
    assert curves.exists()


def test_the_command_after_failed_drawing_works(
    lab: Lab, stopped: tuple[Run, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(summary, "draw", breaks)
        outcome = lab(*suggested_arguments(stopped[1]))
    assert "a fault" in outcome.stderr
    run_suggestion(lab, outcome.stderr)
    assert (stopped[0].figures / "curves.png").exists()


def test_the_commands_for_reused_and_failed_runs_work(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = (*THERE, "resume=auto", "epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "test_step", lambda *_: 1 / 0)
        assert lab(*typed).code == 1
    line = lab(*typed, "retry_failed=false").stderr
    run_suggestion(lab, line, typed)
    (found,) = [line for line in lab(*typed).stdout.splitlines() if line.startswith("found")]
    run = Run(ODD)
    before = run.result_file.stat().st_mtime_ns
    run_suggestion(lab, found, typed)
    assert run.result_file.stat().st_mtime_ns != before


def test_the_command_of_a_search_for_more_seeds_works() -> None:
    asked = checked_search([*FINISHED, "optimizer.lr=interval(1e-4,1e-2)", "loss=mse", f"name='{ODD[2:7]} (1)'"])
    (command,) = commands_in(search._over_seeds(asked, ["optimizer.lr=0.001"]))
    plan = checked(command[3:])
    assert len(plan.jobs) == 5 and plan.composition["name"] == f"{asked.name}-best"
    (own,) = commands_in(search._over_seeds(checked_search([*FINISHED, "optimizer.lr=interval(0.1,1)"]), []))
    assert checked(own[3:]).composition["name"].endswith("-best")


def test_the_search_command_for_an_open_axis_works() -> None:
    with pytest.raises(ValueError, match="open") as refused:
        checked(["data=synthetic", "search=adam"])
    (command,) = commands_in(str(refused.value).replace(" tries values", ""))
    assert command[2] == "cifar_lab.search" and checked_search([*command[3:], "data=synthetic"]).axes


def test_modules_subcommands_and_extras_named_in_the_source_exist() -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in (CHECKOUT / "cifar_lab").rglob("*.py"))
    modules = set(re.findall(r"python -m (cifar_lab\.[\w.]*\w)", text))
    places = [CHECKOUT.joinpath(*module.split(".")) for module in sorted(modules)]
    assert all(place.with_suffix(".py").exists() or (place / "__main__.py").exists() for place in places), modules
    subcommands = set(re.findall(r"`cifar-lab ([a-z]+)", text))
    assert subcommands and subcommands <= COMMANDS.keys()
    installed = set(re.findall(r"cifar-lab\[(\w+)\]", text))
    assert installed and installed <= extras.keys()


@pytest.mark.parametrize("folder", [ODD, "a,b", 'a"b', "a;b", "run", "-x", "$HOME"])
def test_a_folder_in_a_message_is_quoted_for_a_shell(folder: str) -> None:
    assert suggested_arguments(f"error: a fault; resume={shlex.quote(folder)} goes on") == [f"resume={folder}"]
