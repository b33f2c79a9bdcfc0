"""A user's own lab: the files that `init` writes; commands find its options and components."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cifar_lab import cli
from cifar_lab.config.command_line import parsed
from cifar_lab.config.lab import init, lab
from cifar_lab.config.preflight import plan_of
from cifar_lab.train.command import sweep
from tests.conftest import Called, holds, refusal

MINE = ("loss=mine", "model=mine", "model.widths=[4,4]", "data=synthetic", "data.num_train=60", "data.num_test=20")
TINY = (*MINE, "batch_size=6", "epochs=1", "trainer=cpu", "logger=none")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: Called) -> Path:
    """A new lab as the current folder."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    code, out, err = called(cli.main, "init", "my_lab")
    assert (code, err) == (0, "")
    holds(out, "cd my_lab", "loss=mine model=mine")
    monkeypatch.chdir(tmp_path / "my_lab")
    return tmp_path / "my_lab"


def test_a_new_lab_is_complete_and_short(mine: Path) -> None:
    left = {path.relative_to(mine).as_posix() for path in mine.rglob("*") if path.is_file()}
    options = {"my_conf/loss/mine.yaml", "my_conf/model/mine.yaml"}
    assert left == {"my_lab.py", "test_my_lab.py", "pyproject.toml", "README.md", *options}
    assert len((mine / "README.md").read_text().splitlines()) <= 12


def test_the_test_of_a_new_lab_passes(mine: Path) -> None:
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(line, cwd=mine, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


@pytest.mark.parametrize("below", ["", "notebooks/today"])
def test_a_sweep_in_a_lab_finds_options_and_components(below: str, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(mine / below)
    results = sweep(["loss=ce,mine", *TINY[1:], "name=both"])
    assert [result["status"] for result in results] == ["finished", "finished"]
    assert [list(result["sources"]) for result in results] == [["my_lab"], ["my_lab"]]
    assert {Path(result["folder"]).parent for result in results} == {mine / below / "outputs" / "both"}


def test_init_leaves_a_folder_that_is_not_empty_alone(mine: Path, called: Called) -> None:
    (mine / "my_lab.py").write_text("mine")
    refusal(called(init.main, mine), mine, "not empty")
    refusal(called(init.main, mine / "my_lab.py"), "my_lab.py", "file")
    assert (mine / "my_lab.py").read_text() == "mine"


def test_typed_settings_win_over_the_labs(mine: Path) -> None:
    (mine / "other" / "loss").mkdir(parents=True)
    (mine / "other" / "loss" / "other.yaml").write_text("_target_: torch.nn.CrossEntropyLoss\n")
    assert plan_of(parsed(["--config-dir", "other", "loss=other"])).composition["loss"] == {
        "_target_": "torch.nn.CrossEntropyLoss"
    }
    with pytest.raises(ValueError, match="loss=mine does not exist"):
        plan_of(parsed(["--config-dir", "other", "loss=mine"]))


def test_a_lab_of_a_different_user_is_not_read(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine / "below").mkdir()
    monkeypatch.chdir(mine / "below")
    assert lab().allow == ("my_lab",)
    monkeypatch.chdir(mine)
    monkeypatch.setattr(os, "getuid", lambda: mine.stat().st_uid + 1)
    from cifar_lab.config.lab import _lab_of

    _lab_of.cache_clear()
    assert lab() == (None, ())
    _lab_of.cache_clear()


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("[tool.cifar_lab", "cannot be read"),
        ("[tool.cifar_lab]\nallow = 'my_lab'", "allow = "),
        ("[tool.cifar_lab]\nallow = [1]", "allow = "),
        ("[tool.cifar_lab]\nconfig = 'my_conf'", "config_dir = "),
        ("[tool]\ncifar_lab = 1", "config_dir = "),
        ("[tool.cifar_lab]\nconfig_dir = 'nowhere'", "nowhere"),
    ],
)
def test_an_invalid_table_in_a_lab_is_refused(
    text: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ValueError, match=r"pyproject\.toml") as refused:
        lab()
    holds(str(refused.value), fact)
