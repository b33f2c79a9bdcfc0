import re
from pathlib import Path

import pytest

from cifar_lab.config import conf_folder
from tests.conftest import CHECKOUT

ROOT = CHECKOUT
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = "num_train=1000, num_test=200"  # of its example in Python


# Lightning's defaults, as a reader would meet them: its bar and its hints.
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:The '\\w+_dataloader' does not have many workers")
@pytest.mark.parametrize("images", ["num_train=60, num_test=20", pytest.param(SHOWN, marks=pytest.mark.slow)])
def test_the_python_example_runs(images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert SHOWN in code
    code = code.replace(SHOWN, images)
    namespace: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), namespace)
    trainer = namespace["trainer"]
    assert {"test/acc", "test/loss"} <= trainer.callback_metrics.keys()  # type: ignore[attr-defined]


def test_the_table_of_groups_is_complete_and_starts_with_the_defaults() -> None:
    table = {
        group: re.findall(r"`([a-z0-9_]+)`", options.partition(";")[0])
        for group, options in re.findall(r"^\| `(\w+)` \| (`.*?) \|$", README, re.MULTILINE)
    }
    groups = {
        folder.name: {path.stem for path in folder.glob("*.yaml")}
        for folder in conf_folder().iterdir()
        if folder.is_dir() and folder.name not in {"hydra", "experiment", "study", "search"}
    }
    assert {group: set(options) for group, options in table.items()} == groups
    defaults = dict(
        re.findall(r"^  - (\w+): (\w+)", (conf_folder() / "train.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for group in ("experiment", "study", "search"):
        del defaults[group]
    assert {group: options[0] for group, options in table.items()} == defaults


def test_every_experiment_study_and_search_is_named() -> None:
    for group in ("experiment", "study", "search"):
        for path in (conf_folder() / group).glob("*.yaml"):
            assert f"`{path.stem}`" in README


def test_the_commands_of_the_house_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", README, re.MULTILINE))
    assert {first or second for first, second in named} <= targets
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    assert set(phony.group(1).split()) == targets
