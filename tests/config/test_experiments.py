"""Every experiment is the row of the report that it names, and trains."""

import math
import re
from functools import partial
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import conf_folder, resolved
from tests.config.test_composition import train_a_step
from tests.conftest import Compose

F1, F2 = [64, 128, 256], [128, 256, 512]
HALF = {"data.mean": [0.5, 0.5, 0.5], "data.std": [0.5, 0.5, 0.5]}


def option(group: str, target: str, **settings: Any) -> dict[str, Any]:
    """An option of a group: its target, and settings in it."""
    return {group: target, **{f"{group}.{key}": value for key, value in settings.items()}}


def scheduler(name: str, **settings: Any) -> dict[str, Any]:
    return option("scheduler", f"torch.optim.lr_scheduler.{name}", **settings)


def activation(name: str, **settings: Any) -> dict[str, Any]:
    return option("activation", f"torch.nn.{name}", **settings)


def optimizer(name: str, lr: float, weight_decay: float, **settings: Any) -> dict[str, Any]:
    return option("optimizer", name, lr=lr, weight_decay=weight_decay, **settings)


adam = partial(optimizer, "torch.optim.Adam")
sgd = partial(optimizer, "torch.optim.SGD", momentum=0.9, nesterov=False)
ADAM = adam(1e-3, 1e-4)
SIGN_SGD = optimizer("cifar_lab.optimizers.SignSGD", 1e-3, 1e-4, momentum=0.9)
LEAKY, RELU = activation("LeakyReLU", negative_slope=0.1), activation("ReLU")
CE, MSE = option("loss", "torch.nn.CrossEntropyLoss"), option("loss", "cifar_lab.losses.MSELoss")
FOCAL = option("loss", "cifar_lab.losses.FocalLoss", alpha=1, gamma=1)


def smoothing(value: float) -> dict[str, Any]:
    return option("loss", "cifar_lab.losses.LabelSmoothingCrossEntropy", smoothing=value)


def cosine(end: float, epochs: int) -> dict[str, Any]:
    return {**scheduler("CosineAnnealingLR", eta_min=end, T_max=epochs), "epochs": epochs}


STEP = {**scheduler("StepLR", step_size=20, gamma=0.1), "epochs": 50}
PLATEAU = {
    **scheduler("ReduceLROnPlateau", mode="min", patience=3, factor=0.2, cooldown=2, threshold=1e-3),
    "scheduler.threshold_mode": "rel",
    "scheduler.lightning.monitor": "val/loss",
    "epochs": 50,
}


def scalars(bn: bool, l1: float = 0, grad_clip: float = 0) -> dict[str, Any]:
    return {"bn": bn, "batch_size": 128, "l1": l1, "grad_clip": grad_clip}


def cnn(filters: list[int], dropout: float, l1: float, clip: float) -> dict[str, Any]:
    """What the CNN's rows share."""
    return {
        **option("model", "cifar_lab.models.CNN", filters=filters, dropout=dropout, init="default"),
        **scalars(True, l1, clip),
        **option("augment", "cifar_lab.data.augment.flip_crop", padding=4),
        "data.mean": [0.4914, 0.4822, 0.4465],
        "data.std": [0.2470, 0.2435, 0.2616],
    }


def vgg(bn: bool) -> dict[str, Any]:
    stages = [[64], [128], [256, 256], [512, 512], [512, 512]]
    return {
        **option("model", "cifar_lab.models.VGG", stages=stages, hidden=512, init="xavier", dropout=None),
        **scalars(bn),
        "epochs": 20,
        **RELU,
        **CE,
        **adam(1e-3, 0),
        **scheduler("ConstantLR", factor=1),
        **option("augment", "cifar_lab.data.augment.identity"),
        **HALF,
    }


