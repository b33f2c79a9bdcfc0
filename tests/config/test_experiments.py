"""Every experiment equals the report's row of its name, and trains."""

import math
import re

import pytest

from cifar_lab.config import conf_folder, resolved
from cifar_lab.runs.fingerprints import settings
from tests.config.test_composition import train_a_step
from tests.conftest import Compose

# Our options for the components that the report names.
CLASSES = {
    "cifar_lab.models": "cnn:CNN vgg_a:VGG resnet14:ResNet",
    "torch.nn": "leaky_relu:LeakyReLU relu:ReLU elu:ELU swish:SiLU ce:CrossEntropyLoss",
    "cifar_lab.losses": "label_smoothing:LabelSmoothingCrossEntropy focal:FocalLoss mse:MSELoss",
    "torch.optim": "adam:Adam sgd:SGD adamw:AdamW",
    "cifar_lab.optimizers": "sign_sgd:SignSGD",
    "torch.optim.lr_scheduler": "cosine:CosineAnnealingLR step:StepLR plateau:ReduceLROnPlateau constant:ConstantLR "
    "warm_restarts:CosineAnnealingWarmRestarts",
    "cifar_lab.data.augment": "flip_crop:flip_crop none:identity",
    "cifar_lab.data.randaugment": "randaugment:randaugment",
    "cifar_lab.train.callbacks.averaging": "swa:SWA",
}
TARGETS = {
    option: f"{module}.{name}"
    for module, pairs in CLASSES.items()
    for option, name in (pair.split(":") for pair in pairs.split())
}

LEAKY = "activation=leaky_relu activation.negative_slope=0.1"
SMOOTHING, SIGN = "loss=label_smoothing loss.smoothing", "optimizer=sign_sgd optimizer.momentum=0.9"
SGD = "optimizer=sgd optimizer.momentum=0.9 optimizer.nesterov=false"
FOCAL = "loss=focal loss.alpha=1 loss.gamma=1"
STEP = "scheduler=step scheduler.step_size=20 scheduler.gamma=0.1 epochs=50"
PLATEAU = (
    "scheduler=plateau scheduler.mode=min scheduler.patience=3 scheduler.factor=0.2 scheduler.cooldown=2 "
    "scheduler.threshold=1e-3 scheduler.threshold_mode=rel scheduler.lightning.monitor=val/loss epochs=50"
)
HALVES = "data.mean=[0.5,0.5,0.5] data.std=[0.5,0.5,0.5]"


def rate(lr: str, weight_decay: str) -> str:
    return f"optimizer.lr={lr} optimizer.weight_decay={weight_decay}"


def cosine(end: str, epochs: int) -> str:
    return f"scheduler=cosine scheduler.eta_min={end} scheduler.T_max={epochs} epochs={epochs}"


def cnn(filters: str, dropout: float, clip: int) -> str:
    """Settings that the CNN's rows share."""
    return (
        f"model=cnn model.init=default model.filters={filters} model.dropout={dropout} grad_clip={clip} l1=0 bn=true "
        "batch_size=128 augment=flip_crop augment.padding=4 "
        "data.mean=[0.4914,0.4822,0.4465] data.std=[0.2470,0.2435,0.2616]"
    )


ADAM = f"optimizer=adam {rate('1e-3', '1e-4')}"
F1, F2 = "[64,128,256]", "[128,256,512]"
SMALL = cnn(F1, 0.5, 1)
WIDE = cnn(F2, 0.3, 5)
BEST = f"{cnn(F2, 0.4, 5)} activation=leaky_relu activation.negative_slope=0.05 {SMOOTHING}=0.15 {rate('2e-3', '1e-5')}"
SCHEDULER_ROWS = f"{WIDE} l1=1e-5 {LEAKY} loss=ce {ADAM}"
VGG = (
    "model=vgg_a model.stages=[[64],[128],[256,256],[512,512],[512,512]] model.hidden=512 model.init=xavier "
    "model.dropout=null batch_size=128 l1=0 grad_clip=0 epochs=20 activation=relu loss=ce optimizer=adam "
    f"{rate('1e-3', '0')} scheduler=constant scheduler.factor=1 augment=none {HALVES}"
)
RESNET = (
    "model=resnet14 model.blocks=[2,2,2] model.widths=[64,128,256] bn=true batch_size=128 l1=0 grad_clip=0 "
    f"trainer.check_val_every_n_epoch=5 activation=swish {SMOOTHING}=0.1 optimizer=adamw {rate('1e-3', '0.05')} "
    "scheduler=warm_restarts scheduler.T_0=10 scheduler.T_mult=2 scheduler.lightning.interval=epoch "
    f"augment=randaugment augment.num_ops=2 augment.magnitude=9 {HALVES}"
)

