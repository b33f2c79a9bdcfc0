"""Every experiment is the row of the report that it names, and trains."""

import re
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import conf_folder, resolved
from tests.config.test_composition import train_a_step
from tests.conftest import Compose

F1, F2 = [64, 128, 256], [128, 256, 512]
HALF = [0.5, 0.5, 0.5]
LEAKY = {"activation": "torch.nn.LeakyReLU", "activation.negative_slope": 0.1}
RELU = {"activation": "torch.nn.ReLU"}
CE = {"loss": "torch.nn.CrossEntropyLoss"}


def smoothing(value: float) -> dict[str, Any]:
    return {"loss": "cifar_lab.losses.LabelSmoothingCrossEntropy", "loss.smoothing": value}


def adam(lr: float, decay: float) -> dict[str, Any]:
    return {"optimizer": "torch.optim.Adam", "optimizer.lr": lr, "optimizer.weight_decay": decay}


def sgd(lr: float, decay: float) -> dict[str, Any]:
    settings = {"lr": lr, "weight_decay": decay, "momentum": 0.9, "nesterov": False}
    return {"optimizer": "torch.optim.SGD", **{f"optimizer.{key}": value for key, value in settings.items()}}


def cosine(end: float, epochs: int) -> dict[str, Any]:
    name = "torch.optim.lr_scheduler.CosineAnnealingLR"
    return {"scheduler": name, "scheduler.eta_min": end, "scheduler.T_max": epochs, "epochs": epochs}


STEP = {"scheduler": "torch.optim.lr_scheduler.StepLR", "scheduler.step_size": 20, "scheduler.gamma": 0.1, "epochs": 50}
PLATEAU = {
    "scheduler": "torch.optim.lr_scheduler.ReduceLROnPlateau",
    "scheduler.mode": "min",
    "scheduler.patience": 3,
    "scheduler.factor": 0.2,
    "scheduler.cooldown": 2,
    "scheduler.threshold": 1e-3,
    "scheduler.threshold_mode": "rel",
    "scheduler.lightning.monitor": "val/loss",
    "epochs": 50,
}


def cnn(filters: list[int], dropout: float, l1: float, clip: float) -> dict[str, Any]:
    """What the CNN's rows share."""
    return {
        "model": "cifar_lab.models.CNN",
        "model.filters": filters,
        "model.dropout": dropout,
        "model.init": "default",
        "bn": True,
        "batch_size": 128,
        "l1": l1,
        "grad_clip": clip,
        "augment": "cifar_lab.data.augment.flip_crop",
        "augment.padding": 4,
        "data.mean": [0.4914, 0.4822, 0.4465],
        "data.std": [0.2470, 0.2435, 0.2616],
    }


def vgg(bn: bool) -> dict[str, Any]:
    return {
        "model": "cifar_lab.models.VGG",
        "model.stages": [[64], [128], [256, 256], [512, 512], [512, 512]],
        "model.hidden": 512,
        "model.init": "xavier",
        "model.dropout": None,
        "bn": bn,
        "batch_size": 128,
        "l1": 0,
        "grad_clip": 0,
        **RELU,
        **CE,
        **adam(1e-3, 0),
        "scheduler": "torch.optim.lr_scheduler.ConstantLR",
        "scheduler.factor": 1,
        "epochs": 20,
        "augment": "cifar_lab.data.augment.identity",
        "data.mean": HALF,
        "data.std": HALF,
    }


RESNET = {
    "model": "cifar_lab.models.ResNet",
    "model.blocks": [2, 2, 2],
    "model.widths": [64, 128, 256],
    "bn": True,
    "activation": "torch.nn.SiLU",
    **smoothing(0.1),
    "optimizer": "torch.optim.AdamW",
    "optimizer.lr": 1e-3,
    "optimizer.weight_decay": 0.05,
    "scheduler": "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts",
    "scheduler.T_0": 10,
    "scheduler.T_mult": 2,
    "scheduler.lightning.interval": "epoch",
    "batch_size": 128,
    "l1": 0,
    "grad_clip": 0,
    "data.mean": HALF,
    "data.std": HALF,
    "augment": "cifar_lab.data.randaugment.randaugment",
    "augment.num_ops": 2,
    "augment.magnitude": 9,
    "trainer.check_val_every_n_epoch": 5,
}
ADAM = adam(1e-3, 1e-4)
BEST = {**cnn(F2, 0.4, 0, 5), "activation": LEAKY["activation"], "activation.negative_slope": 0.05, **smoothing(0.15)}
SIGN_SGD = {
    "optimizer": "cifar_lab.optimizers.SignSGD",
    "optimizer.lr": 1e-3,
    "optimizer.weight_decay": 1e-4,
    "optimizer.momentum": 0.9,
}
FOCAL = {"loss": "cifar_lab.losses.FocalLoss", "loss.alpha": 1, "loss.gamma": 1}
SWA = {"averaging": "cifar_lab.train.callbacks.averaging.SWA", "averaging.start": 0.8, "averaging.anneal": 0.1}
SCHEDULER_ROWS = {**cnn(F2, 0.3, 1e-5, 5), **LEAKY, **CE, **ADAM}

