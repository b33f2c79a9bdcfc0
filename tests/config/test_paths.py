"""Folder names that Hydra's grammar would misread, in every part of a command line that names a folder."""

import pwd
from pathlib import Path
from typing import NoReturn

import pytest

from cifar_lab.config import checked
from cifar_lab.config.paths import as_typed, quoted, value_of
from cifar_lab.engines.application import run_jobs
from cifar_lab.engines.handover import Job
from cifar_lab.search.space import checked_search
from tests.conftest import TINY, Lab, refusal

ODD = ("o'brien", "a, b", "(1)", "José", "a=b", "[x] {y}", "%", "1e3", "true", "'", "x;y", "数据")
KEYS = ("data.root", "hydra.run.dir", "hydra.sweep.dir", "resume")


@pytest.mark.parametrize("name", [*ODD, *(f"/home/{name}/data" for name in ODD)])
def test_every_folder_from_a_shell_is_read_as_typed(name: str) -> None:
    for key in KEYS:
        assert str(value_of(as_typed(f"{key}={name}"))) == name
    if "," not in name:  # for a user's component, a comma separates several paths
        assert value_of(as_typed(f"+own=/{name}")) == f"/{name}"


@pytest.mark.parametrize("name", ["2026-11-30_model=cnn,epochs=2", "a,b", "plain"])
def test_folders_with_commas_are_distinguished_from_a_list_of_folders(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (name, "other"):
        (tmp_path / folder).mkdir()
    read = value_of(as_typed(f"weights=null,{name},other"))
    assert [getattr(each, "text", each) for each in read.list] == [None, name, "other"]
    assert str(value_of(as_typed(f"weights={name}"))) == name


@pytest.mark.parametrize(
    "word",
    [
        *("data.root=null", "resume=auto", "data.root='/a b'", 'hydra.run.dir="a,b"', "model=vgg_a", "-m"),
        *("hydra.run.dir=outputs/${name}/${now:%H}", "data.root=${oc.env:HOME}/data", "loss=ce,mse", "seed=range(0,3)"),
        *("data.root=/a\\,b", "data.root=/plain/data-2.0", "--config-dir=/a,b", "experiment=glob(activation_*)"),
    ],
)
def test_words_that_hydra_reads_as_meant_stay_unchanged(word: str) -> None:
    assert as_typed(word) == word


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["", "''"])
def test_an_empty_name_from_an_unset_variable_is_refused(lab: Lab, key: str, value: str) -> None:
    refusal(lab(*TINY[1:], f"{key}={value}"), f"{key}={value}", "empty")


def test_the_home_folder_is_known_whatever_its_name(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "o'brien, José (1)"
    monkeypatch.setenv("HOME", str(home))
    refusal(lab("data.root=~/data"), home / "data")
    monkeypatch.setenv("CIFAR_LAB_DATA", "~/images")
    refusal(lab(), home / "images")


def test_without_a_home_folder_paths_in_it_are_refused_before_a_folder_is_made(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(number: int) -> NoReturn:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "CIFAR_LAB_DATA"):
        monkeypatch.delenv(name, raising=False)
    refusal(lab(), "home folder", "HOME", "data.root=", "CIFAR_LAB_DATA")
    refusal(lab("data.download=false"), "home folder")
    refusal(lab("data.root=~/data"), "data.root=~/data", "HOME")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("CIFAR_LAB_DATA", "")  # equivalent to an unset variable
    refusal(lab(), "home folder")


def test_runs_in_odd_folders_are_trained_and_resumed_with_options_from_one(lab: Lab, tmp_path: Path) -> None:
    place = tmp_path / ", ".join(ODD)
    (place / "conf" / "loss").mkdir(parents=True)
    (place / "conf" / "loss" / "mine.yaml").write_text("_target_: cifar_lab.losses.MSELoss\n")
    own = ("--config-dir", str(place / "conf"), *TINY, "epochs=1", "logger=none", "loss=mine")
    assert lab(*own, f"hydra.run.dir={place}/run").code == 0
    outcome = lab(f"resume={place}/run", *own[:2])
    assert (outcome.code, "found" in outcome.stdout) == (0, True)
    outcome = lab(*own, "-m", "seed=0,1", f"hydra.sweep.dir={place}/sweep")
    assert (outcome.code, len(outcome.runs)) == (0, 3), outcome.stderr
    assert {run.folder.parent for run in outcome.runs} == {place, place / "sweep"}


def test_a_search_accepts_odd_folder_names_too(tmp_path: Path) -> None:
    place = tmp_path / "o'brien, (1)"
    asked = checked_search([*TINY, "loss=ce,mse"], None, place)
    assert asked.name.startswith("search-loss-") and asked.folder == place
    word = asked.command(["loss=ce"])[-1]
    assert value_of(word) == f"{place}/${{run_folder:true}}"
    assert checked(asked.command(["loss=ce"])).composition["name"] == asked.name


def test_a_relative_data_root_is_resolved_in_the_folder_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for number in range(1, 6):
        Path(f"data/data_batch_{number}").touch()
    Path("data/test_batch").touch()
    seen: list[tuple[str, Path]] = []

    def task(job: Job) -> bool:
        seen.append((job.settings["data"]["root"], Path.cwd()))
        return True

    for words in (["hydra.job.chdir=true"], []):
        run_jobs(task, checked(["data.root=data", "hydra.run.dir=run", *words]))
    assert seen == [(str(tmp_path / "data"), tmp_path / "run"), ("data", tmp_path)]


def test_a_quoted_text_is_read_back() -> None:
    for text in (*ODD, "\\", "\\'", "it's\\"):
        assert str(value_of(f"x={quoted(text)}")) == text
