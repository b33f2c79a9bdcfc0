import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import class_names, resolved
from cifar_lab.config.naming import run_folder, sweep_name
from cifar_lab.fingerprints import fingerprint
from cifar_lab.runs import Archive

Compose = Callable[..., DictConfig]
LONG = "1" * 300


@pytest.mark.parametrize(
    "same",
    [
        "name=other",
        "logger=none",
        "data.root=/elsewhere",
        "data.verify=false",
        "optimizer.fused=false",
        "trainer=cpu",
        "trainer.precision=32-true",
        "trainer.enable_progress_bar=false",
        "compile=true",
        "cuda_graphs=true",
        "callbacks=snapshots",
        "probe=none",
    ],
)
def test_what_cannot_change_numbers_is_not_in_the_fingerprint(composed: Compose, same: str) -> None:
    assert fingerprint(resolved(composed(same))) == fingerprint(resolved(composed()))


def test_runs_from_before_there_were_probes_are_found_again(composed: Compose) -> None:
    before = resolved(composed("experiment=vgg_a"))
    del before["probe"]
    assert fingerprint(before) == fingerprint(resolved(composed("experiment=vgg_a")))
    kept = Archive(Path(__file__).parents[2] / "docs" / "results").read()
    by = ["experiment" if run.result["options"].get("experiment") else "study" for run in kept]
    commands = [
        [f"{group}={run.result['options'][group]}", *run.result["overrides"][1:]]
        for group, run in zip(by, kept, strict=True)
    ]
    now = [fingerprint(resolved(composed(*command))) for command in commands]
    assert now == [run.result["fingerprint"] for run in kept] != []


def test_a_component_that_has_been_renamed_keeps_its_fingerprint(composed: Compose) -> None:
    before = resolved(composed("averaging=ema"))
    before["averaging"]["_target_"] = "lightning.pytorch.callbacks.EMAWeightAveraging"
    assert fingerprint(before) == fingerprint(resolved(composed("averaging=ema")))


def test_everything_else_is(composed: Compose) -> None:
    different = [
        "seed=1",
        "epochs=51",
        "batch_size=64",
        "bn=false",
        "l1=1e-5",
        "grad_clip=5",
        "model.dropout=0.4",
        "model.init=he",
        "activation=relu",
        "activation.negative_slope=0.05",
        "loss=mse",
        "optimizer.lr=2e-3",
        "scheduler.eta_min=1e-5",
        "data=synthetic",
        "data.train_size=10000",
        "data.split_seed=1",
        "augment=none",
        "protocol=report",
        "trainer.accumulate_grad_batches=2",
        "callbacks=early_stopping",
        "probe=gradient",
    ]
    fingerprints = [fingerprint(resolved(composed(override))) for override in [*different, "name=test"]]
    assert len(set(fingerprints)) == len(different) + 1


def test_a_value_said_that_is_the_default_changes_nothing(composed: Compose) -> None:
    assert fingerprint(resolved(composed("bn=true", "loss=ce", "epochs=50"))) == fingerprint(resolved(composed()))


def test_a_sweep_is_named_by_its_axes() -> None:
    parse = OverridesParser.create().parse_overrides
    assert sweep_name(parse(["loss=ce,mse", "epochs=1", "seed=range(0,5)"])) == "loss-seed"
    assert sweep_name(parse(["optimizer.lr=choice(1,2)"])) == "optimizer.lr"
    assert sweep_name(parse(["epochs=1", "model.filters=[1,2,3]"])) is None


def _root(overrides: list[str], common: Sequence[str] = (), **config: Any) -> DictConfig:
    """A configuration with as much of Hydra's own node as names need."""
    own = {"overrides": {"task": overrides}, "job": {"config": {"override_dirname": {"exclude_keys": list(common)}}}}
    return OmegaConf.create({**config, "hydra": own})


def test_what_all_jobs_have_in_common_is_not_in_their_folders_names() -> None:
    root = _root(["epochs=1", "loss=mse", "data.root=/x", "name=loss"], common=["epochs", "data.root"])
    assert run_folder(False, _root_=root) == "loss=mse"


def test_long_names_that_differ_at_their_end_stay_different() -> None:
    names = {run_folder(False, _root_=_root(["epochs=" + "1" * 200 + end])) for end in "abc"}
    assert len(names) == 3
    assert max(map(len, names)) <= 110


@pytest.mark.parametrize("same", [("loss=focal", "loss.gamma=2"), ("loss=focal", "loss.gamma=2.0"), ("loss=focal",)])
def test_a_number_is_the_same_however_it_is_spelt(composed: Compose, same: tuple[str, ...]) -> None:
    assert fingerprint(resolved(composed(*same))) == fingerprint(resolved(composed("loss=focal")))
    assert fingerprint(resolved(composed("grad_clip=null"))) == fingerprint(resolved(composed("grad_clip=0")))


@pytest.mark.parametrize(
    ("overrides", "folder"),
    [
        ([], "default"),
        (["name=x"], "default"),
        (["model=vgg_a", "bn=true", "name=x"], "model=vgg_a,bn=true"),
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


def test_classes_are_called_as_in_torch(composed: Compose) -> None:
    config = resolved(composed("activation=swish", "loss=focal", "optimizer=sign_sgd", "scheduler=plateau"))
    assert class_names(config) == {
        "activation": "SiLU",
        "loss": "FocalLoss",
        "optimizer": "SignSGD",
        "scheduler": "ReduceLROnPlateau",
    }
