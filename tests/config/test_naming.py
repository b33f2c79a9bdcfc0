import hashlib
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import class_names, resolved
from cifar_lab.config.naming import run_folder
from cifar_lab.runs import Archive
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.runs.record import Record
from tests.conftest import CHECKOUT, Compose

LONG = "1" * 300
ARCHIVE = CHECKOUT / "docs" / "results"


SAME = (
    *("name=other", "logger=none", "data.root=/elsewhere", "trainer.enable_progress_bar=false", "probe=none"),
    *("callbacks=snapshots", "jobs_per_device=3", "trainer.limit_val_batches=1.0", "data.train_size=45000"),
)


@pytest.mark.parametrize(
    ("words", "others"),
    [
        (SAME, ()),
        (("bn=true", "loss=ce", "epochs=50"), ()),
        (("loss=focal", "loss.gamma=2", "grad_clip=0"), ("loss=focal", "loss.gamma=2.0", "grad_clip=null")),
    ],
)
def test_settings_that_change_no_number_are_not_in_the_fingerprint(
    composed: Compose, words: tuple[str, ...], others: tuple[str, ...]
) -> None:
    assert fingerprint(resolved(composed(*words))) == fingerprint(resolved(composed(*others)))


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_kept_runs_keep_their_fingerprints(composed: Compose, every: bool) -> None:
    # By default, take the first run with each option of each group; the groups in `shown` do not change numbers.
    shown = {"experiment", "study", "logger", "trainer", "callbacks"}
    first: dict[tuple[str, str | None], Record] = {}
    # The folder of unverified data counts; if it was not typed, CIFAR_LAB_DATA had named it.
    kept = [
        run
        for run in Archive(ARCHIVE).read()
        if "data.verify=False" not in run.overrides or any(word.startswith("data.root=") for word in run.overrides)
    ]
    for run in kept:
        for group, option in run.options.items():
            if group not in shown:
                first.setdefault((group, option), run)
    runs = kept if every else list({id(run): run for run in first.values()}.values())
    now = []
    for run in runs:
        group = "experiment" if run.options.get("experiment") else "study"
        words = [word for word in run.overrides[1:] if not word.startswith("trainer=")]  # recorded, not hashed then
        now.append(fingerprint(resolved(composed(f"{group}={run.options[group]}", *words))))
    assert now == [run.identity for run in runs] != []


def test_a_run_from_before_probes_existed_keeps_its_fingerprint(composed: Compose) -> None:
    before = resolved(composed())
    del before["probe"]
    assert fingerprint(before) == fingerprint(resolved(composed()))


def _root(overrides: list[str], **config: Any) -> DictConfig:
    """Return a configuration with the part of Hydra's node that names need; all jobs of its sweep share two keys."""
    excluded = {"exclude_keys": ["common", "common.root"]}
    own = {"overrides": {"task": overrides}, "job": {"config": {"override_dirname": excluded}}}
    return OmegaConf.create({**config, "hydra": own})


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        ([], "default"),
        (["name=x"], "default"),
        (["model=vgg_a", "bn=true", "name=x"], "model=vgg_a,bn=true"),
        (["common=1", "loss=mse", "common.root=/x", "name=loss"], "loss=mse"),
        (["model.filters=[1,2,3]", "data.root='/a b/c'"], "model.filters=1,2,3,data.root=-a-b-c"),
        (["+x=1"], "x=1"),
        (["hydra/../../etc=1"], "hydra-..-..-etc=1"),
        (["epochs=" + LONG], f"epochs={LONG[:93]}-{hashlib.sha256(f'epochs={LONG}'.encode()).hexdigest()[:8]}"),
    ],
)
def test_a_folder_is_named_by_its_overrides_safely(overrides: list[str], folder: str) -> None:
    assert run_folder(False, _root_=_root(overrides)) == folder


def test_a_jobs_folder_ends_in_its_fingerprint(composed: Compose) -> None:
    config = composed("loss=mse")
    assert run_folder(True, _root_=_root(["loss=mse"], **config)) == f"loss=mse-{fingerprint(resolved(config))[:8]}"


def test_classes_have_torchs_names(composed: Compose) -> None:
    config = resolved(composed("activation=swish", "loss=focal", "optimizer=sign_sgd", "scheduler=plateau"))
    assert class_names(config) == {
        "activation": "SiLU",
        "loss": "FocalLoss",
        "optimizer": "SignSGD",
        "scheduler": "ReduceLROnPlateau",
    }
