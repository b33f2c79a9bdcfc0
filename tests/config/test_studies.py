"""A study is a controlled sweep, in one command that may be narrowed, and like any sweep in all else."""

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from cifar_lab.analysis.published import Scale
from cifar_lab.config import build, checked, conf_folder, preflight, resolved
from cifar_lab.config.published import tables
from cifar_lab.fingerprints import fingerprint, leaves
from tests.conftest import TINY, Outcome

Lab = Callable[..., Outcome]
Compose = Callable[..., DictConfig]

# What each varies, by number of values; three seeds each.
STUDIES = {
    "activation": {"activation": 6},
    "loss": {"loss": 4},
    "optimizer": {"optimizer": 4},
    "learning_rate_adam": {"optimizer.lr": 5},
    "learning_rate_adamw": {"optimizer.lr": 5},
    "learning_rate_sgd": {"optimizer.lr": 5},
    "learning_rate_sign_sgd": {"optimizer.lr": 5},
    "scheduler": {"scheduler": 6},
    "width": {"model.filters": 4},
    "dropout": {"model.dropout": 6},
    "batch_norm": {"bn": 2},
    "regularisation": {"l1": 3, "optimizer.weight_decay": 3},
    "augment": {"augment": 4},
    "smoothing": {"loss.smoothing": 4},
    "bn_landscape": {"bn": 2, "optimizer.lr": 4},
    "bn_smoothness": {"bn": 2, "model.init": 2},
}
# What follows an axis, as `model.batch_norm` does `bn`.
FOLLOWING = {"bn": {"model.batch_norm"}, "activation": {"model.activation"}, "augment": {"data.augment"}}
FILES = {path.stem: path.read_text() for path in (conf_folder() / "study").glob("*.yaml")}
EPOCH_IMAGES = 45_000


@cache
def _jobs(*arguments: str) -> list[list[str]]:
    return checked([*arguments, "data=synthetic"]).jobs


def _compositions(jobs: list[list[str]]) -> list[dict[str, Any]]:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return [resolved(compose("train", [*job, "name=test"])) for job in jobs]


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The compositions that a check goes through; of the seeds the first alone, as a composition takes long."""
    gone_through: list[dict[str, Any]] = []
    check, neighbours = preflight.check, preflight.neighbours

    def noting(config: dict[str, Any], *arguments: Any) -> None:
        gone_through.append(config)
        check(config, *arguments)

    def of_one_seed(overrides: Any) -> list[list[str]]:
        first, *others = neighbours(overrides)
        seeds = {line for line in first if line.startswith("seed=")}
        return [first, *(lines for lines in others if seeds <= set(lines))]

    monkeypatch.setattr(preflight, "check", noting)
    monkeypatch.setattr(preflight, "neighbours", of_one_seed)
    return gone_through


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs without a check of each, as a composition takes long."""
    monkeypatch.setattr(preflight, "neighbours", lambda overrides: [])


def _varies(axes: Mapping[str, int], key: str) -> bool:
    names = {*axes, *(name for axis in axes for name in FOLLOWING.get(axis, ()))}
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _header(name: str) -> dict[str, str]:
    text = re.sub(r"\n#   ", " ", FILES[name])
    return dict(re.findall(r"^# (\w+): (.*)$", text, re.MULTILINE))


def test_every_study_stands_here() -> None:
    assert set(FILES) == set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_the_jobs_of_a_study_differ_in_its_axes_alone(name: str, checks: list[dict[str, Any]]) -> None:
    axes, jobs = STUDIES[name], checked([f"study={name}", "data=synthetic"]).jobs
    # A check goes along each axis, so that of a single one it goes through all.
    compositions = checks if len(axes) == 1 else _compositions([job for job in jobs if "seed=0" in job])
    number = math.prod(axes.values())
    assert len({fingerprint(composition) for composition in compositions}) == len(compositions) == number
    assert len(set(map(frozenset, jobs))) == len(jobs) == 3 * number
    assert {line for job in jobs for line in job if line.startswith("seed=")} == {"seed=0", "seed=1", "seed=2"}
    for key, values in axes.items():
        assert len({line for job in jobs for line in job if line.startswith(f"{key}=")}) == values
    first, *rest = (
        {key: value for key, value in leaves(composition) if not _varies(axes, key)} for composition in compositions
    )
    assert all(fixed == first for fixed in rest)


