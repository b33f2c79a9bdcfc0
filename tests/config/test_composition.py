"""Every option composes with every other, and trains."""

import itertools
import random

import lightning as L
import pytest
import torch

from cifar_lab.config import build, build_scheduler, conf_folder
from cifar_lab.machine import hardware
from cifar_lab.train.assembly import make_classifier
from tests.conftest import Compose

SYNTHETIC = ["data=synthetic", "data.num_train=20", "data.num_test=10"]
# CIFAR-10 has the same data module as the synthetic images and needs files, `logger` and `trainer` do not train, and
# experiments have a test of their own.
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in conf_folder().iterdir()
    if folder.is_dir() and folder.name not in {"hydra", "data", "logger", "trainer", "experiment"}
}
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]
PAIRS = [pair for pair in itertools.combinations(OPTIONS, 2) if pair[0][0] != pair[1][0]]
# Of studies and searches, which choose options for what is not typed, one of each stands for all by default.
AXES = {"study": "bn_smoothness", "search": "adam"}


def _covering() -> list[dict[str, str]]:
    """As few compositions as have each option once, shuffled."""
    groups = {group: options[:] for group, options in GROUPS.items() if group not in AXES}
    order = random.Random(0)
    for options in groups.values():
        order.shuffle(options)
    number = max(map(len, groups.values()))
    return [{group: options[row % len(options)] for group, options in groups.items()} for row in range(number)]


def train_a_step(composed: Compose, *overrides: str) -> dict[str, float]:
    """Train one step of a narrow network and validate; the metrics that it logs."""
    # Of one epoch, the average takes the only one.
    whole = ["averaging.start=0"] if "averaging=swa" in overrides or "experiment=swa" in overrides else []
    config = composed(*overrides, *SYNTHETIC, "batch_size=9", "epochs=1", "trainer.limit_train_batches=1", *whole)
    model = config.model
    for key, narrow in (("filters", [4, 4, 4]), ("hidden", 8), ("widths", [8] * len(model.get("widths", ())))):
        if key in model:
            model[key] = narrow
    if "stages" in model:
        model.stages = [[4] * len(stage) for stage in model.stages]
    datamodule = build(config.data)
    classifier = make_classifier(config, datamodule, hardware.Native("cpu", "32-true", torch.contiguous_format))
    before = torch.nn.utils.parameters_to_vector(classifier.parameters()).detach().clone()
    averaging, probe = build(config.averaging), build(config.probe)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=config.trainer.limit_train_batches,
        logger=False,
        callbacks=[
            *(build(option) for name, option in config.callbacks.items() if name not in ("checkpoint", "snapshots")),
            *(each for each in (averaging, probe) if each),
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(classifier, datamodule)
    assert probe is None or probe.arrays()["step"].tolist() == [0]
    after = torch.nn.utils.parameters_to_vector(classifier.parameters()).detach()
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _logs_numbers(metrics: dict[str, float]) -> None:
    assert set(metrics) == {"train/loss", "train/objective", "train/acc", "train/lr", "val/loss", "val/acc"}
    assert all(value == value for value in metrics.values())


@pytest.mark.parametrize("options", _covering(), ids=lambda options: ",".join(options.values()))
def test_options_of_all_groups_train_a_step_together(composed: Compose, options: dict[str, str]) -> None:
    _logs_numbers(train_a_step(composed, *(f"{group}={option}" for group, option in options.items())))


@pytest.mark.parametrize(
    ("group", "option"),
    [pytest.param(*each, marks=() if AXES.get(each[0]) == each[1] else pytest.mark.slow) for each in OPTIONS],
)
def test_an_option_trains_a_step(composed: Compose, group: str, option: str) -> None:
    _logs_numbers(train_a_step(composed, f"{group}={option}"))


@pytest.mark.parametrize("overrides", [("bn=false", "l1=1e-4", "grad_clip=0"), ("model.init=he", "grad_clip=null")])
def test_scalars_train_a_step(composed: Compose, overrides: tuple[str, ...]) -> None:
    train_a_step(composed, *overrides)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_any_two_options_train_a_step_together(
    composed: Compose, first: tuple[str, str], second: tuple[str, str]
) -> None:
    train_a_step(composed, "=".join(first), "=".join(second))


def test_the_groups_hold_the_promised_options() -> None:
    assert set(GROUPS["model"]) == {"cnn", "vgg_a", "vgg_a_light", "vgg_a_dropout", "resnet14", "resnet18"}
    assert set(GROUPS["activation"]) == {"relu", "leaky_relu", "elu", "swish", "gelu", "mish"}
    assert set(GROUPS["loss"]) == {"ce", "label_smoothing", "focal", "mse"}
    assert set(GROUPS["optimizer"]) == {"adam", "adamw", "sgd", "sign_sgd"}
    assert set(GROUPS["scheduler"]) == {"constant", "step", "plateau", "cosine", "warm_restarts", "one_cycle"}
    assert set(GROUPS["augment"]) == {"none", "flip_crop", "randaugment", "cutout"}
    assert set(GROUPS["averaging"]) == {"none", "swa", "ema"}
    assert set(GROUPS["probe"]) == {"none", "gradient"}
    assert set(GROUPS["protocol"]) == {"holdout", "report"}


def test_what_the_command_line_says_of_the_activation_wins_over_the_model(composed: Compose) -> None:
    assert composed("model=vgg_a").activation._target_ == "torch.nn.ReLU"
    assert composed("model=vgg_a", "activation=mish").model.activation._target_ == "torch.nn.Mish"
    assert composed("activation=mish", "model=vgg_a").model.activation._target_ == "torch.nn.Mish"


def test_defaults_are_those_of_the_report(composed: Compose) -> None:
    config = composed()
    assert (config.seed, config.epochs, config.batch_size, config.bn, config.l1, config.grad_clip) == (
        *(0, 50, 128, True),
        *(0.0, 1.0),
    )
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-3, 1e-4)
    assert (config.scheduler.T_max, config.scheduler.eta_min) == (50, 1e-6)
    assert config.model.dropout == 0.5
    config = composed("optimizer=sgd", "scheduler=plateau", "loss=label_smoothing")
    sgd, plateau = config.optimizer, config.scheduler
    assert (sgd.lr, sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.05, 0.9, True, 5e-4)
    assert (plateau.mode, plateau.patience, plateau.factor, plateau.cooldown, plateau.threshold) == (
        *("min", 3, 0.2),
        *(2, 1e-3),
    )
    assert plateau.lightning.monitor == "val/loss"
    assert config.loss.smoothing == 0.1
    config = composed("optimizer=adamw", "scheduler=warm_restarts", "loss=focal")
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-3, 0.05)
    assert (config.scheduler.T_0, config.scheduler.T_mult) == (10, 2)
    assert (config.loss.alpha, config.loss.gamma) == (1, 2)


def test_one_cycle_takes_the_runs_steps_and_the_optimizers_rate(composed: Compose) -> None:
    config = composed("scheduler=one_cycle", "optimizer.lr=0.3")
    assert config.scheduler.pct_start == 0.15
    options = build_scheduler(config.scheduler, total_steps=100)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3, momentum=0.9)
    scheduler = options["scheduler"](optimizer)
    assert options["interval"] == "step"
    assert scheduler.total_steps == 100
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < 100 else None
    assert max(rates) == pytest.approx(0.3)
    assert rates.index(max(rates)) == 14  # 15 % of the steps warm up
