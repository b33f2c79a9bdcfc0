"""`docs/configuration.md` is what `conf/` says, and `conf/` says something of everything."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.config import checks, conf_folder
from cifar_lab.config.options import groups, options, scalars
from cifar_lab.config.reference import anchor, page

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_the_module_prints_the_page_whatever_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_LAB_DATA", "/data")
    command = [sys.executable, "-m", "cifar_lab.config.reference"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == page()


def test_every_group_option_and_key_has_a_description() -> None:
    assert all(description for _, description in groups().values())
    for group in groups():
        for option in options(group):
            assert option.description, f"conf/{group}/{option.name}.yaml needs a comment above its first key"
            for setting in option.settings:
                needs_none = group in {"experiment", "study", "search"}
                assert setting.description or needs_none, f"{setting.key} of {option.name} needs a comment"
    assert all(setting.description for setting in scalars())


def test_every_group_option_and_key_stands_on_the_page() -> None:
    text = PAGE.read_text()
    folders = {folder.name for folder in conf_folder().iterdir() if folder.is_dir()} - {"hydra"}
    assert set(groups()) == folders
    for folder in folders:
        for path in (conf_folder() / folder).glob("*.yaml"):
            assert f"`{path.stem}`" in text
            for key in re.findall(r"^(\w+): ", path.read_text(), re.MULTILINE):
                assert (
                    key.endswith("_")
                    or folder in {"experiment", "study", "search"}
                    or re.search(rf"^\| `{folder}\.{key}[`.]", text, re.M)
                )


def test_links_within_the_page_lead_somewhere() -> None:
    text = PAGE.read_text()
    headings = {anchor(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= headings


@pytest.mark.parametrize(
    ("key", "default", "words"),
    [
        ("optimizer.lr", 1e-3, "a number above 0"),
        ("model.stages", [[64], [128]], "a list, each a list, each a whole number from 1 on"),
        ("grad_clip", 1.0, "a number from 0 on, or null"),
        ("model.init", "he", "default, xavier, he"),
        ("data.download", None, "true or false, or null"),
        ("bn", True, "true or false"),
    ],
)
def test_what_a_key_takes_is_said_in_words(key: str, default: Any, words: str) -> None:
    assert checks.accepted(key, default) == words
