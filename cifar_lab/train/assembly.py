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

_FITTED_TO = 5_000  # training images passed to a model's `fit_to`


def make_classifier(config: DictConfig, datamodule: InMemoryDataModule, native: hardware.Native) -> Classifier:
    """Build the module that the configuration describes; its weights depend on the global random state.

    Raises:
        ValueError: Model and data differ in the number of classes, `freeze` names a module that the model lacks, the
            loss does not accept mixed labels, or the held-out fraction contradicts the protocol.
    """
    if bool(datamodule.val_fraction) != holds_out(config):  # an external class's option file may lack it
        raise UsageError(
            f"protocol={config.protocol.name}, but {type(datamodule).__name__} holds out {datamodule.val_fraction}; "
            "add val_fraction: ${protocol.val_fraction} to its option file"
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
        model(datamodule.training_images(2))  # materialises lazy layers
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
                f"augment._target_={config.augment._target_} produces: {' '.join(str(error).split())}"
            ) from None
    return loss


def make_callbacks(config: DictConfig, attempt: Attempt, throughput: Throughput, averaging: Any) -> list[Any]:
    """Return the Lightning callbacks of a run: our own, then the configuration's, then the caller's."""
    run, options = attempt.run, dict(config.callbacks)
    saving = Saving(run, attempt.interruption, options.pop("checkpoint")["every_minutes"], attempt.goes_beyond)
    made = [build(option) for option in options.values()]
    val_name = "val acc" if holds_out(config) else "test acc"
    has_progress = config.trainer.enable_progress_bar and ranks.rank() == 0
    # Lightning calls `Checkpoint` callbacks last, in this order: the Recorder checks the loss before weights are saved.
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
    """Return the callback that averages weights, or None; with `debug=`, averaging starts at the first step."""
    averaging = build(config.averaging, **({"start": 0} if config.debug and "start" in config.averaging else {}))
    if config.debug and isinstance(averaging, SWA):
        averaging.most_batches = config.debug.batches
    return averaging


def trainer_options(config: DictConfig, native: hardware.Native, turn: Turn | None = None) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer, with `auto` resolved for the hardware.

    Call it for each Trainer: a strategy cannot be shared between two of them.

    Raises:
        ValueError: Synchronised BatchNorm was requested for several processes without GPUs.
    """
    options = {**resolved(config.trainer), **_processes()}
    if options["sync_batchnorm"] and ranks.count() > 1 and native.device != "cuda":
        raise UsageError(UNSYNCED)
    del options["memory_format"]
    if native.device == "cuda" and turn is not None and turn.parallel > 1 and options["devices"] == 1:
        options["devices"] = [(turn.number - 1) % hardware.device_count("gpu")]
    if native.device == "cpu" and ranks.count() == 1:
        options["devices"] = 1  # `auto` means the same; so does [0], which Lightning rejects for a CPU
    if options["deterministic"] == "auto":
        # On a CPU all operations we use are deterministic, and torch's deterministic mode would fill new memory.
        options["deterministic"] = native.device == "cuda"
    return {
        **options,
        # Nothing is logged within an epoch; a value above the batches per epoch would only cause a warning.
        "log_every_n_steps": 1,
        "precision": native.precision,
        "max_epochs": math.ceil(config.epochs),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **(_limits(config.debug.batches) if config.debug else {}),
    }


def _limits(batches: int) -> dict[str, Any]:
    """Return the Trainer arguments for one epoch of `batches` batches per split."""
    limits = dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches"), batches)
    return {**limits, "max_epochs": 1, "check_val_every_n_epoch": 1, "max_time": None}


def make_trainer(**options: Any) -> L.Trainer:
    """Build Lightning's Trainer, ignoring the shell's `PL_TRAINER_` variables, which would replace its defaults."""
    parameters = inspect.signature(L.Trainer).parameters
    return L.Trainer(**{**{name: parameter.default for name, parameter in parameters.items()}, **options})


def _processes() -> dict[str, Any]:
    """Return the Trainer arguments for distributed training."""
    if ranks.count() == 1:
        # In a Slurm job, Lightning would otherwise take the job's tasks for the run's processes and wait for them, and
        # requeue the job at the scheduler's signal before the run is saved.
        return {"strategy": "auto", "num_nodes": 1, "plugins": [LightningEnvironment()]}
    # Our own processes, like torchrun's, are already running, so Lightning must not start any.
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    # Otherwise torch rebuilds its gradient buckets after a process's first step. Sums over more than two processes
    # depend on the position in a bucket, so a resumed run would not be bitwise identical.
    keeps_places = ranks.count() > 2
    return {
        "strategy": DDPStrategy(cluster_environment=TorchElasticEnvironment(), find_unused_parameters=keeps_places),
        "devices": here,
        "num_nodes": ranks.count() // here,
        "use_distributed_sampler": False,
        "plugins": [],
    }


def _limited(batches: int, limit: float | None) -> int:
    """Return the batches of an epoch that Lightning uses: `limit` is a maximum (int), a fraction (float) or None."""
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def total_steps(config: DictConfig, datamodule: InMemoryDataModule) -> int:
    """Return the number of optimizer steps of the whole run."""
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
    """Return the result's entries about model, data, machine and source code, as plain values."""
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
