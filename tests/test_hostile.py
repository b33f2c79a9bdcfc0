"""Malicious files and files cut by a crash: refused in one line or skipped, and no code in them runs.

`tests/data` and `tests/runs` test archives, data files and checkpoints; this module tests run folders and YAML option
files, as the commands read them.
"""

import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import yaml

from cifar_lab import status, table
from cifar_lab.config.checks import check_values
from cifar_lab.config.composition import foreign_groups
from cifar_lab.config.resume import merged
from cifar_lab.runs import Run, UnreadableError
from cifar_lab.train import run as train
from tests.comparison import differences
from tests.conftest import TINY, Called, Lab, Outcome, names

LINE = (*TINY, "scheduler=constant", "trainer.precision=32-true", "logger=tensorboard")
DEEP = "[" * 200_000
# Ten levels of ten repetitions each: a few kilobytes that expand to gigabytes.
UNFOLDING = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 11))
PYTHON_OBJECT = "!!python/object/apply:os.system ['touch marker']"


class Touch:
    """Creates the file `marker` when unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch marker",)


class Killed(L.Callback):
    """Copies a run's folder in the state after a kill in the second epoch; the lock names a process that has ended."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 1:
            shutil.copytree(self.run.folder, self.folder)
            lock = Run(self.folder).lock_file
            lock.write_text(json.dumps({**json.loads(lock.read_text()), "started": "0"}))


@pytest.fixture(scope="module")
def _run_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with redirect_stdout(io.StringIO()):
            train([*LINE, "hydra.run.dir=whole"], [Killed(Run("whole"), folder / "killed")])
    return folder


@pytest.fixture
def killed_run(_run_folders: Path, lab: Lab) -> Run:
    """A run of two epochs in the current folder, killed after the first was saved."""
    return Run(shutil.copytree(_run_folders / "killed", "killed"))


@pytest.fixture
def whole_run(_run_folders: Path, lab: Lab) -> Run:
    """The same run, undisturbed, in the folder `outputs/whole`."""
    return Run(shutil.copytree(_run_folders / "whole", "outputs/whole"))


@pytest.fixture
def run_command(called: Called) -> Callable[..., str]:
    """Run a command on folders, check that it succeeds, and return its output."""

    def run(module: Any, *arguments: str) -> str:
        code, out, err = called(module.main, *arguments)
        assert (code, err) == (0, "")
        return out

    return run


def _add_override(run: Run, line: str) -> None:
    """Add an override to the command line that a run has recorded."""
    told = run.composition()
    run.composition_file.write_text(json.dumps({**told, "overrides": [*told["overrides"], line]}))


def _config_with(run: Run, **changes: Any) -> str:
    """Return a run's configuration as YAML, with top-level values replaced."""
    return yaml.safe_dump({**run.config(), **changes})


def _check_refused(outcome: Outcome, *facts: object) -> None:
    assert outcome.code == 2
    names(outcome.stderr, *facts)
    assert not Path("marker").exists()


FILE = re.escape("killed/.hydra/config.yaml")
CONFIGURATIONS = {
    "an object of Python": (lambda run: PYTHON_OBJECT, f"{FILE}.*python/object"),
    "a target": (
        lambda run: _config_with(run, loss={"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path"}}),
        r"loss\._target_=pathlib\.Path\.touch",
    ),
    "a target inside": (
        lambda run: _config_with(
            run, model={**run.config()["model"], "activation": {"_target_": "torch.load", "f": "x"}}
        ),
        r"model\.activation\._target_=torch\.load",
    ),
    "a target in an interpolation": (
        lambda run: _config_with(run, model={**run.config()["model"], "init": "${oc.create:'{_target_: torch.load}'}"}),
        f"{FILE}.*{re.escape('${')}",
    ),
    "a list in place of an option": (lambda run: _config_with(run, loss=[1]), f"{FILE}.*loss"),
    "a word in place of a number": (lambda run: _config_with(run, seed="one"), "seed.* str.* int"),
    "a number out of range": (lambda run: _config_with(run, batch_size=-6), "batch_size=-6"),
    "what ends a process": (lambda run: DEEP, FILE),
    "what unfolds": (lambda run: UNFOLDING, FILE),
    "no text": (lambda run: "\x00\x01", FILE),
}


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_hostile_configuration_is_refused(killed_run: Run, kind: str) -> None:
    composed = killed_run.config()
    make, facts = CONFIGURATIONS[kind]
    killed_run.config_file.write_text(make(killed_run))
    with pytest.raises(ValueError, match=facts) as error:
        check_values(merged(killed_run, composed, []), composed, foreign_groups(composed))
    assert len(str(error.value).splitlines()) == 1
    assert not Path("marker").exists()


