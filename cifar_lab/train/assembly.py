"""Builds the objects that Lightning trains from a composed configuration."""

import inspect
import math
import os
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.plugins.environments import TorchElasticEnvironment  # type: ignore[attr-defined]
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig
from torch import nn

from cifar_lab.config import UNSYNCED, build, build_optimizer, build_scheduler, resolved
from cifar_lab.data.datamodule import InMemoryDataModule
from cifar_lab.engines.handover import Turn
from cifar_lab.machine import hardware, provenance, ranks
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.runs.labels import LAST, holds_out
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.callbacks import (
    SWA,
    LastEpoch,
    Progress,
    Recorder,
    Saving,
    Stopping,
    Throughput,
    batches_of_run,
    best,
)
from cifar_lab.train.classifier import Classifier
from cifar_lab.train.freezing import freeze
from cifar_lab.train.rehearsal import drop_single_image

_FITTED_TO = 5_000  # training images


def make_classifier(config: DictConfig, datamodule: InMemoryDataModule, native: hardware.Native) -> Classifier:
    """The module that the configuration describes; its weights come from the global random state.

    Raises:
        ValueError: The model has another number of classes than the data or no module that `freeze` names, the loss
            takes no mixed labels, or the data holds images out against the protocol.
    """
    if bool(datamodule.val_fraction) != holds_out(config):  # the option of a class from outside lacks it
        raise UsageError(
            f"protocol={config.protocol.name}, and {type(datamodule).__name__} holds out {datamodule.val_fraction}; "
            "give its option val_fraction: ${protocol.val_fraction}"
        )
    datamodule.setup()
    num_classes = len(datamodule.classes)
    if config.model.get("num_classes", num_classes) != num_classes:
        raise UsageError(
            f"model.num_classes={config.model.num_classes}: the data has {num_classes}; "
            f"set model.num_classes={num_classes}"
        )
    model = build(config.model)
    if any(isinstance(weight, nn.UninitializedParameter) for weight in model.parameters()):
        model(datamodule.training_images(2))  # lazy layers find their sizes
    if hasattr(model, "fit_to"):  # initial weights that depend on the data
        model.fit_to(datamodule.training_images(_FITTED_TO))
    freeze(model, config.get("freeze") or ())
    drop_single_image(model, datamodule)
    steps = total_steps(config, datamodule)
    classifier = Classifier(
        model,
        _make_loss(config, datamodule),
        build_optimizer(config.optimizer),
        build_scheduler(config.scheduler, steps, config.epochs),
        num_classes=num_classes,
        l1=config.l1,
        grad_clip=config.grad_clip,
        memory_format=native.memory_format,
        seed=config.seed,
    )
    classifier.total_steps = steps
    every = config.averaging.get("update_every_n_steps") or 0
    if every > steps:
        raise UsageError(f"averaging.update_every_n_steps={every}: the run has {steps} steps; set it lower")
    return classifier


def _make_loss(config: DictConfig, datamodule: InMemoryDataModule) -> Any:
    loss, num_classes = build(config.loss), len(datamodule.classes)
    if hasattr(datamodule.augment, "mix"):
        logits = torch.zeros(num_classes + 1, num_classes)
        try:
            float(loss(logits, logits.softmax(1)))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise UsageError(
                f"loss._target_={config.loss._target_}: it does not accept label probabilities, which "
                f"augment._target_={config.augment._target_} makes: {' '.join(str(error).split())}"
            ) from None
    return loss


def make_callbacks(config: DictConfig, attempt: Attempt, throughput: Throughput, averaging: Any) -> list[Any]:
    """Lightning's callbacks: our own, then the configuration's, then the caller's."""
    run, options = attempt.run, dict(config.callbacks)
    saving = Saving(run, attempt.interruption, options.pop("checkpoint")["every_minutes"], attempt.goes_beyond)
    made = [build(option) for option in options.values()]
    val_name = "val acc" if holds_out(config) else "test acc"
    has_progress = config.trainer.enable_progress_bar and ranks.rank() == 0
    # Lightning calls checkpoints last, and in this order: a loss is checked before the weights behind it are kept.
    callbacks = [
        throughput,
        Recorder(run, throughput),
        None if config.protocol.name == LAST else best(run),
        saving,
        Stopping(attempt.interruption),
        None if isinstance(config.epochs, int) else LastEpoch(config.epochs),
        *(each(run) if isinstance(each, partial) else each for each in made),
        build(config.probe, run=run, throughput=throughput),
        averaging,
        Progress(throughput, val_name=val_name, turn=attempt.turn, epochs=config.epochs) if has_progress else None,
        *attempt.callbacks,
    ]
    return [callback for callback in callbacks if callback is not None]


def make_averaging(config: DictConfig) -> Any:
    """The callback that averages weights, or None; a trial averages from its beginning."""
    averaging = build(config.averaging, **({"start": 0} if config.debug and "start" in config.averaging else {}))
    if config.debug and isinstance(averaging, SWA):
        averaging.most_batches = config.debug.batches
    return averaging


