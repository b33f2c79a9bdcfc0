"""A study is a controlled sweep in one command, which can be narrowed; otherwise it behaves as any sweep."""

import itertools
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from cifar_lab.config import build, checked, conf_folder, preflight, resolved
from cifar_lab.config.naming import plain
from cifar_lab.config.studies import as_typed
from cifar_lab.report.published import Row, Scale
from cifar_lab.runs.fingerprints import fingerprint, leaves
from tests.comparison import equal
from tests.config.typed import PARSER
from tests.conftest import TINY, Compose, Lab, refusal

# Each study's axes with their numbers of values; all have three seeds.
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
# Keys that follow an axis, as `model.batch_norm` follows `bn`.
FOLLOWING = {"bn": {"model.batch_norm"}, "activation": {"model.activation"}, "augment": {"data.augment"}}
FILES = {path.stem: path.read_text(encoding="utf-8") for path in (conf_folder() / "study").glob("*.yaml")}
EPOCH_IMAGES = 45_000
FIRST_JOB = ["study=batch_norm", "bn=True", "seed=0"]


@cache
def _study(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a study's composition without its axes, in plain values, and the chosen option of each group."""
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("train", [f"study={name}", "name=test"], return_hydra_config=True)
    return plain(config), dict(config.hydra.runtime.choices)


def _compositions(jobs: list[list[str]]) -> list[dict[str, Any]]:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return [resolved(compose("train", [*job, "name=test"])) for job in jobs]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the check of each job, because composing takes long."""
    monkeypatch.setattr(preflight, "around", lambda axes: [[axis[0] for axis in axes]])
    monkeypatch.setattr(preflight, "suspects", lambda *_: [])


def _axes(name: str) -> dict[str, Any]:
    axes = yaml.safe_load(FILES[name])["axes"]
    assert isinstance(axes, dict)
    return axes


def _varies(axes: Mapping[str, int], key: str) -> bool:
    names = {*axes, *(name for axis in axes for name in FOLLOWING.get(axis, ()))}
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _header(name: str) -> dict[str, str]:
    text = re.sub(r"\n#   ", " ", FILES[name])
    return dict(re.findall(r"^# (\w+): (.*)$", text, re.MULTILINE))


def test_every_study_is_listed_here() -> None:
    assert set(FILES) == set(STUDIES)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["last values", "all"])
@pytest.mark.parametrize("name", STUDIES)
def test_the_values_of_a_studys_axes_change_only_its_axes(name: str, every: bool) -> None:
    axes = _axes(name)
    assert axes.pop("seed") == "range(0,3)"
    words = [[f"{key}={as_typed([value])}" for value in values] for key, values in axes.items()]
    assert {key: len(set(of_key)) for key, of_key in zip(axes, words, strict=True)} == STUDIES[name]
    jobs = list(itertools.product(*(of_key if every else of_key[-1:] for of_key in words)))
    changed = _compositions([[f"study={name}", *job] for job in jobs])
    config, _ = _study(name)
    assert len({fingerprint(one) for one in changed}) == len(jobs)
    assert every or fingerprint(changed[0]) != fingerprint(config)
    fixed = [{k: v for k, v in leaves(each) if not _varies(axes, k)} for each in (config, *changed)]
    assert all(one == fixed[0] for one in fixed)


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.usefixtures("unchecked")
def test_a_study_has_a_job_for_each_value_of_each_axis_and_each_seed(name: str) -> None:
    jobs = [job.words for job in checked([f"study={name}", "data=synthetic"]).jobs]
    assert name != "batch_norm" or jobs[0] == [*FIRST_JOB, "data=synthetic"]
    assert len(set(map(frozenset, jobs))) == len(jobs) == 3 * math.prod(STUDIES[name].values())
    for key, values in {**STUDIES[name], "seed": 3}.items():
        assert len({line for job in jobs for line in job if line.startswith(f"{key}=")}) == values


@pytest.mark.parametrize("name", STUDIES)
def test_a_studys_header_states_the_fixed_settings_and_the_cost(name: str) -> None:
    header, number = _header(name), 3 * math.prod(STUDIES[name].values())
    assert list(header) == ["Question", "Source", "Command", "Fixed", "Cost"]
    assert header["Command"] == f"python -m cifar_lab.train study={name}"
    config, choices = _study(name)
    fixed = {line.key_or_group: line.value() for line in PARSER.parse_overrides(header["Fixed"].split())}
    groups = {"model", "activation", "loss", "optimizer", "scheduler", "averaging", "augment", "data", "protocol"}
    assert groups | {"bn", "epochs", "batch_size", "l1", "grad_clip"} <= set(fixed) | set(STUDIES[name])
    assert not set(fixed) & set(STUDIES[name])
    values = dict(leaves(config))
    assert fixed == {key: choices[key] if key in choices else values[key] for key in fixed}
    images = f"{number * config['epochs'] * EPOCH_IMAGES / 1e6:.1f}".removesuffix(".0")
    assert re.findall(r"[\d.]+", header["Cost"])[:3] == [str(number), str(config["epochs"]), images]


def test_each_optimizer_has_its_own_rate_and_the_grid_around_it(composed: Compose) -> None:
    for name in ("adam", "adamw", "sgd", "sign_sgd"):
        own = composed("study=optimizer", f"optimizer={name}").optimizer
        assert own == composed(f"optimizer={name}").optimizer
        grid = _axes(f"learning_rate_{name}")["optimizer.lr"]
        assert sorted(map(float, grid))[2] == own.lr
        assert _study(f"learning_rate_{name}")[0]["optimizer"] == own
    # The grid keeps the file's notation.
    assert as_typed(_axes("learning_rate_adam")["optimizer.lr"]) == "1e-4,3e-4,1e-3,3e-3,1e-2"


LANDSCAPE = [(name, rate) for name in ("vgg_a", "vgg_a_bn") for rate in ("1e-4", "5e-4", "1e-3", "2e-3")]


@pytest.mark.parametrize(
    ("name", "rate"),
    [pytest.param(*each, marks=[pytest.mark.slow] * (0 < number < 7)) for number, each in enumerate(LANDSCAPE)],
)
def test_the_landscape_studys_runs_are_the_reports_rows(composed: Compose, name: str, rate: str) -> None:
    row = Row(name, "", (f"optimizer.lr={rate}",))
    theirs = fingerprint(resolved(composed(*row.command(Scale.FULL, 2020, "report"))))
    bn = "true" if name == "vgg_a_bn" else "false"
    ours = composed("study=bn_landscape", f"bn={bn}", f"optimizer.lr={rate}", "seed=2020", "protocol=report")
    assert fingerprint(resolved(ours)) == theirs


def test_the_landscape_study_has_every_row_of_the_report() -> None:
    tables = yaml.safe_load((conf_folder() / "published.yaml").read_text(encoding="utf-8"))["tables"]
    (rows,) = (table["rows"] for table in tables if table["name"] == "vgg")
    assert [(row["experiment"], *row["overrides"]) for row in rows] == [(n, f"optimizer.lr={r}") for n, r in LANDSCAPE]
    assert [rate for _, rate in LANDSCAPE] == [str(rate) for rate in _axes("bn_landscape")["optimizer.lr"]] * 2


@pytest.mark.parametrize("study", ["bn_landscape", "bn_smoothness"])
def test_runs_of_a_seed_see_the_same_batches_with_and_without_batch_norm(composed: Compose, study: str) -> None:
    config = composed(f"study={study}", "data=synthetic", "data.num_train=200", "data.num_test=10")
    batches = {}
    for config.bn, config.seed in itertools.product((True, False), (0, 1)):
        loader = build(config.data).train_dataloader()
        loader.set_epoch(1)
        batches[config.bn, config.seed] = list(loader)
    for seed in (0, 1):
        assert equal(batches[True, seed], batches[False, seed])
    assert not torch.equal(batches[True, 0][0][1], batches[True, 1][0][1])


def test_the_smoothness_study_is_the_papers_protocol_with_a_finer_grid() -> None:
    config, _ = _study("bn_smoothness")
    etas = config["probe"]["etas"]
    assert {0.5, 1, 2, 4} < set(etas)
    assert (min(etas), max(etas)) == (1e-3, 4)
    assert 15_000 <= config["epochs"] * math.ceil(EPOCH_IMAGES / config["batch_size"]) == 15_136


@pytest.mark.parametrize(
    ("typed", "number", "first", "folder"),
    [
        ("study=loss loss=mse,ce", 6, "study=loss loss=mse seed=0", "study-loss-data=synthetic"),
        ("study=loss seed=5,6,7 loss=ce", 3, "study=loss loss=ce seed=5", "study-loss-data=synthetic"),
        (
            *("study=loss -m epochs=3 model=cnn,vgg_a", 24, "study=loss loss=ce seed=0 epochs=3 model=cnn"),
            "study-loss-data=synthetic-epochs=3",
        ),
        # Values are written as the study writes them.
        ("study=batch_norm bn=true name=rehearsal", 3, "study=batch_norm bn=True seed=0 name=rehearsal", "rehearsal"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_the_command_line_narrows_lengthens_and_names_a_study(typed: str, number: int, first: str, folder: str) -> None:
    asked = checked([*typed.split(), "data=synthetic"])
    assert len(asked.jobs) == number
    assert asked.jobs[0].words == [*first.split(), "data=synthetic"]
    assert asked.sweep_folder == Path("outputs", folder)


def test_the_command_line_wins_over_the_experiment_over_the_study() -> None:
    lines = [
        "experiment=vgg_a study=batch_norm bn=true",
        "study=scheduler experiment=best_cnn scheduler=step",
        "study=scheduler experiment=best_cnn scheduler=step epochs=9",
    ]
    with_bn, at_length, short = _compositions([line.split() for line in lines])
    assert with_bn["bn"]  # the experiment's is false
    assert (with_bn["model"]["_target_"], with_bn["epochs"]) == ("cifar_lab.models.VGG", 20)
    assert (at_length["epochs"], at_length["optimizer"]["lr"], short["epochs"]) == (100, 2e-3, 9)


def test_an_experiments_settings_are_dropped_with_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["study=smoothing", "experiment=loss_focal", "loss.smoothing=0.2", "seed=0", "data=synthetic"]
    asked = checked(typed)
    assert asked.composition["loss"]["smoothing"] == 0.2 and "gamma" not in asked.composition["loss"]
    assert asked.sweep_folder == Path("outputs/study-smoothing-loss_focal-data=synthetic")  # smoothing is its axis
    (note,) = (line for line in capsys.readouterr().out.splitlines() if "loss" in line)
    assert {"loss=label_smoothing", "loss.alpha", "loss.gamma"} <= set(re.findall(r"[\w.=]+", note))


BROKEN = {
    "epochs: 2": "axes:",
    "axes: {loss: []}": "axes:",
    "axes: {loss: {a: 1}}": "axes:",
    "axes: {loss: [ce, mse]}\nhydra: {mode: MULTIRUN}": "hydra.mode",
    "axes: {loss: [ce, mse]}\nhydra: {sweeper: {params: {seed: '0,1'}}}": "hydra.sweeper",
}


@pytest.mark.parametrize("text", BROKEN)
def test_an_invalid_study_of_a_user_is_refused(lab: Lab, tmp_path: Path, text: str) -> None:
    _write(tmp_path, "mine", text)
    outcome = lab("--config-dir", "my_conf", "study=mine", *TINY)
    refusal(outcome, "study=mine", BROKEN[text])
    assert not outcome.runs


def test_a_users_study_may_extend_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, "mine", "defaults: [loss, _self_]\nbatch_size: 10\naxes: {loss: [ce, mse], seed: 7}")
    asked = checked(["--config-dir", "my_conf", "study=mine", "data=synthetic", "loss=mse"])
    assert [job.words for job in asked.jobs] == [["study=mine", "loss=mse", "seed=7", "data=synthetic"]]
    assert asked.sweep_folder == Path("outputs", "study-mine-data=synthetic")
    assert asked.composition["batch_size"] == 10


def test_a_study_is_trained_once_and_ends_in_its_table(lab: Lab, tmp_path: Path) -> None:
    narrowed = ["study=loss", "seed=0", *TINY, "epochs=1", "logger=none"]
    (first,) = lab(*narrowed, "loss=ce").runs
    assert re.fullmatch(r"loss=ce,seed=0-[0-9a-f]{8}", first.folder.name)
    time = first.result_file.stat().st_mtime_ns
    both = lab(*narrowed, "loss=ce,mse")
    assert (both.code, both.stderr, len(both.runs)) == (0, "", 2)
    assert first.result_file.stat().st_mtime_ns == time
    (folder,) = {run.folder.parent for run in both.runs}
    assert folder.parent == tmp_path / "outputs" and folder.name.startswith("study-loss-")
    table = (folder / "table.md").read_text(encoding="utf-8")
    heading, _, *rows = [line for line in table.splitlines() if line.startswith("|")]
    assert heading.split()[1] == "loss" and [row.split()[1] for row in rows[:2]] == ["ce", "mse"]
    # A study's run can be resumed like any other run.
    assert lab(f"resume='{first.folder}'").code == 0
    assert first.result_file.stat().st_mtime_ns == time
    refusal(lab(f"resume='{first.folder}'", "study=loss"), "resume=")


def _write(folder: Path, name: str, text: str) -> None:
    path = folder / "my_conf" / "study" / f"{name}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# @package _global_\n{text}\n", encoding="utf-8")
