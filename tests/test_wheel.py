"""The published files: a wheel and a source archive that work without the checkout."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from cifar_lab import __version__
from cifar_lab.runs import Run
from tests.conftest import CHECKOUT, TINY

WHEEL = f"cifar_lab-{__version__}-py3-none-any.whl"
SCRIPT, MODULE = ("cifar-lab", "train"), ("python", "-m", "cifar_lab.train")
# File types of the package.
KINDS = {".py", ".typed", ".j2", ".yaml", ".toml", ".md"}  # the last three belong to the lab that `init` writes


def _run(*command: str | Path, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _build(source: Path, target: str, folder: Path) -> Path:
    # Build isolation would download the build tool.
    _run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, folder=source)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(CHECKOUT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts of a new environment with the wheel, which finds its dependencies, such as torch, in this environment."""
    folder = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python = folder / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel, folder=folder)
    installed = Path(
        _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip()
    )
    # Folders named by a .pth file are searched last, and .pth files in them, such as the checkout's, are not read.
    found = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))]
    (installed / "dependencies.pth").write_text("\n".join(dict.fromkeys(found)))
    where = _run(python, "-c", "import cifar_lab; print(cifar_lab.__file__)", folder=folder)
    assert Path(where.strip()) == installed / "cifar_lab" / "__init__.py"
    return python.parent


def test_the_wheel_holds_only_the_package_its_options_and_its_licence(wheel: Path) -> None:
    assert wheel.name == WHEEL
    members = zipfile.ZipFile(wheel).infolist()
    names = {member.filename for member in members}
    options = {f"cifar_lab/{path.relative_to(CHECKOUT).as_posix()}" for path in (CHECKOUT / "conf").rglob("*.yaml")}
    code = [path for path in (CHECKOUT / "cifar_lab").rglob("*") if path.suffix in KINDS]
    package = {path.relative_to(CHECKOUT).as_posix() for path in code}
    assert options and package
    information = WHEEL.removesuffix("-py3-none-any.whl") + ".dist-info"
    assert {name for name in names if not name.startswith(information)} == options | package
    assert f"{information}/licenses/LICENSE" in names
    # Source files only: no data files, and about 1.4 kB each when compressed.
    assert max(member.file_size for member in members) < 40_000
    assert wheel.stat().st_size < 1_600 * len(members)


def test_the_installed_script_prints_its_version_and_subcommands_and_composes(scripts: Path, tmp_path: Path) -> None:
    assert _run(scripts / "cifar-lab", "--version", folder=tmp_path).split() == ["cifar-lab", __version__]
    assert "train" in _run(scripts / "cifar-lab", "--help", folder=tmp_path).split()
    printed = _run(scripts / SCRIPT[0], *SCRIPT[1:], "--cfg", "job", "--package", "loss", "loss=focal", folder=tmp_path)
    assert {"_target_: cifar_lab.losses.FocalLoss", "gamma: 2.0"} <= set(printed.splitlines())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", [SCRIPT, MODULE])
def test_the_installed_package_trains_in_an_empty_folder(
    command: tuple[str, ...], scripts: Path, tmp_path: Path
) -> None:
    _run(scripts / command[0], *command[1:], "--multirun", "loss=ce,mse", *TINY, folder=tmp_path)
    results = [Run(path.parent).result() for path in sorted(tmp_path.glob("outputs/*/*/result.json"))]
    assert [(result["options"]["loss"], result["git_revision"]) for result in results] == [("ce", None), ("mse", None)]
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_the_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = _build(CHECKOUT, "sdist", tmp_path / "archive")
    with tarfile.open(archive) as packed:
        packed.extractall(
            tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )  # from Python 3.11.4
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    again = _build(source, "wheel", tmp_path / "wheel")
    assert {path.name for path in source.iterdir()} >= {"conf", "tests", "docs", "Makefile", "constraints.txt"}
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())