RESNET = {
    **option("model", "cifar_lab.models.ResNet", blocks=[2, 2, 2], widths=[64, 128, 256]),
    **scalars(True),
    "trainer.check_val_every_n_epoch": 5,
    **activation("SiLU"),
    **smoothing(0.1),
    **optimizer("torch.optim.AdamW", 1e-3, 0.05),
    **scheduler("CosineAnnealingWarmRestarts", T_0=10, T_mult=2),
    "scheduler.lightning.interval": "epoch",
    **option("augment", "cifar_lab.data.randaugment.randaugment", num_ops=2, magnitude=9),
    **HALF,
}
BEST = {**cnn(F2, 0.4, 0, 5), **activation("LeakyReLU", negative_slope=0.05), **smoothing(0.15)}
SWA = option("averaging", "cifar_lab.train.callbacks.averaging.SWA", start=0.8, anneal=0.1, lr=0.05)
SCHEDULER_ROWS = {**cnn(F2, 0.3, 1e-5, 5), **LEAKY, **CE, **ADAM}

# Written from the report's table, not from the files: settings and published accuracy.
ROWS: dict[str, tuple[dict[str, Any], float | None]] = {
    "activation_leaky_relu": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **ADAM, **cosine(1e-6, 50)}, 0.8945),
    "activation_relu": ({**cnn(F1, 0.5, 0, 1), **RELU, **CE, **ADAM, **cosine(1e-6, 50)}, 0.8931),
    "activation_elu": ({**cnn(F1, 0.5, 0, 1), **activation("ELU", alpha=1), **CE, **ADAM, **cosine(1e-6, 50)}, 0.8745),
    "loss_ce": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **ADAM, **STEP}, 0.8842),
    "loss_label_smoothing": (
        {**cnn(F1, 0.3, 0, 1), **LEAKY, **smoothing(0.2), **adam(5e-4, 1e-5), **cosine(1e-5, 75)},
        0.8961,
    ),
    "loss_focal": ({**cnn(F1, 0.5, 0, 5), **LEAKY, **FOCAL, **adam(5e-3, 1e-5), **cosine(1e-6, 50)}, 0.8761),
    "loss_mse": ({**cnn(F2, 0.3, 0, 5), **RELU, **MSE, **adam(1e-3, 1e-5), **cosine(1e-6, 100)}, 0.9003),
    "optimizer_adam": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **ADAM, **STEP}, 0.8842),
    "optimizer_sgd": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **sgd(1e-3, 1e-4), **STEP}, 0.7858),
    "optimizer_sign_sgd": ({**cnn(F1, 0.5, 0, 1), **LEAKY, **CE, **SIGN_SGD, **STEP}, 0.8264),
    "scheduler_step": ({**SCHEDULER_ROWS, **STEP}, 0.8853),
    "scheduler_plateau": ({**SCHEDULER_ROWS, **PLATEAU}, 0.8844),
    "scheduler_cosine": ({**SCHEDULER_ROWS, **cosine(1e-5, 50)}, 0.8898),
    "best_cnn": ({**BEST, **adam(2e-3, 1e-5), **cosine(1e-6, 100)}, 0.9153),
    "swa": ({**BEST, **sgd(2e-3, 1e-5), **cosine(1e-6, 100), **SWA}, 0.8517),
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
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in TRAINED)) for n in sorted(FILES)]
)
def test_an_experiment_trains_a_step(composed: Compose, name: str) -> None:
    # Lists and numbers of the experiment's data would fall away with it, so only its images are exchanged.
    assert not any(map(math.isnan, train_a_step(composed, f"experiment={name}").values()))


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_experiments_file_names_the_options_whose_numbers_it_sets_and_says_what_a_reader_needs(name: str) -> None:
    text = FILES[name]
    set_here = set(re.findall(r"^(\w+):", text, re.MULTILINE)) - {"defaults"}
    named = set(re.findall(r"^  - override /(\w+): \w+$", text, re.MULTILINE))
    groups = {folder.name for folder in conf_folder().iterdir() if folder.is_dir()}
    assert (set_here & groups) - {"trainer"} <= named
    assert not set_here & {"name", "seed", "protocol"} and "protocol" not in named
    labels = re.findall(r"^# (\w+): \S", text, re.MULTILINE)
    assert labels == ["Claim", "Source", "Command", "Published", "Inferred", "Cost"]
    assert f"experiment={name} " in text
    published = ROWS[name][1] if name in ROWS else None
    assert published is None or f"{100 * published:.2f} %" in text


def test_one_run_serves_both_tables_that_it_stands_in(composed: Compose) -> None:
    assert resolved(composed("experiment=loss_ce")) == resolved(composed("experiment=optimizer_adam"))
