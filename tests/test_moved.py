"""Modules of version 0.1 under the names that its README, docs and options' files used."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import cifar_lab
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.train.callbacks.averaging import EMA, SWA
from tests.conftest import CHECKOUT, TINY

FORMER = sorted(name for name, new in cifar_lab.MOVED.items() if new)
OPTION = "_target_: cifar_lab.callbacks.averaging.EMA\ndecay: 0.9\nuse_buffers: true\nupdate_every_n_steps: 1\n"


@pytest.mark.parametrize("name", FORMER)
def test_a_former_name_is_the_same_module_and_warns(name: str) -> None:
    for module in [name, *(parent for parent in cifar_lab.MOVED if name.startswith(f"{parent}."))]:
        sys.modules.pop(module, None)
    now = importlib.import_module(cifar_lab.MOVED[name])
    with pytest.warns(FutureWarning, match=cifar_lab.MOVED[name]):
        assert importlib.import_module(name) is now
    assert now.__spec__ is not None
    assert now.__spec__.name == now.__name__ == cifar_lab.MOVED[name]


def test_the_classifier_needs_neither_hydra_nor_figures() -> None:
    # matplotlib itself is imported by torchmetrics, where it is installed.
    code = "import sys, cifar_lab.train.classifier; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert not {"hydra", "omegaconf", "cifar_lab.figures", "cifar_lab.train.command"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("cifar_lab.callbacks.averaging.EMA", EMA),
        ("lightning.pytorch.callbacks.EMAWeightAveraging", EMA),
        ("cifar_lab.callbacks.averaging.SWA", SWA),
    ],
)
def test_a_component_that_has_moved_keeps_its_fingerprint(former: str, now: type) -> None:
    target = f"{now.__module__}.{now.__qualname__}"
    assert fingerprint({"averaging": {"_target_": former}}) == fingerprint({"averaging": {"_target_": target}})


def test_an_options_file_may_use_a_former_name(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "averaging"
    folder.mkdir(parents=True)
    (folder / "old.yaml").write_text(OPTION, encoding="utf-8")
    words = ["--config-dir", "mine", *TINY, "epochs=1", "averaging=old", "logger=none"]
    done = subprocess.run(
        [sys.executable, "-m", "cifar_lab.train", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cifar_lab.train.callbacks.averaging.EMA") == 1
    assert done.stderr == ""
