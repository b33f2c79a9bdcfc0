"""Files of version 0.1.0: the former names of its modules, and the run folders in `tests/old_runs`.

These are a sweep over `averaging=ema,none` and three runs with `resume=auto`: a cnn, a narrow VGG-A with SWA, and one
with the gradient probe and snapshots that a signal stopped after its first epoch. Figures are left out, and so are
checkpoints of finished runs, which nothing reads again. The configurations name components by that version's modules.
"""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cifar_lab
from cifar_lab import evaluate, status, table
from cifar_lab.runs import Run, find_runs
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.train.callbacks.averaging import EMA, SWA
from cifar_lab.trained import load
from tests.conftest import CHECKOUT, TINY, Called, Lab

KEPT = Path(__file__).parent / "old_runs"
FORMER = sorted(name for name, new in cifar_lab.MOVED.items() if new)
OPTION = "_target_: cifar_lab.callbacks.averaging.EMA\ndecay: 0.9\nuse_buffers: true\nupdate_every_n_steps: 1\n"


@pytest.fixture
def folder(lab: Lab, tmp_path: Path) -> Path:
    """A copy in the folder where the commands that wrote it look for it."""
    return Path(shutil.copytree(KEPT, tmp_path / "outputs" / "old"))


def _run(folder: Path, word: str) -> Run:
    (run,) = [run for run in find_runs(folder) if word in run.composition()["overrides"]]
    return run


def _mtimes(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    # The repository does not contain the figures, so they are drawn.
    return {str(path): path.stat().st_mtime_ns for path in files if path.parent.name != "figures"}


def test_old_runs_are_listed_and_compared(folder: Path, called: Called) -> None:
    for command, entries in ((status, lambda told: told["runs"]), (table, list)):
        code, out, err = called(command.main, "--json", folder)
        assert code == 0, err
        rows = entries(json.loads(out))
        assert sorted(row["state"].partition(":")[0] for row in rows) == ["finished"] * 4 + ["interrupted"]
    assert {row["model"] for row in rows} == {"cnn", "vgg_a"}


@pytest.mark.parametrize("word", ["averaging=ema", "averaging=none", "averaging=swa", "model=cnn"])
def test_old_weights_give_the_recorded_accuracy(folder: Path, called: Called, word: str) -> None:
    run = _run(folder, word)
    code, _, err = called(evaluate.main, run.folder)
    assert code == 0, err
    evaluation = json.loads((run.folder / "evaluation" / "test" / "evaluation.json").read_text())
    assert evaluation["acc"] == pytest.approx(run.result()["test/acc"])


def test_an_old_stopped_run_is_resumed(folder: Path, lab: Lab) -> None:
    run = _run(folder, "probe=gradient")
    first = run.metrics().iloc[0]
    outcome = lab(f"resume={run.folder}")
    assert outcome.code == 0, outcome.stderr
    assert run.state() == "finished"
    assert run.metrics().iloc[0].equals(first)
    assert list(run.metrics()["epoch"]) == [1, 2]
    assert list(run.probes()["step"]) == [0, 1, 2, 4, 5]
    assert load(run.folder).architecture == "vgg_a bn=true"


@pytest.mark.parametrize("words", ["averaging=ema,none", "averaging=swa", "model=cnn"])
def test_the_same_command_trains_nothing_again(folder: Path, lab: Lab, words: str) -> None:
    run = _run(folder, words.partition(",")[0])
    before = _mtimes(run.folder)
    typed = [word for word in run.composition()["overrides"] if not word.startswith("averaging=ema")]
    outcome = lab("--multirun", *typed, words) if "," in words else lab(*typed, "resume=auto")
    assert outcome.code == 0, outcome.stderr
    assert len(outcome.runs) == 5
    assert _mtimes(run.folder) == before


@pytest.mark.parametrize("name", FORMER)
def test_a_former_module_name_is_the_same_module_with_a_warning(name: str) -> None:
    for module in [name, *(parent for parent in cifar_lab.MOVED if name.startswith(f"{parent}."))]:
        sys.modules.pop(module, None)
    now = importlib.import_module(cifar_lab.MOVED[name])
    with pytest.warns(FutureWarning, match=cifar_lab.MOVED[name]):
        assert importlib.import_module(name) is now
    assert now.__spec__ is not None
    assert now.__spec__.name == now.__name__ == cifar_lab.MOVED[name]


def test_the_classifier_needs_neither_hydra_nor_figures() -> None:
    # torchmetrics imports matplotlib itself, if installed
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
