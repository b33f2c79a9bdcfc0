"""Every option composes with every other, and trains."""

import itertools
import math
import random

import lightning as L
import pytest
import torch

from cifar_lab.config import build, build_scheduler, conf_folder
from cifar_lab.machine import hardware
from cifar_lab.train.assembly import make_classifier
from tests.conftest import Compose

SYNTHETIC = ["data=synthetic", "data.num_train=20", "data.num_test=10"]
# CIFAR-10 uses the same data module as the synthetic images and needs files. `logger` and `trainer` do not change
# training. Experiments have their own test.
GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in conf_folder().iterdir()
    if folder.is_dir() and folder.name not in {"hydra", "data", "logger", "trainer", "experiment"}
}
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]
PAIRS = [pair for pair in itertools.combinations(OPTIONS, 2) if pair[0][0] != pair[1][0]]
# Studies and searches choose options that are not typed; by default one study and one search stand for all.
AXES = {"study": "bn_smoothness", "search": "adam"}


def _covering() -> list[dict[str, str]]:
    """Return as few shuffled compositions as cover each option once."""
    groups = {group: options[:] for group, options in GROUPS.items() if group not in AXES}
    order = random.Random(0)
    for options in groups.values():
        order.shuffle(options)
    number = max(map(len, groups.values()))
    return [{group: options[row % len(options)] for group, options in groups.items()} for row in range(number)]


def train_a_step(composed: Compose, *overrides: str) -> dict[str, float]:
    """Train a narrow network for one step, validate it, and return the logged metrics."""
    # Average the only epoch.
    whole = ["averaging.start=0"] if "averaging=swa" in overrides or "experiment=swa" in overrides else []
    whole += ["averaging.every_n_steps=1"] if "averaging=lookahead" in overrides else []
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
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    callbacks = [build(each) for name, each in config.callbacks.items() if name not in ("checkpoint", "snapshots")]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=config.trainer.limit_train_batches,
        callbacks=[*callbacks, *(each for each in (averaging, probe) if each)],
        log_every_n_steps=1,
        **dict.fromkeys(quiet, False),
    )
    trainer.fit(classifier, datamodule)
    assert probe is None or probe.arrays()["step"].tolist() == [0]
    after = torch.nn.utils.parameters_to_vector(classifier.parameters()).detach()
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize(
    "options",
    [
        *_covering(),
        *({group: option} for group, option in AXES.items()),
        {"bn": "false", "l1": "1e-4", "grad_clip": "0"},
        {"model.init": "he", "grad_clip": "null"},
    ],
)
def test_options_of_all_groups_train_a_step_together(composed: Compose, options: dict[str, str]) -> None:
    metrics = train_a_step(composed, *(f"{group}={option}" for group, option in options.items()))
    assert set(metrics) == {"train/loss", "train/objective", "train/acc", "train/lr", "val/loss", "val/acc"}
    assert not any(map(math.isnan, metrics.values()))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_any_two_options_train_a_step_together(
    composed: Compose, first: tuple[str, str], second: tuple[str, str]
) -> None:
    train_a_step(composed, "=".join(first), "=".join(second))


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", "seed=0 epochs=50 batch_size=128 bn=true l1=0.0 grad_clip=1.0 model.dropout=0.5 loss=ce"),
        ("", "optimizer=adam optimizer.lr=1e-3 optimizer.weight_decay=1e-4"),
        ("optimizer=adamw", "optimizer.lr=1e-3 optimizer.weight_decay=0.05"),
        (
            "optimizer=sgd",
            "optimizer.lr=0.05 optimizer.momentum=0.9 optimizer.nesterov=true optimizer.weight_decay=5e-4",
        ),
        ("", "scheduler=cosine scheduler.T_max=50 scheduler.eta_min=1e-6"),
        ("scheduler=warm_restarts", "scheduler.T_0=10 scheduler.T_mult=2"),
        ("scheduler=one_cycle", "scheduler.pct_start=0.15"),
        (
            "scheduler=plateau",
            "scheduler.mode=min scheduler.patience=3 scheduler.factor=0.2 scheduler.cooldown=2 "
            "scheduler.threshold=1e-3 scheduler.lightning.monitor=val/loss",
        ),
        ("loss=label_smoothing", "loss.smoothing=0.1"),
        ("loss=focal", "loss.alpha=1 loss.gamma=2"),
    ],
)
def test_defaults_are_those_of_the_report(composed: Compose, options: str, settings: str) -> None:
    # The typed settings are the defaults.
    assert composed(*options.split(), *settings.split()) == composed(*options.split())


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ("scheduler=cosine epochs=8", ("T_max", 8)),
        ("scheduler=step scheduler.step_size=3", ("step_size", 3)),
        ("scheduler=warm_restarts scheduler.T_0=4", ("T_0", 4)),
        ("scheduler=constant scheduler.total_iters=2", ("total_iters", 2)),
    ],
)
def test_a_schedules_lengths_are_in_epochs_even_if_it_is_stepped_per_step(
    composed: Compose, options: str, length: tuple[str, int]
) -> None:
    key, epochs = length
    for interval, steps in (("epoch", epochs), ("step", 25 * epochs)):
        config = composed(*options.split(), f"scheduler.lightning.interval={interval}")
        assert build_scheduler(config.scheduler, total_steps=25 * 8, epochs=8)["scheduler"].keywords[key] == steps


def test_one_cycle_takes_the_runs_steps_and_the_optimizers_rate(composed: Compose) -> None:
    config = composed("scheduler=one_cycle", "optimizer.lr=0.3")
    options = build_scheduler(config.scheduler, total_steps=100, epochs=10)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3, momentum=0.9)
    scheduler = options["scheduler"](optimizer)
    assert (options["interval"], scheduler.total_steps) == ("step", 100)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(99):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert max(rates) == pytest.approx(0.3)
    assert rates.index(max(rates)) == 14  # 15 % of the steps warm up