# Written from the report's table, not from the files: settings and published accuracy.
ROWS: dict[str, tuple[dict[str, Any], float | None]] = {
    "activation_leaky_relu": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **ADAM, **cosine(1e-6, 50)}, 0.8945),
    "activation_relu": ({**cnn(F1, 0.5, 0, 1), **RELU, **CE, **ADAM, **cosine(1e-6, 50)}, 0.8931),
    "activation_elu": (
        {
            **cnn(F1, 0.5, 0, 1),
            "activation": "torch.nn.ELU",
            "activation.alpha": 1,
            **CE,
            **ADAM,
            **cosine(1e-6, 50),
        },
        0.8745,
    ),
    "loss_ce": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **ADAM, **STEP}, 0.8842),
    "loss_label_smoothing": (
        {**cnn(F1, 0.3, 0, 1), **LEAKY, **smoothing(0.2), **adam(5e-4, 1e-5), **cosine(1e-5, 75)},
        0.8961,
    ),
    "loss_focal": ({**cnn(F1, 0.5, 0, 5), **LEAKY, **FOCAL, **adam(5e-3, 1e-5), **cosine(1e-6, 50)}, 0.8761),
    "loss_mse": (
        {
            **cnn(F2, 0.3, 0, 5),
            **RELU,
            "loss": "cifar_lab.losses.MSELoss",
            **adam(1e-3, 1e-5),
            **cosine(1e-6, 100),
        },
        0.9003,
    ),
    "optimizer_adam": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **ADAM, **STEP}, 0.8842),
    "optimizer_sgd": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **sgd(1e-3, 1e-4), **STEP}, 0.7858),
    "optimizer_sign_sgd": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **SIGN_SGD, **STEP}, 0.8264),
    "scheduler_step": ({**SCHEDULER_ROWS, **STEP}, 0.8853),
    "scheduler_plateau": ({**SCHEDULER_ROWS, **PLATEAU}, 0.8844),
    "scheduler_cosine": ({**SCHEDULER_ROWS, **cosine(1e-5, 50)}, 0.8898),
    "best_cnn": ({**BEST, **adam(2e-3, 1e-5), **cosine(1e-6, 100)}, 0.9153),
    "swa": ({**BEST, **sgd(2e-3, 1e-5), **cosine(1e-6, 100), **SWA, "averaging.lr": 0.05}, 0.8517),
    "resnet_adamw": ({**RESNET, "epochs": 200}, 0.9522),
    "resnet_adamw_150": ({**RESNET, "epochs": 150}, None),
    "vgg_a": (vgg(bn=False), None),
    "vgg_a_bn": (vgg(bn=True), None),
}
# Options train in test_composition.py; these bring what no option does: images of another mean, and averaged weights.
TRAINED = ("resnet_adamw_150", "swa")
BEYOND = ("beyond_cnn", "beyond_resnet18")
FILES = {path.stem: path.read_text(encoding="utf-8") for path in (conf_folder() / "experiment").glob("*.yaml")}


def test_every_row_has_its_file_and_every_file_its_row() -> None:
    assert set(FILES) == {*ROWS, *BEYOND}


@pytest.mark.parametrize("name", ROWS)
def test_an_experiment_has_exactly_its_rows_settings(composed: Compose, name: str) -> None:
    config = composed(f"experiment={name}")
    row, published = ROWS[name]
    composition = {}
    for key in row:
        is_group = "." not in key and isinstance(OmegaConf.select(config, key), DictConfig)
        composition[key] = OmegaConf.select(config, f"{key}._target_" if is_group else key)
    assert {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in composition.items()} == row
    assert config.published == published
    if name != "swa":
        assert "_target_" not in config.averaging


@pytest.mark.parametrize(
    "name",
    [name if name in TRAINED else pytest.param(name, marks=pytest.mark.slow) for name in sorted({*ROWS, *BEYOND})],
)
def test_an_experiment_trains_a_step(composed: Compose, name: str) -> None:
    # Lists and numbers of the experiment's data would fall away with it, so only its images are exchanged.
    metrics = train_a_step(composed, f"experiment={name}")
    assert all(value == value for value in metrics.values())


@pytest.mark.parametrize("name", sorted({*ROWS, *BEYOND}))
def test_an_experiment_names_every_option_whose_numbers_it_sets_and_leaves_the_users_keys_alone(name: str) -> None:
    text = FILES[name]
    set_here = set(re.findall(r"^(\w+):", text, re.MULTILINE)) - {"defaults"}
    named = set(re.findall(r"^  - override /(\w+): \w+$", text, re.MULTILINE))
    groups = {folder.name for folder in conf_folder().iterdir() if folder.is_dir()}
    assert (set_here & groups) - {"trainer"} <= named
    assert not set_here & {"name", "seed", "protocol"}
    assert "protocol" not in named


@pytest.mark.parametrize("name", sorted({*ROWS, *BEYOND}))
def test_an_experiments_header_says_what_a_reader_needs(name: str) -> None:
    labels = re.findall(r"^# (\w+): \S", FILES[name], re.MULTILINE)
    assert labels == ["Claim", "Source", "Command", "Published", "Inferred", "Cost"]
    assert f"experiment={name} " in FILES[name]
    if name in ROWS and ROWS[name][1] is not None:
        assert f"{100 * ROWS[name][1]:.2f} %" in FILES[name]


def test_one_run_serves_both_tables_that_it_stands_in(composed: Compose) -> None:
    assert resolved(composed("experiment=loss_ce")) == resolved(composed("experiment=optimizer_adam"))