# Settings and published accuracies, copied from the report's table and not from the files.
ROWS: dict[str, tuple[str, float | None]] = {
    "activation_leaky_relu": (f"{SMALL} {LEAKY} loss=ce {ADAM} {cosine('1e-6', 50)}", 0.8945),
    "activation_relu": (f"{SMALL} activation=relu loss=ce {ADAM} {cosine('1e-6', 50)}", 0.8931),
    "activation_elu": (f"{SMALL} activation=elu activation.alpha=1 loss=ce {ADAM} {cosine('1e-6', 50)}", 0.8745),
    "loss_ce": (f"{SMALL} {LEAKY} loss=ce {ADAM} {STEP}", 0.8842),
    "loss_label_smoothing": (
        f"{cnn(F1, 0.3, 1)} {LEAKY} {SMOOTHING}=0.2 optimizer=adam {rate('5e-4', '1e-5')} {cosine('1e-5', 75)}",
        0.8961,
    ),
    "loss_focal": (
        f"{cnn(F1, 0.5, 5)} {LEAKY} {FOCAL} optimizer=adam {rate('5e-3', '1e-5')} {cosine('1e-6', 50)}",
        0.8761,
    ),
    "loss_mse": (
        f"{WIDE} activation=relu loss=mse optimizer=adam {rate('1e-3', '1e-5')} {cosine('1e-6', 100)}",
        0.9003,
    ),
    "optimizer_adam": (f"{SMALL} {LEAKY} loss=ce {ADAM} {STEP}", 0.8842),
    "optimizer_sgd": (f"{SMALL} {LEAKY} loss=ce {SGD} {rate('1e-3', '1e-4')} {STEP}", 0.7858),
    "optimizer_sign_sgd": (f"{SMALL} {LEAKY} loss=ce {SIGN} {rate('1e-3', '1e-4')} {STEP}", 0.8264),
    "scheduler_step": (f"{SCHEDULER_ROWS} {STEP}", 0.8853),
    "scheduler_plateau": (f"{SCHEDULER_ROWS} {PLATEAU}", 0.8844),
    "scheduler_cosine": (f"{SCHEDULER_ROWS} {cosine('1e-5', 50)}", 0.8898),
    "best_cnn": (f"{BEST} optimizer=adam {cosine('1e-6', 100)}", 0.9153),
    "swa": (
        f"{BEST} {SGD} averaging=swa averaging.start=0.8 averaging.anneal=0.1 averaging.lr=0.05 {cosine('1e-6', 100)}",
        0.8517,
    ),
    "resnet_adamw": (f"{RESNET} epochs=200", 0.9522),
    "resnet_adamw_150": (f"{RESNET} epochs=150", None),
    "vgg_a": (f"{VGG} bn=false", None),
    "vgg_a_bn": (f"{VGG} bn=true", None),
}
# Options train in test_composition.py. These two bring what no option does: images with other means, averaged weights.
TRAINED = ("resnet_adamw_150", "swa")
FAST = ("fast_91", "fast_94", "fast_96")
FILES = {path.stem: path.read_text(encoding="utf-8") for path in (conf_folder() / "experiment").glob("*.yaml")}


def test_every_row_has_a_file_and_every_file_a_row() -> None:
    assert set(FILES) == {*ROWS, *FAST}


@pytest.mark.parametrize("name", ROWS)
def test_an_experiment_sets_what_its_row_says_and_nothing_else(composed: Compose, name: str) -> None:
    config, (row, published) = composed(f"experiment={name}"), ROWS[name]
    words = row.split()
    assert settings(resolved(config)) == settings(resolved(composed(*words)))
    assert config.published == published
    for group, _, option in (word.partition("=") for word in words):
        assert option not in TARGETS or config[group]._target_ == TARGETS[option]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in TRAINED)) for n in sorted(FILES)]
)
def test_an_experiment_trains_a_step(composed: Compose, name: str) -> None:
    # The experiment's own statistics and numbers would be dropped with its data option, so only the images are
    # replaced.
    assert not any(map(math.isnan, train_a_step(composed, f"experiment={name}").values()))


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_experiments_file_chooses_the_options_that_it_changes_and_has_a_complete_header(name: str) -> None:
    text = FILES[name]
    set_here = set(re.findall(r"^(\w+):", text, re.MULTILINE)) - {"defaults"}
    parents = [FILES[parent] for parent in re.findall(r"^  - (\w+)$", text, re.MULTILINE) if parent != "_self_"]
    named = set(re.findall(r"^  - override /(\w+): \w+$", "\n".join([text, *parents]), re.MULTILINE))
    groups = {folder.name for folder in conf_folder().iterdir() if folder.is_dir()}
    assert (set_here & groups) - {"trainer"} <= named
    assert not set_here & {"name", "seed", "protocol"} and ("protocol" in named) == (name in FAST)
    labels = re.findall(r"^# (\w+): \S", text, re.MULTILINE)
    assert labels == ["Claim", "Source", "Command", "Published", "Inferred", "Cost"]
    assert re.search(rf"experiment={name}\b", text)
    published = ROWS[name][1] if name in ROWS else None
    assert published is None or f"{100 * published:.2f} %" in text