@pytest.mark.parametrize("name", STUDIES)
def test_a_studys_header_says_what_is_fixed_and_what_it_costs(composed: Compose, name: str) -> None:
    header, number = _header(name), 3 * math.prod(STUDIES[name].values())
    assert list(header) == ["Question", "Source", "Command", "Fixed", "Cost"]
    assert header["Command"] == f"python -m cifar_lab.train study={name}"
    fixed = header["Fixed"].split()
    written = {line.partition("=")[0] for line in fixed}
    plain = resolved(composed(f"study={name}"))
    groups = {"model", "activation", "loss", "optimizer", "scheduler", "averaging", "augment", "data", "protocol"}
    assert groups | {"bn", "epochs", "batch_size", "l1", "grad_clip"} <= written | set(STUDIES[name])
    assert not written & set(STUDIES[name])
    assert resolved(composed(f"study={name}", *fixed)) == plain
    images = f"{number * plain['epochs'] * EPOCH_IMAGES / 1e6:.1f}".removesuffix(".0")
    assert header["Cost"].startswith(f"{number} runs of {plain['epochs']} epochs, {images} million images trained")


def test_each_optimizer_has_its_own_rate_and_the_grid_around_it(composed: Compose) -> None:
    for name in ("adam", "adamw", "sgd", "sign_sgd"):
        own = composed(f"optimizer={name}").optimizer
        assert composed("study=optimizer", f"optimizer={name}").optimizer == own
        grid = yaml.safe_load(FILES[f"learning_rate_{name}"])["axes"]["optimizer.lr"]
        assert sorted(map(float, grid))[2] == own.lr
        assert composed(f"study=learning_rate_{name}").optimizer._target_ == own._target_


def test_the_landscapes_runs_are_the_reports_rows(composed: Compose) -> None:
    theirs = ["seed=2020", "protocol=report"]
    of_study = {
        fingerprint(resolved(composed("study=bn_landscape", f"bn={bn}", f"optimizer.lr={lr}", *theirs)))
        for bn in ("true", "false")
        for lr in ("1e-4", "5e-4", "1e-3", "2e-3")
    }
    (vgg,) = (table for table in tables() if table.name == "vgg")
    rows = {fingerprint(resolved(composed(*row.command(Scale.FULL, 2020, "report")))) for row in vgg.rows}
    assert of_study == rows and len(rows) == 8


@pytest.mark.parametrize("study", ["bn_landscape", "bn_smoothness"])
def test_runs_of_a_seed_see_the_same_batches_with_and_without_batch_norm(composed: Compose, study: str) -> None:
    batches = {}
    for bn in ("true", "false"):
        for seed in (0, 1):
            small = ["data=synthetic", "data.num_train=200", "data.num_test=10"]
            loader = build(composed(f"study={study}", f"bn={bn}", f"seed={seed}", *small).data).train_dataloader()
            loader.set_epoch(1)
            batches[bn, seed] = list(loader)
    for seed in (0, 1):
        for (images, labels), (others, theirs) in zip(batches["true", seed], batches["false", seed], strict=True):
            assert torch.equal(images, others) and torch.equal(labels, theirs)
    assert not torch.equal(batches["true", 0][0][1], batches["true", 1][0][1])


def test_the_smoothness_study_is_the_papers_protocol_and_finer(composed: Compose) -> None:
    config = composed("study=bn_smoothness")
    assert {0.5, 1, 2, 4} < set(config.probe.etas)
    assert (min(config.probe.etas), max(config.probe.etas)) == (1e-3, 4)
    assert 15_000 <= config.epochs * math.ceil(EPOCH_IMAGES / config.batch_size) == 15_136