def trainer_options(config: DictConfig, native: hardware.Native, turn: Turn | None = None) -> dict[str, Any]:
    """Lightning's Trainer arguments, with the hardware's choices filled in; each Trainer needs its own, for a strategy.

    Raises:
        ValueError: Synchronised BatchNorm is asked for on several processes without GPUs.
    """
    options = {**resolved(config.trainer), **_processes()}
    if options["sync_batchnorm"] and ranks.count() > 1 and native.device != "cuda":
        raise UsageError(UNSYNCED)
    del options["memory_format"]
    if native.device == "cuda" and turn is not None and turn.parallel > 1 and options["devices"] == 1:
        options["devices"] = [(turn.number - 1) % hardware.device_count("gpu")]
    if native.device == "cpu" and ranks.count() == 1:
        options["devices"] = 1  # the only number that Lightning takes for a CPU; `auto` and [0] mean it too
    if options["deterministic"] == "auto":
        # On a CPU everything we use is deterministic already, and torch's switch would fill fresh memory.
        options["deterministic"] = native.device == "cuda"
    return {
        **options,
        # Nothing is logged within an epoch; a number above the epoch's batches would only draw a warning.
        "log_every_n_steps": 1,
        "precision": native.precision,
        "max_epochs": math.ceil(config.epochs),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **(_limits(config.debug.batches) if config.debug else {}),
    }


def _limits(batches: int) -> dict[str, Any]:
    """Lightning's arguments for an epoch of some batches of each split."""
    limits = dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches"), batches)
    return {**limits, "max_epochs": 1, "check_val_every_n_epoch": 1, "max_time": None}


def make_trainer(**options: Any) -> L.Trainer:
    """Lightning's Trainer; arguments that are left out are its defaults, not `PL_TRAINER_` variables of a shell."""
    parameters = inspect.signature(L.Trainer).parameters
    return L.Trainer(**{**{name: parameter.default for name, parameter in parameters.items()}, **options})


def _processes() -> dict[str, Any]:
    """Lightning's arguments about processes that train together."""
    if ranks.count() == 1:
        # Within a Slurm job, Lightning would otherwise take the job's tasks for the run's processes, wait for them,
        # and at the scheduler's signal queue the job again before the run is saved.
        return {"strategy": "auto", "num_nodes": 1, "plugins": [LightningEnvironment()]}
    # Our own processes, like torchrun's, have started already: Lightning is to start none.
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    # Otherwise torch moves gradients between its buckets after a process's first step; sums over more than two
    # processes depend on their place, and a resumed run would have other bits.
    keeps_places = ranks.count() > 2
    return {
        "strategy": DDPStrategy(cluster_environment=TorchElasticEnvironment(), find_unused_parameters=keeps_places),
        "devices": here,
        "num_nodes": ranks.count() // here,
        "use_distributed_sampler": False,
        "plugins": [],
    }


def _limited(batches: int, limit: float | None) -> int:
    """How many of an epoch's batches Lightning takes: at most a number of them, a share, or all."""
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def total_steps(config: DictConfig, datamodule: InMemoryDataModule) -> int:
    """Optimizer steps of the whole run."""
    batches = _limited(datamodule.steps_per_epoch, config.trainer.limit_train_batches)
    if batches == 0:
        limit = f"trainer.limit_train_batches={config.trainer.limit_train_batches}"
        raise UsageError(f"{limit} of {datamodule.steps_per_epoch} batches leaves none; set it higher")
    every = config.trainer.accumulate_grad_batches
    before = math.ceil(config.epochs) - 1
    last = batches_of_run(config.epochs, batches) - before * batches
    return before * math.ceil(batches / every) + math.ceil(last / every)


def describe(
    config: DictConfig, classifier: Classifier, datamodule: InMemoryDataModule, native: hardware.Native
) -> dict[str, Any]:
    """The result's entries about model, data, machine and source, in plain values."""
    trained = _limited(datamodule.steps_per_epoch, config.trainer.limit_train_batches) * config.batch_size
    loader = datamodule.val_dataloader()
    validated = _limited(len(loader), config.trainer.limit_val_batches) * loader.batch_size
    has_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in classifier.modules())
    return {
        "name": config.name,
        "seed": config.seed,
        "protocol": config.protocol.name,
        "published": config.published,
        "fingerprint": fingerprint(resolved(config)),
        "num_parameters": sum(weight.numel() for weight in classifier.parameters()),
        "flops_per_image": classifier.flops_per_image(),
        "train_size": min(trained, datamodule.size("train")),
        "train_available": datamodule.train_available,
        "val_size": min(validated, datamodule.size("val")),
        "test_size": int(classifier.test_confusion.compute().sum()),
        "memory_format": str(native.memory_format).removeprefix("torch."),
        "optimizer_implementation": classifier.optimizer_implementation,
        "peak_memory_bytes": max(ranks.gathered(hardware.peak_memory_bytes(native.device))),
        "world_size": ranks.count(),
        "batch_norm_per_process": has_norm and ranks.count() > 1 and not config.trainer.sync_batchnorm,
        "hardware": hardware.describe(native.device),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
    }
