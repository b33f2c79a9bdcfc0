"""Every option composes with every other, and trains."""

import itertools
import random
from collections.abc import Callable

import lightning as L
import pytest
import torch
from omegaconf import DictConfig

from cifar_lab import hardware
from cifar_lab.assembly import make_classifier
from cifar_lab.config import build, build_scheduler, conf_folder

Compose = Callable[..., DictConfig]

SYNTHETIC = ["data=synthetic", "data.num_train=20", "data.num_test=10"]
# CIFAR-10 has the same data module as the synthetic images and needs files, `logger` and `trainer` do not train, and
# experiments have a test of their own.
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in conf_folder().iterdir()
    if folder.is_dir() and folder.name not in {"hydra", "data", "logger", "trainer", "experiment"}
}
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]
PAIRS = random.Random(0).sample([pair for pair in itertools.combinations(OPTIONS, 2) if pair[0][0] != pair[1][0]], k=40)


def train_a_step(composed: Compose, *overrides: str) -> dict[str, float]:
    """Train one step of a narrow network and validate; the metrics that it logs."""
    # Of one epoch, the average takes the only one.
    whole = ["averaging.start=0"] if "averaging=swa" in overrides or "experiment=swa" in overrides else []
    config = composed(*overrides, *SYNTHETIC, "batch_size=9", "epochs=1", "trainer.limit_train_batches=1", *whole)
    model = config.model
    for key, narrow in (("filters", [4, 4, 4]), ("hidden", 8), ("widths", [4] * len(model.get("widths", ())))):
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


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_trains_a_step(composed: Compose, group: str, option: str) -> None:
    metrics = train_a_step(composed, f"{group}={option}")
    assert set(metrics) == {"train/loss", "train/objective", "train/acc", "train/lr", "val/loss", "val/acc"}
    assert all(value == value for value in metrics.values())


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_options_train_a_step_together(composed: Compose, first: tuple[str, str], second: tuple[str, str]) -> None:
    train_a_step(composed, "=".join(first), "=".join(second))


@pytest.mark.parametrize(
    "override", ["bn=false", "l1=1e-4", "grad_clip=0", "grad_clip=null", "seed=5", "model.init=he"]
)
def test_a_scalar_trains_a_step(composed: Compose, override: str) -> None:
    train_a_step(composed, override)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"), [pair for pair in itertools.combinations(OPTIONS, 2) if pair[0][0] != pair[1][0]]
)
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
    sgd = composed("optimizer=sgd").optimizer
    assert (sgd.lr, sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.05, 0.9, True, 5e-4)
    adamw = composed("optimizer=adamw").optimizer
    assert (adamw.lr, adamw.weight_decay) == (1e-3, 0.05)
    plateau = composed("scheduler=plateau").scheduler
    assert (plateau.mode, plateau.patience, plateau.factor, plateau.cooldown, plateau.threshold) == (
        *("min", 3, 0.2),
        *(2, 1e-3),
    )
    assert plateau.lightning.monitor == "val/loss"
    restarts = composed("scheduler=warm_restarts").scheduler
    assert (restarts.T_0, restarts.T_mult) == (10, 2)
    assert composed("scheduler=one_cycle").scheduler.pct_start == 0.15
    assert composed("loss=label_smoothing").loss.smoothing == 0.1
    assert (composed("loss=focal").loss.alpha, composed("loss=focal").loss.gamma) == (1, 2)


def test_one_cycle_takes_the_runs_steps_and_the_optimizers_rate(composed: Compose) -> None:
    config = composed("scheduler=one_cycle", "optimizer.lr=0.3")
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


def test_types_of_scalars_are_checked(composed: Compose) -> None:
    for override in ("epochs=abc", "bn=yess", "seed=1.5", "l1=abc", "batch_size=x"):
        with pytest.raises(Exception, match=r"could not be converted|Error merging"):
            composed(override)
