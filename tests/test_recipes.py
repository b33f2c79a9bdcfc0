"""The recipes work as printed on the page: their files in an empty folder, and their command."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from cifar_lab.data.augment import Visit
from cifar_lab.models import CNN
from cifar_lab.runs import Run
from tests.conftest import CHECKOUT, Lab, refusal

PAGE = (CHECKOUT / "docs" / "recipes.md").read_text(encoding="utf-8")
NUM_CLASSES = 100
FEW = ("data.num_train=60", "data.num_test=20")


class Recipe(NamedTuple):
    """Code blocks of a section: files by name, and the command."""

    files: dict[str, str]
    command: str

    @classmethod
    def of(cls, text: str) -> "Recipe":
        """Parse a section."""
        *files, command = re.findall(r"^```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        return cls({re.findall(r"^# (?!@)(.*)$", file, re.MULTILINE)[0]: file for file in files}, command)

    def write(self, folder: Path) -> None:
        """Write its files to a folder."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")


RECIPES = {
    re.sub("^an? ", "", text.partition("\n")[0]): Recipe.of(text.partition("\n## ")[0])
    for text in PAGE.split("\n## Add ")[1:]
}
Follow = Callable[..., list[Run]]


@pytest.fixture
def follow(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follow]:
    """Write a recipe's files, run its command in this process, and return its runs."""
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_lab", None)

    def followed(name: str, *more: str) -> list[Run]:
        RECIPES[name].write(tmp_path)
        program, words = shlex.split(RECIPES[name].command)[:3], shlex.split(RECIPES[name].command)[3:]
        assert program == ["python", "-m", "cifar_lab.train"]
        outcome = lab(*words, "logger=none", *more)
        assert outcome.code == 0, outcome.stderr
        return outcome.runs

    yield followed
    sys.modules.pop("my_lab", None)


def test_each_kind_of_component_has_a_recipe() -> None:
    assert list(RECIPES) == ["loss", "model", "optimizer", "augmentation", "data set", "study"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_at_most_fifteen_lines(name: str) -> None:
    recipe = RECIPES[name]
    lines = [line for text in (*recipe.files.values(), recipe.command) for line in text.splitlines() if line.strip()]
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 140


def test_the_recipe_of_a_loss_trains_with_it(follow: Follow) -> None:
    (run,) = follow("loss", *FEW)
    assert run.config()["loss"] == {"_target_": "my_lab.HuberLoss", "delta": 0.5}
    assert run.result()["options"]["loss"] == "huber"
    # Cross-entropy of ten classes starts near ln 10; a Huber loss, averaged over classes, starts far below.
    assert run.steps()["loss"][0] < 0.5


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "program", ["cifar-lab train", pytest.param("python -m cifar_lab.train", marks=pytest.mark.slow)]
)
def test_the_recipe_of_a_model_trains_it_from_a_shell_in_the_current_folder(program: str, tmp_path: Path) -> None:
    RECIPES["model"].write(tmp_path)
    command = f"{RECIPES['model'].command.strip()} {' '.join(FEW)} logger=none"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command.replace("python -m cifar_lab.train", program),
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("outputs/*/*/")
    assert Run(folder).config()["model"]["_target_"] == "my_lab.MLP"
    assert Run(folder).result()["num_parameters"] == 3072 * 64 + 64 + 64 * 10 + 10


def test_the_recipe_of_an_optimizer_steps_with_it(follow: Follow) -> None:
    (run,) = follow("optimizer", *FEW, "batch_size=6")
    assert run.config()["optimizer"]["_target_"] == "my_lab.CentralisedSGD"
    torch.manual_seed(run.config()["seed"])
    start = CNN((4, 4, 4)).state_dict()["fc_layers.0.weight"]
    (file,) = run.weights.iterdir()
    end = torch.load(file, weights_only=True)["fc_layers.0.weight"]
    # Its steps have zero mean over a unit's inputs, so the units' mean weights do not change.
    assert (end - start).abs().max() > 1e-3
    torch.testing.assert_close(end.mean(1), start.mean(1), rtol=0, atol=1e-5)


def test_the_recipe_of_an_augmentation_changes_images_by_their_place_and_the_epoch(follow: Follow) -> None:
    (run,) = follow("augmentation", *FEW)
    assert run.config()["augment"] == {"_target_": "my_lab.Curriculum", "epochs": 2}
    my_lab = sys.modules["my_lab"]
    seen = []
    for epoch in range(2):
        visit = Visit(0, epoch, torch.tensor([0, 3, 1]), num_images=4, times=torch.full((3,), epoch))
        images = my_lab.Curriculum(2)(torch.ones(3, 32, 32, 3, dtype=torch.uint8), torch.Generator(), visit)
        seen.append(images[:, 16:].bool().all((1, 2, 3)).tolist())
    assert seen == [[True, False, True], [True] * 3]


def test_the_recipe_of_a_data_set_trains_on_it_with_any_number_of_classes(follow: Follow, tmp_path: Path) -> None:
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 4 * NUM_CLASSES), ("test", 2 * NUM_CLASSES)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % NUM_CLASSES
    np.savez(tmp_path / "my_images.npz", **arrays)  # type: ignore[arg-type]
    (run,) = follow("data set")
    result = run.result()
    assert (result["train_size"], result["val_size"], result["test_size"]) == (360, 40, 200)
    assert result["classes"] == [str(label) for label in range(NUM_CLASSES)]
    assert np.sum(result["confusion_matrix"], axis=1).tolist() == [2] * NUM_CLASSES


def test_the_recipe_of_a_study_runs_its_axes(follow: Follow, tmp_path: Path) -> None:
    runs = follow("study", *FEW)
    assert [run.config()["optimizer"]["lr"] for run in runs] == [0.01, 0.1]
    assert {run.config()["optimizer"]["_target_"] for run in runs} == {"torch.optim.SGD"}
    (folder,) = {run.folder.parent for run in runs}
    assert folder.parent == tmp_path / "outputs" and folder.name.startswith("study-rates-data=synthetic-")


def test_a_model_whose_number_of_classes_differs_from_the_datas_is_refused(lab: Lab) -> None:
    outcome = lab("data=synthetic", "data.num_train=20", "data.num_test=10", "model.num_classes=12", "epochs=1")
    refusal(outcome, "model.num_classes=12", "model.num_classes=10")
    assert not outcome.runs
