"""`docs/configuration.md` is generated from `conf/`, and `conf/` describes every key."""

import re
import runpy
from typing import Any

import pytest

from cifar_lab.config import checks, conf_folder, reference
from cifar_lab.config.options import groups, options, scalars
from tests.conftest import CHECKOUT

PAGE = (CHECKOUT / "docs" / "configuration.md").read_text(encoding="utf-8")
HEADED = {"experiment", "study", "search", "debug"}  # described by their headers, not by comments on their keys


def test_the_module_prints_the_page_whatever_the_users_data_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CIFAR_LAB_DATA", "/data")
    runpy.run_path(str(reference.__file__), run_name="__main__")
    assert capsys.readouterr().out == PAGE, "run `make docs`"


def test_every_group_option_and_key_has_a_description() -> None:
    assert all(description for _, description in groups().values())
    for group in groups():
        for option in options(group):
            assert option.description, f"conf/{group}/{option.name}.yaml needs a comment above its first key"
            for setting in option.settings:
                assert setting.description or group in HEADED, f"{setting.key} of {option.name} needs a comment"
    assert all(setting.description for setting in scalars())


def test_every_group_option_and_key_is_on_the_page() -> None:
    folders = {folder.name for folder in conf_folder().iterdir() if folder.is_dir()} - {"hydra"}
    assert set(groups()) == folders
    for folder in folders:
        for path in (conf_folder() / folder).glob("*.yaml"):
            assert f"`{path.stem}`" in PAGE
            keys = re.findall(r"^(\w+)(?<!_): ", path.read_text(encoding="utf-8"), re.MULTILINE)
            for key in () if folder in HEADED else keys:
                assert re.search(rf"^\| `{folder}\.{key}[`.]", PAGE, re.MULTILINE)


@pytest.mark.parametrize(
    ("key", "default", "facts"),
    [
        ("optimizer.lr", 1e-3, ["number", "0"]),
        ("model.stages", [[64], [128]], ["list", "list", "whole", "number", "1"]),
        ("grad_clip", 1.0, ["number", "0", "null"]),
        ("model.init", "he", ["default", "xavier", "he"]),
        ("data.download", None, ["true", "false", "null"]),
        ("bn", True, ["true", "false"]),
    ],
)
def test_the_values_of_a_key_are_described_in_words(key: str, default: Any, facts: list[str]) -> None:
    words = re.findall(r"\w+", checks.accepted(key, default))
    assert [word for word in words if word in {"number", "list", "whole", "null", *facts}] == facts
