"""From a composed configuration to what Lightning trains."""

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from cifar_lab.config import UNSYNCED, build, build_scheduler, resolved
from cifar_lab.engines.jobs import Turn
from cifar_lab.runs import Run
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.train.attempt import Attempt

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

    from cifar_lab.data.datamodule import InMemoryDataModule
    from cifar_lab.machine import hardware
    from cifar_lab.train.callbacks import Throughput
    from cifar_lab.train.classifier import Classifier


def make_classifier(config: DictConfig, datamodule: "InMemoryDataModule", native: "hardware.Native") -> "Classifier":
    """The module that the configuration describes; its weights come from the global random state.

    Raises:
        ValueError: The model has another number of classes than the data.
    """
    from cifar_lab.train.classifier import Classifier

    datamodule.setup()
    num_classes = len(datamodule.classes)
    if config.model.get("num_classes", num_classes) != num_classes:
        raise ValueError(
            f"model.num_classes={config.model.num_classes}: the data has {num_classes}; "
            f"set model.num_classes={num_classes}"
        )
    return Classifier(
        build(config.model),
        build(config.loss),
        build(config.optimizer),
        build_scheduler(config.scheduler, total_steps(config, datamodule)),
        num_classes=num_classes,
        l1=config.l1,
        grad_clip=config.grad_clip,
        memory_format=native.memory_format,
        seed=config.seed,
    )


def make_callbacks(config: DictConfig, attempt: Attempt, throughput: "Throughput", averaging: Any) -> list[Any]:
    """What happens beside training: our own, then the configuration's, then the caller's."""
    from cifar_lab.machine import ranks
    from cifar_lab.train.callbacks import Progress, Recorder, Saving, Stopping, best

    run, options = attempt.run, dict(config.callbacks)
    saving = Saving(run, attempt.interruption, options.pop("checkpoint")["every_minutes"])
    # Lightning calls checkpoints last, and in this order: a loss is looked at before the weights behind it are kept.
    callbacks = [throughput, Recorder(run, throughput), best(run), saving, Stopping(attempt.interruption)]
    made = [build(option) for option in options.values()]
    callbacks += [each(run) if isinstance(each, partial) else each for each in made]
    if (probe := build(config.probe, run=run, throughput=throughput)) is not None:
        callbacks.append(probe)
    if averaging is not None:
        callbacks.append(averaging)
    if config.trainer.enable_progress_bar and ranks.rank() == 0:
        val_name = "val acc" if config.protocol.val_fraction else "test acc"
        callbacks.append(Progress(throughput, val_name=val_name, turn=attempt.turn))
    return [*callbacks, *attempt.callbacks]


def probe_cost(run: Run) -> dict[str, int | float | None]:
    """How many probes a run has made, and the seconds that they took; None where it made none."""
    if not run.probes_file.exists():
        return {"probes": None, "probe_seconds": None}
    seconds = run.probes()["seconds"]
    return {"probes": len(seconds), "probe_seconds": round(float(seconds.sum()), 3)}


def make_logger(
    config: DictConfig, run: Run, overrides: Sequence[str], hyperparameters: Mapping[str, bool | float | str]
) -> "Logger | None":
    """Lightning's logger, which TensorBoard's is told what the run is; None for `logger=none`.

    Args:
        config: The composed configuration.
        run: Where it writes.
        overrides: What the command line said.
        hyperparameters: What tells the run from others.
    """
    from cifar_lab.train.callbacks.tensorboard import TensorBoard

    logger = build(config.logger, save_dir=run.folder)
    if isinstance(logger, TensorBoard):
        val_is_test = not config.protocol.val_fraction
        logger.describe(resolved(config), overrides, hyperparameters, val_is_test=val_is_test)
    return logger


def log_result(logger: "Logger | None", run: Run, result: Mapping[str, Any]) -> None:
    """Show a result and the run's figures where they are shown beside the run's own files."""
    from cifar_lab.train.callbacks.tensorboard import TensorBoard

    if isinstance(logger, TensorBoard):
        logger.log_result(result, run.figures)


