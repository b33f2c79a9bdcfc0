"""A run's training and its tests, from composed parts to a result."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import build, class_names
from cifar_lab.runs import Run, float32_digits, read_checkpoint, weights_name
from cifar_lab.train.assembly import (
    describe,
    log_result,
    make_callbacks,
    make_classifier,
    make_logger,
    probe_cost,
    trainer_options,
)
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.continuity import choose_native, compiled_as_recorded, in_safe_memory_format

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.loggers import Logger

    from cifar_lab.data.datamodule import InMemoryDataModule
    from cifar_lab.machine import hardware
    from cifar_lab.train.callbacks import Throughput
    from cifar_lab.train.classifier import Classifier


@dataclass(frozen=True)
class Work:
    """All that a process needs to train a run.

    Attributes:
        config: The resolved configuration, plain values.
        attempt: Where to write, and what to go on from.
        options: The chosen option of each group.
        overrides: What the command line said.
        hyperparameters: What tells the run from others.
        threads: Of each process.
    """

    config: Mapping[str, Any]
    attempt: Attempt
    options: Mapping[str, str | None]
    overrides: Sequence[str]
    hyperparameters: Mapping[str, bool | float | str]
    threads: int


def trained(work: Work) -> dict[str, Any]:
    """Train a run that has been started, and draw its figures: the result, by the names of `docs/run_directory.md`.

    Processes that train together all call it; the first one writes.
    """
    from cifar_lab.machine import ranks

    config, run, is_first = OmegaConf.create(dict(work.config)), work.attempt.run, ranks.rank() == 0
    logger = make_logger(config, run, work.overrides, work.hyperparameters) if is_first else None
    measured = fit_and_test(config, work.attempt, logger)
    result = {**measured, "options": dict(work.options), "overrides": list(work.overrides)}
    if is_first:
        from cifar_lab.train.summary import draw

        draw(run, result)
        log_result(logger, run, result)
    return result


def fit_and_test(config: DictConfig, attempt: Attempt, logger: "Logger | None" = None) -> dict[str, Any]:
    """Train, then test the chosen and the final epoch's weights, and keep the chosen ones.

    Args:
        config: The composed configuration.
        attempt: Where to write, and what to go on from.
        logger: Lightning's, for metrics beside the run's own files.

    Returns:
        The result in plain values, by the names of `docs/run_directory.md`.
    """
    import lightning as L
    import torch

    from cifar_lab.machine import hardware
    from cifar_lab.train.callbacks import Throughput

    # Which devices there are stands in the result; how Lightning uses torch is nothing that a user could mend.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
    # Processes that train together are started by the command or by torchrun, never by srun.
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    # What is logged is of all processes already.
    warnings.filterwarnings("ignore", message=r"It is recommended to use `self\.log")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    throughput = Throughput()
    native = choose_native(config, attempt.run)
    hardware.reset_peak_memory(native.device)
    hardware.keep_freed_memory(native.device)
    datamodule = build(config.data)
    L.seed_everything(config.seed, verbose=False)
    # Part of torch's deterministic algorithms; nothing here reads what it has not written, and on a GPU it is a kernel
    # for each tensor that is made.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    classifier = make_classifier(config, datamodule, native)
    native = in_safe_memory_format(native, classifier.model, attempt.run)
    with compiled_as_recorded(config, attempt, classifier, native) as compilation:
        result = _fit_and_test(config, attempt, logger, throughput, classifier, datamodule, native)
    return {**result, **compilation}


def _fit_and_test(
    config: DictConfig,
    attempt: Attempt,
    logger: "Logger | None",
    throughput: "Throughput",
    classifier: "Classifier",
    datamodule: "InMemoryDataModule",
    native: "hardware.Native",
) -> dict[str, Any]:
    import lightning as L

    from cifar_lab.machine import ranks
    from cifar_lab.train.callbacks import SWA, CheckpointFiles, Stopping

    run = attempt.run
    averaging = build(config.averaging)
    callbacks = make_callbacks(config, attempt, throughput, averaging)
    options = trainer_options(config, native, attempt.turn)
    options["plugins"].append(CheckpointFiles(run))
    trainer = L.Trainer(**options, callbacks=callbacks, logger=logger or False)
    trainer.fit(classifier, datamodule, ckpt_path=attempt.checkpoint, weights_only=True)
    if averaging is not None and not throughput.has_trained:  # all epochs were there, and Lightning ends nothing then
        averaging.on_train_end(trainer, classifier)
    if not ranks.first_of(run.metrics_file.exists()):
        raise RuntimeError("no epoch was trained to its end; give trainer.max_time more, or data.train_size less")
    # An average over epochs is no epoch's, and is itself what was chosen.
    best_epoch = None if isinstance(averaging, SWA) else ranks.first_of(run.best_epoch())
    stopping = Stopping(attempt.interruption)
    options = trainer_options(config, native, attempt.turn)
    tester = L.Trainer(**options, callbacks=[stopping], logger=False, enable_checkpointing=False)
    ranks.share_buffers(classifier.model)  # an epoch without validation has left each process its own
    measured = test(tester, classifier, datamodule, run, best_epoch)
    for active in trainer.loggers:
        active.log_metrics({name: value for name, value in measured.items() if "test/" in name}, trainer.global_step)
        active.finalize("success")
    run.save_weights(classifier.model, weights_name(class_names(config), measured["test/acc"]))
    speed = throughput.images_per_second
    return {
        **measured,
        "best_epoch": best_epoch,
        "epochs": trainer.current_epoch,
        "seconds": round(throughput.seconds, 3),
        "images_per_second": None if math.isnan(speed) else round(speed, 1),
        **probe_cost(run),
        "precision": str(trainer.precision),
        **describe(config, classifier, datamodule, native),
        "classes": list(datamodule.classes),
        "confusion_matrix": classifier.test_confusion.compute().tolist(),
    }


def test(
    tester: "L.Trainer", classifier: "Classifier", datamodule: "InMemoryDataModule", run: Run, best_epoch: int | None
) -> dict[str, float]:
    """Measure the weights at hand, those of the last epoch, then the chosen epoch's, which stay loaded.

    Args:
        tester: Runs the test.
        classifier: As training left it.
        datamodule: Its images.
        run: Holds the chosen epoch's weights and validation.
        best_epoch: The chosen epoch, from 1; None chooses the weights at hand.

    Returns:
        `test/*` and `val/*` of the chosen weights, `test/*_final` of those at hand.
    """
    (final,) = tester.test(classifier, datamodule, verbose=False)
    if best_epoch is None:
        chosen, validation = final, tester.validate(classifier, datamodule, verbose=False)[0]
    else:
        checkpoint = read_checkpoint(run.best_checkpoint)
        assert checkpoint["epoch"] + 1 == best_epoch
        classifier.load_state_dict(checkpoint["state_dict"])
        chosen, validation = tester.test(classifier, datamodule, verbose=False)[0], run.validation(best_epoch)
    measured = {**chosen, **{f"{name}_final": value for name, value in final.items()}, **validation}
    return {name: float32_digits(value) for name, value in measured.items()}
