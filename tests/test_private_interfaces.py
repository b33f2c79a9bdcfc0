"""Private names of other packages: all that are used are listed in docs/private_interfaces.md, and exist."""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cifar_lab
from tests.conftest import CHECKOUT

PAGE = (CHECKOUT / "docs" / "private_interfaces.md").read_text(encoding="utf-8")
LISTED = re.findall(r"^\| `([\w.]+:[\w.<]+)` \| `([\w/.]+)` \|", PAGE, re.MULTILINE)
PACKAGE = Path(cifar_lab.__file__).parent


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _used(tree: ast.Module) -> Iterator[str]:
    """Yield private names of other packages, as `module:name`, that imports and module attributes show."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("cifar_lab"):
            for alias in node.names:
                if any(map(_is_private, f"{node.module}.{alias.name}".split("."))):
                    yield f"{node.module}:{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in modules and root.id != "os":  # os._exit is documented
                yield f"{ast.unparse(node.value)}:{node.attr}"


def test_all_private_names_in_use_are_listed() -> None:
    listed = {part for name, _ in LISTED for part in (name, name.rpartition(".")[0])}  # includes the class of a method
    for path in PACKAGE.rglob("*.py"):
        for name in _used(ast.parse(path.read_text(encoding="utf-8"))):
            assert name in listed, f"{path.relative_to(PACKAGE)} uses {name}, which docs/private_interfaces.md lacks"


@pytest.mark.parametrize(("name", "file"), LISTED, ids=[name for name, _ in LISTED])
def test_listed_private_names_exist_and_are_used(name: str, file: str) -> None:
    module, _, path = name.partition(":")
    package = module.partition(".")[0]
    if package not in sys.stdlib_module_names:
        pytest.importorskip(package)
    changed = f"{package} has changed {name}, which cifar_lab/{file} uses: see docs/private_interfaces.md"
    owner, _, attribute = path.partition("<")
    try:
        found = importlib.import_module(module)
        for part in owner.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        pytest.fail(changed)
    if attribute:
        defined = [one for one in inspect.getmro(found) if one is not object] if inspect.isclass(found) else [found]
        code = "".join(map(inspect.getsource, defined))
        assert re.search(rf"\b{attribute}\b", code), changed
    last = attribute or owner.rpartition(".")[2]
    assert re.search(rf"\b{last}\b", (PACKAGE / file).read_text(encoding="utf-8")), f"{file} no longer uses {name}"