def trainer_options(config: DictConfig, native: "hardware.Native", turn: Turn | None = None) -> dict[str, Any]:
    """Lightning's Trainer arguments; `precision` and `memory_format` are settled, and which GPU a turn is for.

    Of processes that train together each needs its own: they hold the strategy.

    Raises:
        ValueError: BatchNorm's statistics over several processes are asked for, and this is no GPU.
    """
    from cifar_lab.machine import hardware, ranks

    options = {**resolved(config.trainer), **_processes()}
    if options["sync_batchnorm"] and ranks.count() > 1 and native.device != "cuda":
        raise ValueError(UNSYNCED)
    del options["memory_format"]
    if native.device == "cuda" and turn is not None and turn.beside > 1 and options["devices"] == 1:
        options["devices"] = [(turn.number - 1) % hardware.device_count("gpu")]
    if native.device == "cpu" and ranks.count() == 1:
        options["devices"] = 1  # Lightning knows no other number of processors, and `auto` and [0] are that
    if options["deterministic"] == "auto":
        # On a CPU everything we use is deterministic as it is, and torch's switch would fill fresh memory.
        options["deterministic"] = native.device == "cuda"
    return {
        **options,
        # Nothing is logged within an epoch; a number above the epoch's batches would only draw a warning.
        "log_every_n_steps": 1,
        "precision": native.precision,
        "max_epochs": config.epochs,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }


def _processes() -> dict[str, Any]:
    """Lightning's arguments about processes: of those that train together, or none."""
    from cifar_lab.machine import ranks

    if ranks.count() == 1:
        from lightning.fabric.plugins.environments.lightning import LightningEnvironment

        # Else, within a job of Slurm, Lightning takes the job's tasks for the run's processes, waits for them, and at
        # the scheduler's signal queues the job again by itself, before the run is saved.
        return {"strategy": "auto", "num_nodes": 1, "plugins": [LightningEnvironment()]}
    from lightning.pytorch.plugins.environments import TorchElasticEnvironment  # type: ignore[attr-defined]
    from lightning.pytorch.strategies import DDPStrategy

    # They are there already, torchrun's or our own, and described as torchrun does; Lightning is to start none.
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    # Else torch gives gradients other places after a process's first step, and more than two are summed in an order
    # that follows their places: a run that goes on would have other bits.
    keeps_places = ranks.count() > 2
    strategy = DDPStrategy(cluster_environment=TorchElasticEnvironment(), find_unused_parameters=keeps_places)
    nodes = ranks.count() // here
    return {
        "strategy": strategy,
        "devices": here,
        "num_nodes": nodes,
        "use_distributed_sampler": False,
        "plugins": [],
    }


def batches_per_epoch(config: DictConfig, datamodule: "InMemoryDataModule") -> int:
    """Training batches of an epoch, `trainer.limit_train_batches` heeded."""
    batches, limit = datamodule.steps_per_epoch, config.trainer.limit_train_batches
    if limit is None:
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def total_steps(config: DictConfig, datamodule: "InMemoryDataModule") -> int:
    """Optimizer steps of the whole run."""
    return math.ceil(batches_per_epoch(config, datamodule) / config.trainer.accumulate_grad_batches) * config.epochs


def describe(
    config: DictConfig, classifier: "Classifier", datamodule: "InMemoryDataModule", native: "hardware.Native"
) -> dict[str, Any]:
    """What was trained, on what, from which source, in plain values."""
    from torch import nn

    from cifar_lab.machine import hardware, provenance, ranks

    trained = batches_per_epoch(config, datamodule) * config.batch_size
    layers = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in classifier.modules())
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
        "val_size": datamodule.size("val"),
        "test_size": int(classifier.test_confusion.compute().sum()),
        "memory_format": str(native.memory_format).removeprefix("torch."),
        "optimizer_implementation": classifier.optimizer_implementation,
        "peak_memory_bytes": max(ranks.gathered(hardware.peak_memory_bytes(native.device))),
        "world_size": ranks.count(),
        "batch_norm_per_process": layers and ranks.count() > 1 and not config.trainer.sync_batchnorm,
        "hardware": hardware.describe(native.device),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
    }