@pytest.mark.parametrize(
    ("typed", "number", "first"),
    [
        ("loss=ce", 3, ["loss=ce", "seed=0"]),
        ("loss=mse,ce", 6, ["loss=mse", "seed=0"]),
        ("seed=5,6,7 loss=ce", 3, ["loss=ce", "seed=5"]),
        ("seed=5,6,7", 12, ["loss=ce", "seed=5"]),
        ("epochs=3 data.train_size=10", 12, ["loss=ce", "seed=0", "epochs=3", "data.train_size=10"]),
        ("model=cnn,vgg_a", 24, ["loss=ce", "seed=0", "model=cnn"]),
        ("--multirun", 12, ["loss=ce", "seed=0"]),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_the_command_line_narrows_and_lengthens_a_study(typed: str, number: int, first: list[str]) -> None:
    jobs = _jobs("study=loss", *typed.split())
    assert len(jobs) == number
    assert jobs[0] == ["study=loss", *first, "data=synthetic"]


@pytest.mark.usefixtures("unchecked")
def test_a_value_is_written_one_way_whether_it_is_typed_or_the_studys() -> None:
    assert _jobs("study=batch_norm", "bn=true")[0] == _jobs("study=batch_norm")[0]
    assert _jobs("study=learning_rate_adam", "optimizer.lr=1e-4")[0] == _jobs("study=learning_rate_adam")[0]


@pytest.mark.usefixtures("unchecked")
def test_the_command_line_wins_over_the_study_over_the_experiment() -> None:
    with_bn, without = _compositions(_jobs("experiment=vgg_a", "study=batch_norm", "seed=0"))
    assert with_bn["bn"] and not without["bn"]  # the experiment's is false
    assert with_bn["model"]["_target_"] == "cifar_lab.models.VGG" and with_bn["epochs"] == 20
    (job,) = _compositions(_jobs("study=scheduler", "experiment=best_cnn", "scheduler=step", "seed=0"))
    assert job["epochs"] == 70 and job["optimizer"]["lr"] == 2e-3
    (job,) = _compositions(_jobs("study=scheduler", "experiment=best_cnn", "scheduler=step", "seed=0", "epochs=9"))
    assert job["epochs"] == 9


def test_what_an_experiment_sets_falls_away_with_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    (job,) = _compositions(_jobs("study=smoothing", "experiment=loss_focal", "loss.smoothing=0.2", "seed=0"))
    assert job["loss"]["smoothing"] == 0.2 and "gamma" not in job["loss"]
    expected = "loss=label_smoothing replaces the experiment's, whose loss.alpha and loss.gamma fall away"
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("study=los", "study=los does not exist; did you mean loss? there are activation, augment"),
        ("study=null", "study=null does not exist; there are "),
        ("study=learning_rate", "study=learning_rate does not exist; did you mean learning_rate_"),
        ("study=loss,width", "study=loss,width: one study at a time, as each has axes of its own"),
        ("-m study=loss,width", "study=loss,width: one study at a time"),
        ("study=loss study=width", "study=loss study=width: one study at a time"),
        ("study=loss loss=foo", "loss=foo does not exist; there are ce"),
        ("study=loss seed=-1", "seed=-1: it takes a whole number"),
        ("study=smoothing loss=ce", "loss.smoothing: loss has no smoothing"),
        ("study=width model=vgg_a", "model.filters: model has no filters"),
        ("~study", "~study: every group needs an option"),
    ],
)
def test_what_a_study_cannot_be_is_refused_in_one_line(lab: Lab, line: str, refusal: str) -> None:
    outcome = lab(*line.split(), "data=synthetic")
    assert outcome.code == 2
    assert outcome.stderr.startswith(f"error: {refusal}") and outcome.stderr.count("\n") == 1
    assert not outcome.runs