FORBIDDEN = (
    *("--experimental-rerun=killed/config.pickle", "--config-dir=killed", "hydra/launcher=submitit_local"),
    *("+hydra.callbacks.x._target_=pathlib.Path.touch", "~hydra.job_logging", "hydra.searchpath=[pkg://this]"),
)


@pytest.mark.parametrize("line", FORBIDDEN)
def test_a_recorded_command_line_provides_only_settings(killed_run: Run, lab: Lab, line: str) -> None:
    (killed_run.folder / "config.pickle").write_bytes(pickle.dumps(Touch()))
    _add_override(killed_run, line)
    _check_refused(lab("resume=killed"), killed_run.composition_file, repr(line))


def test_the_resuming_command_and_not_the_run_allows_components(
    killed_run: Run, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("outside_loss.py").write_text(
        "import pathlib, torch\npathlib.Path('marker').touch()\nclass Loss(torch.nn.CrossEntropyLoss): pass\n"
    )
    monkeypatch.syspath_prepend(".")
    loss = {**killed_run.config()["loss"], "_target_": "outside_loss.Loss"}
    killed_run.config_file.write_text(_config_with(killed_run, loss=loss, allow=["outside_loss"]))
    _add_override(killed_run, "allow=[outside_loss]")
    _check_refused(lab("resume=killed"), "loss._target_=outside_loss.Loss", "allow=[outside_loss]")
    assert lab("resume=killed", "allow=[outside_loss]").code == 0
    assert Path("marker").exists()


HYDRAS = "# @package _global_\nhydra:\n  "


@pytest.mark.parametrize(
    ("words", "content", "fact"),
    [
        *(("loss=evil", text, "") for text in (PYTHON_OBJECT, f"_target_: {PYTHON_OBJECT}", "a: [", "\x00")),
        ("experiment=evil", HYDRAS + "callbacks: {x: {_target_: os.mkdir, path: marker}}", "os.mkdir"),
        (
            "-m seed=0,1 experiment=evil",
            HYDRAS + "job_logging: {handlers: {x: {(): os.mkdir, path: marker}}}",
            "os.mkdir",
        ),
    ],
)
def test_an_option_of_hostile_yaml_is_refused(lab: Lab, words: str, content: str, fact: str) -> None:
    for group in ("loss", "experiment"):
        Path("conf", group).mkdir(parents=True)
        Path("conf", group, "evil.yaml").write_text(content)
    _check_refused(lab("--config-dir=conf", *words.split(), *TINY), fact)


def test_a_run_resumes_after_a_kill_that_cut_its_files_and_with_a_damaged_status(
    killed_run: Run, whole_run: Run, lab: Lab
) -> None:
    with killed_run.metrics_file.open("a") as file:
        file.write("2,18,2.30")
    (events,) = killed_run.tensorboard.glob("**/events.*")
    events.write_bytes(events.read_bytes()[: events.stat().st_size // 2])
    killed_run.status_file.write_bytes(b"\xff\x00")
    assert lab("resume=killed", "data.num_train=1").code == 2
    assert killed_run.metrics_file.exists() and killed_run.config_file.exists()
    assert lab("resume=killed").code == 0
    assert killed_run.metrics()["epoch"].tolist() == [1, 2]
    assert not differences(killed_run, whole_run)


def test_a_run_with_damaged_earlier_epochs_is_not_resumed(killed_run: Run) -> None:
    killed_run.metrics_file.write_text(killed_run.metrics_file.read_text().replace("\n1,", "\nx,"))
    with pytest.raises(UnreadableError, match=rf"{re.escape(str(killed_run.metrics_file))}.*\b1\b"):
        killed_run.check_records(epochs=1, steps=9)


def test_a_header_cut_by_a_kill_is_written_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics_file.write_text("epoch,val/a")
    run.truncate(epochs=0, steps=3)
    run.append_metrics({"epoch": 1, "val/acc": 0.5})
    assert run.metrics().to_dict("list") == {"epoch": [1], "val/acc": [0.5]}


METRICS = "epoch,step,train/loss,train/acc,val/loss,val/acc\n1,9,2.5,0.1,2.4,0.125\n2,18,2.25,0.2,2.3,0.25\n"
READ_PAST = {
    "half a row": "3,27,2.",
    "zeros": "\0" * 100,
    "a row of zeros": "\0" * 100 + "\n",
    "a row of words": "a,b,c\n",
    "a row that is too long": "3" + ",1" * 40 + "\n",
    "two rows in one": "3,27,2.3,27,2.1,0.1,2.2,0.5\n",
    "a row twice": "2,18,2.25,0.2,2.3,0.25\n",
}


@pytest.mark.parametrize("kind", READ_PAST)
def test_damage_after_the_last_epoch_is_ignored(tmp_path: Path, kind: str) -> None:
    run = Run(tmp_path)
    run.metrics_file.write_text(METRICS + READ_PAST[kind])
    assert run.metrics()["epoch"].tolist() == [1, 2]
    assert (run.best_epoch(), run.validation(2)) == (2, {"val/acc": 0.25, "val/loss": 2.3})


def test_the_later_row_of_an_epoch_that_was_written_twice_counts(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics_file.write_text(METRICS + "1,9,2.0,0.3,2.1,0.375\n")
    assert run.metrics().set_index("epoch")["val/acc"].to_dict() == {1: 0.375, 2: 0.25}


@pytest.mark.parametrize("content", [METRICS.replace("0.25\n", "word\n"), "", "epoch,val", "step\n1\n", '"'])
def test_metrics_without_numbers_are_named(tmp_path: Path, content: str) -> None:
    run = Run(tmp_path)
    run.metrics_file.write_text(content)
    with pytest.raises(UnreadableError, match=re.escape(str(run.metrics_file))) as error:
        run.metrics()
    assert len(str(error.value).splitlines()) == 1


def test_truncated_steps_and_steps_with_objects_are_named_and_run_nothing(tmp_path: Path, lab: Lab) -> None:
    run = Run(tmp_path)
    run.write_steps({"lr": np.arange(100.0)})
    content = run.steps_file.read_bytes()
    np.savez(run.steps_file, lr=np.array([Touch()], dtype=object))
    objects = run.steps_file.read_bytes()
    for damaged in (b"", b"PK\x03\x04", b"junk", content[:300], content[:-30], objects):
        run.steps_file.write_bytes(damaged)
        with pytest.raises(UnreadableError, match=re.escape(str(run.steps_file))):
            run.steps()
    assert not Path("marker").exists()


def test_tables_do_not_read_tensorboard_files(whole_run: Run, run_command: Callable[..., str]) -> None:
    before = run_command(table, "outputs", "--json")
    for events in whole_run.tensorboard.glob("**/events.*"):
        events.write_bytes(b"\xff" * 1_000)
    assert run_command(table, "outputs", "--json") == before
    shutil.rmtree(whole_run.tensorboard)
    assert run_command(table, "outputs", "--json") == before


# Damage to a finished run, and whether a table says nothing about it, because it does not read the file or takes the
# equal run instead.
DAMAGE: dict[str, tuple[str, Callable[[str], str | bytes | None], bool]] = {
    "status, binary": ("status.json", lambda text: b"\x00\xff\xfe\x80", True),
    "status, deep": ("status.json", lambda text: DEEP, True),
    "status, kinds": ("status.json", lambda text: json.dumps({**json.loads(text), "heartbeat": "now"}), True),
    "status, NaN": ("status.json", lambda text: json.dumps({**json.loads(text), "heartbeat": float("nan")}), True),
    "status, no state": ("status.json", lambda text: '{"overrides": [1]}', True),
    "result, binary": ("result.json", lambda text: b"\xff\xfe\x00", False),
    "result, deep": ("result.json", lambda text: text.replace('"name": ', f'"x": {DEEP}, "name": '), False),
    "result, empty": ("result.json", lambda text: "{}", False),
    "result, only accuracy": ("result.json", lambda text: '{"test/acc": 0.5}', False),
    "result, NaN": ("result.json", lambda text: json.dumps({**json.loads(text), "test/acc": float("nan")}), False),
    "result, infinite": ("result.json", lambda text: json.dumps({**json.loads(text), "test/acc": 10.0**300}), False),
    "result, huge": ("result.json", lambda text: text.replace('"test_size": ', f'"test_size": {"9" * 4_000}'), False),
    "result, words": ("result.json", lambda text: json.dumps({**json.loads(text), "test/acc": "0.5"}), False),
    "result, a folder": ("result.json", lambda text: None, False),
    "metrics, binary": ("metrics.csv", lambda text: b"\xff\x00\x01", True),
    "metrics, words": ("metrics.csv", lambda text: text.replace("1,9,", "1,nine,"), True),
    "metrics, a folder": ("metrics.csv", lambda text: None, True),
    "steps, binary": ("steps.npz", lambda text: b"PK\x03\x04", True),
    "configuration, object": (".hydra/config.yaml", lambda text: f"{text}x: {PYTHON_OBJECT}\n", True),
    "configuration, deep": (".hydra/config.yaml", lambda text: DEEP, True),
    "configuration, unfolding": (".hydra/config.yaml", lambda text: text + UNFOLDING, True),
    "configuration, recursive": (".hydra/config.yaml", lambda text: f"{text}x: &x [*x]\n", True),
    "configuration, a date": (".hydra/config.yaml", lambda text: f"{text}x: 2001-01-01\n", True),
    "configuration, keys": (".hydra/config.yaml", lambda text: f"{text}1: 2\n", True),
    "configuration, a key that is a list": (".hydra/config.yaml", lambda text: f"{text}? [1]\n: 2\n", True),
    "configuration, seed": (".hydra/config.yaml", lambda text: text.replace("seed: 0", "seed: [0]"), True),
    "overrides, object": (".hydra/overrides.yaml", lambda text: f"- {PYTHON_OBJECT}", True),
    "composition, half": (".hydra/composition.json", lambda text: text[:20], False),
    "composition, a list": (".hydra/composition.json", lambda text: "[1, 2]", False),
    "composition, missing": (".hydra/composition.json", lambda text: None, False),
    "composition, deep": (".hydra/composition.json", lambda text: DEEP, False),
    "composition, seed": (".hydra/composition.json", lambda text: text.replace('"seed": 0', '"seed": [0]'), False),
    "composition, no configuration": (".hydra/composition.json", lambda text: text.replace('"config"', '"c"'), False),
    "composition, kinds": (".hydra/composition.json", lambda t: t.replace('"model": "', '"model": [1], "m": "'), False),
    "plan, deep": ("../sweep.json", lambda text: DEEP, True),
    "plan, words": ("../sweep.json", lambda text: json.dumps({"jobs": [["seed=²", f"a={DEEP}"]]}), True),
}


def _damage(run: Run, kind: str) -> None:
    name, change, _ = DAMAGE[kind]
    path = run.folder / name
    content = change("" if name in ("../sweep.json", "steps.npz") else path.read_text())
    if content is None:
        path.unlink()
        if kind.endswith("a folder"):
            path.mkdir()
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_no_hostile_file_breaks_a_list_or_a_table(whole_run: Run, run_command: Callable[..., str]) -> None:
    for kind in DAMAGE:
        folder = Path("outputs/plans", kind, "run") if kind.startswith("plan") else Path("outputs", kind)
        _damage(Run(shutil.copytree(whole_run.folder, folder)), kind)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    runs = json.loads(run_command(status, "outputs", "--json"), parse_constant=refuse)["runs"]
    states = {Path(run["folder"]).relative_to("outputs").as_posix(): run["state"] for run in runs}
    assert states.pop("whole") == "finished"
    assert len(states) == len(DAMAGE)
    for place, state in states.items():
        kind = place.removeprefix("plans/").removesuffix("/run")
        is_unreadable = kind.startswith(("status", "result")) and kind != "result, only accuracy"
        expected = "unknown" if kind == "status, no state" else "unreadable" if is_unreadable else "finished"
        assert state == expected, kind
    assert len(run_command(status, "outputs").splitlines()) > len(runs)
    told = [row["state"] for row in json.loads(run_command(table, "outputs", "--json"), parse_constant=refuse)]
    assert "finished" in told
    for kind, (_, _, is_silent) in DAMAGE.items():
        assert any("unreadable" in state and f"outputs/{kind}/" in state for state in told) != is_silent, kind
    run_command(table, "outputs")
    assert not Path("marker").exists()
