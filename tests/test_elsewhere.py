"""Other people's machines and folders: unwritable folders, and warnings of libraries."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab import benchmark, evaluate, explain, export, landscape, report, search, table
from tests.conftest import TINY, Called, Lab, Train, holds, names, refusal
from tests.kinds_of_runs import FINISHED

NOTHING = "note: nothing is written: "
SEARCH = ("optimizer.lr=interval(1e-4,1e-2)", *TINY)
# Each command for a run, the folder that it writes to by default, and text that it prints anyway.
PRINTS = {
    "table": (table, ["."], ".", "test acc %"),
    "report": (report, ["run"], "report", "not run"),
    "evaluate": (evaluate, ["run"], "run/evaluation/test", "test accuracy"),
    "explain": (explain, ["run", "--images", "6"], "run/explanation", "negative only"),
    "landscape": (landscape, ["surface", "run", "--images", "6", "--points", "2"], "landscape", "variance"),
}
REFUSED = {
    "export": (export, ["run", "--format", "safetensors"], "run/export"),
    "search": (search, [*SEARCH, "--trials", "1"], "outputs/search-optimizer.lr"),
    "benchmark": (benchmark, [], "outputs/benchmark"),
}


@pytest.fixture
def mine(trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[Path]]:
    """A finished run in a current folder that looks read-only, owned by someone else; returns its files."""
    trained(*FINISHED)
    monkeypatch.chdir(tmp_path)
    may = os.access

    def may_read(path: Path, mode: int) -> bool:  # a superuser may write everywhere
        return may(path, mode) and not (mode & os.W_OK and Path(path).resolve() == tmp_path)

    monkeypatch.setattr(os, "access", may_read)
    for folder in (tmp_path / "run" / "evaluation", tmp_path / "run" / "explanation", tmp_path / "run" / "export"):
        folder.touch()  # blocks a folder of that name
    return lambda: set(tmp_path.rglob("*"))


@pytest.mark.parametrize("command", PRINTS)
def test_a_command_prints_its_result_with_a_note_that_names_the_unwritable_folder_and_the_option(
    mine: Callable[[], set[Path]], called: Called, command: str
) -> None:
    module, words, folder, fact = PRINTS[command]
    before = mine()
    code, out, err = called(module.main, *words)
    assert code == 0, err
    holds(out, fact)
    (line,) = [line for line in err.splitlines() if "--output" in line]
    assert line == f"{NOTHING}{folder} cannot be written; set --output to a different folder"
    assert mine() == before
    refusal(called(module.main, *words, "--output", "other"), "other", "--output")


@pytest.mark.parametrize("command", REFUSED)
def test_a_command_that_only_writes_is_refused_before_it_begins(
    mine: Callable[[], set[Path]], called: Called, command: str
) -> None:
    module, words, folder = REFUSED[command]
    before = mine()
    refusal(called(module.main, *words), folder, "--output")
    assert mine() == before


def test_an_option_names_a_folder_that_can_be_written(
    mine: Callable[[], set[Path]], called: Called, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("own")
    before = mine()
    assert called(search.main, *SEARCH, "--trials", "1", "--output", place / "search")[0] == 0
    assert (place / "search" / "search.md").exists() and len(list(place.glob("search/*/result.json"))) == 1
    code, out, _ = called(evaluate.main, "run", place / "search", "--json", "--output", place / "two")
    files = [Path(file).resolve() for result in json.loads(out) for file in result["files"]]
    assert code == 0
    assert len({file.parent for file in files}) == 2
    assert all(place / "two" in file.parents and file.exists() for file in files)
    assert mine() == before


def test_the_error_of_a_run_without_a_writable_folder_names_the_setting(lab: Lab) -> None:
    Path("outputs").touch()
    for words, setting in (([], "hydra.run.dir="), (["-m", "seed=0,1"], "hydra.sweep.dir=")):
        outcome = lab(*TINY, *words)
        assert outcome.code == 2
        names(outcome.stderr, "outputs", setting)


def test_libraries_remarks_on_caches_cuda_and_slurm_are_not_printed(tmp_path: Path) -> None:
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    places = {"PATH": str(tmp_path), "HOME": "/proc/nobody", "MPLCONFIGDIR": "/proc/nobody", "CUDA_HOME": str(tmp_path)}
    code = """
import cifar_lab
import matplotlib
import torch.utils.cpp_extension
from lightning.fabric import Fabric
matplotlib.get_cachedir()
Fabric(accelerator="cpu")
"""
    line = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(line, env=os.environ | places, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