BROKEN = {
    "epochs: 2": "its file needs its axes under `axes:`",
    "axes: [ce, mse]": "its file needs its axes under `axes:`",
    "axes: {loss: []}": "its file needs its axes under `axes:`",
    "axes: {loss: {a: 1}}": "its file needs its axes under `axes:`",
    "axes: {loss: [ce, mse]}\nhydra: {sweeper: {params: {seed: '0,1'}}}": "its file sets hydra.mode or hydra.sweeper",
    "axes: {loss: [ce, mse]}\nhydra: {mode: MULTIRUN}": "its file sets hydra.mode or hydra.sweeper",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_users_study_that_is_none_is_refused(lab: Lab, tmp_path: Path, text: str) -> None:
    _write(tmp_path, "mine", text)
    outcome = lab("--config-dir", "my_conf", "study=mine", *TINY)
    assert (outcome.code, outcome.runs) == (2, [])
    assert outcome.stderr.startswith(f"error: study=mine: {BROKEN[text]}")


def test_a_users_study_may_build_on_ours(lab: Lab, tmp_path: Path) -> None:
    _write(tmp_path, "mine", "defaults: [loss, _self_]\nbatch_size: 10\naxes: {loss: [ce, mse], seed: 7}")
    outcome = lab("--config-dir", "my_conf", "study=mine", *TINY[:4], "epochs=1", "trainer=cpu", "loss=mse")
    assert (outcome.code, outcome.stderr) == (0, "")
    (run,) = outcome.runs
    assert run.folder.parent == tmp_path / "outputs" / "study-mine"
    assert re.fullmatch(r"loss=mse,seed=7-[0-9a-f]{8}", run.folder.name)
    assert run.config()["batch_size"] == 10


def test_a_study_is_trained_once_and_ends_in_its_table(lab: Lab, tmp_path: Path) -> None:
    narrowed = ["study=loss", "seed=0", *TINY, "epochs=1"]
    one = lab(*narrowed, "loss=ce")
    assert (one.code, len(one.runs)) == (0, 1)
    both = lab(*narrowed, "loss=ce,mse")
    assert (both.code, len(both.runs)) == (0, 2)
    times = [run.result_file.stat().st_mtime_ns for run in both.runs]
    again = lab(*narrowed, "loss=ce,mse")
    assert again.code == 0 and "epoch 1/1" not in again.stdout
    assert [run.result_file.stat().st_mtime_ns for run in again.runs] == times
    folder = tmp_path / "outputs" / "study-loss"
    assert {run.folder.parent for run in again.runs} == {folder}
    heading, _, *rows = [line for line in (folder / "table.md").read_text().splitlines() if line.startswith("|")]
    assert heading.split()[1] == "loss" and [row.split()[1] for row in rows[:2]] == ["ce", "mse"]
    # A run of it is a run like any other.
    resumed = lab(f"resume='{again.runs[0].folder}'")
    assert resumed.code == 0 and "epoch 1/1" not in resumed.stdout
    refused = lab(f"resume='{again.runs[0].folder}'", "study=loss")
    assert refused.code == 2 and refused.stderr.startswith("error: resume= names one run")


@pytest.mark.usefixtures("unchecked")
def test_name_names_a_studys_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked(["study=loss", "data=synthetic"]).sweep_folder == Path("outputs/study-loss")
    assert checked(["study=loss", "data=synthetic", "name=rehearsal"]).sweep_folder == Path("outputs/rehearsal")


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"], ["--cfg", "job", "--resolve"], ["--info", "defaults"]])
def test_what_only_shows_a_study_runs_nothing(lab: Lab, flags: list[str]) -> None:
    outcome = lab("study=scheduler", *flags)
    assert (outcome.code, outcome.stderr, outcome.runs) == (0, "", [])
    assert "scheduler" in outcome.stdout
    assert "axes:" not in outcome.stdout
    if "--resolve" in flags:
        assert "name: study-scheduler" in outcome.stdout and "epochs: 70" in outcome.stdout


def _write(folder: Path, name: str, text: str) -> None:
    path = folder / "my_conf" / "study" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# @package _global_\n{text}\n")
