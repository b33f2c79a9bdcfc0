"""The documentation is correct: code prints the output shown below it, links work, and every module is described."""

import contextlib
import io
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cifar_lab
from cifar_lab.config.command_line import parsed
from cifar_lab.config.preflight import plan_of
from cifar_lab.config.reference import anchor
from tests.conftest import CHECKOUT

DOCS = CHECKOUT / "docs"
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
SHOWN = "num_train=1000, num_test=200"  # in its Python example
PAGES = [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]
COMMANDS = sorted(
    {
        command
        for page in (DOCS.parent / "README.md", DOCS / "first_ablation.md", DOCS / "coming_from.md")
        for command in re.findall(
            r"^python -m cifar_lab\.train (.*)$|`cifar-lab train (.*?)`", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        for command in command
        if command.strip(".") and "my_conf" not in command and "=RUN" not in command  # recipes have their own test
    }
)


def test_the_numbers_of_the_first_ablation_are_computed() -> None:
    blocks = re.findall(
        r"```python\n(.*?)```\n\n```text\n(.*?)```", (DOCS / "first_ablation.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(blocks) == 2
    for code, shown in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "first_ablation.md", "exec"), {})
        assert printed.getvalue() == shown


def quick_and_slow(commands: list[str]) -> Iterator[Any]:
    """Yield all commands; sweeps, composed job by job, are slow if they set nothing that others do not set."""
    seen: set[str] = set()
    parts = {command: shlex.split(command, comments=True) for command in commands}
    sweeps = {command for command in commands if {"-m", "--multirun"} & set(parts[command]) or "study=" in command}
    for command in sorted(commands, key=lambda command: (command in sweeps, -len(parts[command]))):
        settings = {word.partition("=")[0] for word in parts[command] if not word.startswith("-")}
        yield pytest.param(command, marks=[pytest.mark.slow] if command in sweeps and settings <= seen else [])
        seen |= settings


@pytest.mark.parametrize("command", list(quick_and_slow(COMMANDS)))
def test_the_commands_that_a_page_shows_can_be_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    monkeypatch.setattr("cifar_lab.config.launchers.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("importlib.util.find_spec", lambda *names: pytest.__spec__)  # as if every extra were installed
    for split, label in itertools.product(("train", "test"), ("cat", "dog")):
        (tmp_path / "photos" / split / label).mkdir(parents=True)
        (tmp_path / "photos" / split / label / "1.png").touch()
    monkeypatch.chdir(tmp_path)
    plan_of(parsed(shlex.split(command, comments=True)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_work(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            name, _, heading = target.partition("#")
            linked = page.parent / name if name else page
            assert linked.exists(), target
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
            assert not heading or heading in map(anchor, headings), target


def test_the_architecture_names_every_module() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for path in Path(cifar_lab.__file__).parent.iterdir():
        if (path.is_dir() and (path / "__init__.py").exists()) or (path.suffix == ".py" and path.stem != "__init__"):
            assert re.search(rf"\b{path.stem}\b", page), path.name


# Lightning's defaults, as a reader sees them: its progress bar and its hints.
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:The '\\w+_dataloader' does not have many workers")
@pytest.mark.parametrize("images", ["num_train=60, num_test=20", pytest.param(SHOWN, marks=pytest.mark.slow)])
def test_the_python_example_runs(images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if SHOWN in block)
    code = code.replace(SHOWN, images)
    namespace: dict[str, object] = {}
    exec(compile(code, "recipes.md", "exec"), namespace)
    trainer = namespace["trainer"]
    assert {"test/acc", "test/loss"} <= trainer.callback_metrics.keys()  # type: ignore[attr-defined]


def test_the_make_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", README, re.MULTILINE))
    assert {first or second for first, second in named} <= targets
    phony = re.search(r"^\.PHONY: (.*)$", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    assert set(phony.group(1).split()) == targets
