"""The recipes work as they stand on the page: their files, in an empty folder, and their command."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml

from cifar_lab.models import CNN

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
NUM_CLASSES = 100


class Recipe(NamedTuple):
    """The code blocks of a section: files by their name, and the command."""

    files: dict[str, str]
    command: str


def _recipe(text: str) -> Recipe:
    blocks = re.findall(r"^```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    names = [re.findall(r"^# (?!@)(.*)$", block, re.MULTILINE)[0] for block in blocks[:-1]]
    files = dict(zip(names, blocks[:-1], strict=True))
    return Recipe(files, blocks[-1])


RECIPES = {
    text.partition("\n")[0].removeprefix("Add a").removeprefix("n").strip(): _recipe(text)
    for text in PAGE.split("\n## ")[1:]
}


def _follow(recipe: Recipe, folder: Path, program: str = "python -m cifar_lab.train") -> dict[str, Any]:
    """Write the files, run the command in a shell, and return the run's configuration and result."""
    (run,) = _follow_all(recipe, folder, program)
    return run


def _follow_all(recipe: Recipe, folder: Path, program: str = "python -m cifar_lab.train") -> list[dict[str, Any]]:
    for name, content in recipe.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    command = recipe.command.replace("python -m cifar_lab.train", program)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [
        {
            "config": yaml.safe_load((result.parent / ".hydra" / "config.yaml").read_text()),
            "result": json.loads(result.read_text()),
            "folder": result.parent,
        }
        for result in sorted(folder.glob("outputs/*/*/result.json"))
    ]


def test_there_is_a_recipe_for_each_kind_of_component() -> None:
    assert list(RECIPES) == ["loss", "model", "optimizer", "data set", "study"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_at_most_fifteen_lines(name: str) -> None:
    recipe = RECIPES[name]
    lines = [line for text in (*recipe.files.values(), recipe.command) for line in text.splitlines() if line.strip()]
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 140


def test_the_recipe_of_a_loss_trains_on_it(tmp_path: Path) -> None:
    run = _follow(RECIPES["loss"], tmp_path)
    assert run["config"]["loss"] == {"_target_": "my_lab.HuberLoss", "delta": 0.5}
    assert run["result"]["options"]["loss"] == "huber"
    # Cross-entropy of ten classes begins near ln 10; a Huber loss, the mean over classes, far below.
    assert np.load(run["folder"] / "steps.npz")["loss"][0] < 0.5


def test_the_recipe_of_a_model_trains_it_by_the_console_script_too(tmp_path: Path) -> None:
    run = _follow(RECIPES["model"], tmp_path, program="cifar-lab train")
    assert run["config"]["model"]["_target_"] == "my_lab.MLP"
    assert run["result"]["num_parameters"] == 3072 * 64 + 64 + 64 * 10 + 10


def test_the_recipe_of_an_optimizer_steps_by_it(tmp_path: Path) -> None:
    run = _follow(RECIPES["optimizer"], tmp_path)
    assert run["config"]["optimizer"]["_target_"] == "my_lab.CentralisedSGD"
    torch.manual_seed(run["config"]["seed"])
    start = CNN((4, 4, 4)).state_dict()["fc_layers.0.weight"]
    (file,) = (run["folder"] / "weights").iterdir()
    end = torch.load(file, weights_only=True)["fc_layers.0.weight"]
    # Its steps have no mean over a unit's inputs, so the units' mean weights stay where they began.
    assert (end - start).abs().max() > 0.01
    torch.testing.assert_close(end.mean(1), start.mean(1), rtol=0, atol=1e-5)


def test_the_recipe_of_a_data_set_trains_on_it_however_many_classes_it_has(tmp_path: Path) -> None:
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 4 * NUM_CLASSES), ("test", 2 * NUM_CLASSES)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % NUM_CLASSES
    np.savez(tmp_path / "my_images.npz", **arrays)  # type: ignore[arg-type]
    result = _follow(RECIPES["data set"], tmp_path)["result"]
    assert (result["train_size"], result["val_size"], result["test_size"]) == (360, 40, 200)
    assert result["classes"] == [str(label) for label in range(NUM_CLASSES)]
    assert np.sum(result["confusion_matrix"], axis=1).tolist() == [2] * NUM_CLASSES


def test_the_recipe_of_a_study_runs_its_axes(tmp_path: Path) -> None:
    runs = _follow_all(RECIPES["study"], tmp_path)
    assert [run["config"]["optimizer"]["lr"] for run in runs] == [0.01, 0.1]
    assert {run["config"]["optimizer"]["_target_"] for run in runs} == {"torch.optim.SGD"}
    assert {run["folder"].parent for run in runs} == {tmp_path / "outputs" / "study-rates"}


def test_a_model_of_another_number_of_classes_than_the_data_is_refused(lab: Callable[..., Any]) -> None:
    outcome = lab("data=synthetic", "data.num_train=20", "data.num_test=10", "model.num_classes=12", "epochs=1")
    assert outcome.code == 2
    assert outcome.stderr == "error: model.num_classes=12: the data has 10; set model.num_classes=10\n"
    assert not outcome.runs
