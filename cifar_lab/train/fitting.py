"""Training and testing of a run, from its configuration to its result."""

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from cifar_lab.config import build, class_names, resolved
from cifar_lab.data.datamodule import InMemoryDataModule
from cifar_lab.machine import hardware, provenance, ranks
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run, described, float32_digits, read_checkpoint, weights_name
from cifar_lab.runs.labels import LAST
from cifar_lab.terminal.printing import note
from cifar_lab.train.assembly import (
    describe,
    make_averaging,
    make_callbacks,
    make_classifier,
    make_trainer,
    trainer_options,
)
from cifar_lab.train.attempt import Attempt, TrainingTask, quoted
from cifar_lab.train.callbacks import SWA, AugmentedTest, CheckpointFiles, ProgressOfTest, Stopping, Throughput
from cifar_lab.train.classifier import Classifier
from cifar_lab.train.continuity import choose_native, compiled_as_recorded, in_safe_memory_format
from cifar_lab.train.loggers import log_result, opened
from cifar_lab.train.rehearsal import rehearse
from cifar_lab.train.starting import load_weights

# Warnings about how Lightning uses torch, which a user cannot change, and about intended behaviour.
_IGNORED_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)`",
    r"It is recommended to use `self\.log",  # logged values already cover all processes
    r"Found \d+ module\(s\) in eval mode",  # frozen BatchNorm
    "Checkpoint directory .* exists and is not empty",
)


def trained(task: TrainingTask) -> dict[str, Any]:
    """Train, test and draw a run that has been started; return the result, with the keys of `docs/run_directory.md`.

    All processes that train together call it; only rank 0 writes.
    """
    config, run, is_first = OmegaConf.create(dict(task.config)), task.attempt.run, ranks.rank() == 0
    # Lightning reads it from RANK or SLURM_PROCID, which the shell may define.
    rank_zero_only.rank = ranks.rank()  # type: ignore[attr-defined]
    if config.debug and config.debug.kind != "fast":
        from cifar_lab.train.debug.overfit import overfit
        from cifar_lab.train.debug.profile import profile

        return {"overfit": overfit, "profile": profile}[config.debug.kind](config, task.attempt)
    with opened(config.logger if is_first and not config.debug else {}, task) as loggers:
        measured = fit_and_test(config, task.attempt, loggers)
        result = {**measured, "options": dict(task.options), "overrides": list(task.overrides)}
        if is_first:
            run.finish(result)
            _show(run, result, loggers)
    return result


def _show(run: Run, result: dict[str, Any], loggers: Sequence[Logger]) -> None:
    """Draw a finished run and log its result; print a note if that fails."""
    from cifar_lab.train.summary import confusion_card, draw

    try:
        draw(run)
        if loggers:
            log_result(loggers, result, int(run.metrics()["step"].iloc[-1]), confusion_card(result))
    except Exception as error:
        reason = " ".join(described(error).split())
        note(
            f"some figures or logs are missing: {reason}; the run has finished, "
            f"and resume={quoted(run.folder)} draws the rest"
        )


def fit_and_test(config: DictConfig, attempt: Attempt, loggers: Sequence[Logger] = ()) -> dict[str, Any]:
    """Train, then test the weights of the selected and the last epoch, and save the selected ones.

    Metrics go to `loggers` in addition to the run's own files.

    Returns:
        The result as plain values, with the keys of `docs/run_directory.md`.
    """
    throughput = Throughput()
    sources = provenance.sources(resolved(config))  # before training, because files may be edited while it runs
    with prepared(config, attempt) as parts:
        return {**_fit_and_test(config, attempt, loggers, throughput, parts), **parts.compilation, "sources": sources}


class Prepared(NamedTuple):
    """The parts needed for training."""

    classifier: Classifier
    datamodule: InMemoryDataModule
    native: hardware.Native
    compilation: dict[str, bool]  # the settings `compile` and `cuda_graphs` in use


@contextmanager
def prepared(config: DictConfig, attempt: Attempt) -> Iterator[Prepared]:
    """Build the parts of a run, try a step with them, and leave the random state that training starts from."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # the result contains the devices
    for message in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    native = choose_native(config, attempt.run)
    if native.device == "cuda":  # a CPU's peak cannot be reset
        torch.cuda.reset_peak_memory_stats()
    hardware.keep_freed_memory(native.device)
    datamodule = build(config.data)
    L.seed_everything(config.seed, verbose=False)
    # Part of torch's deterministic mode. Nothing here reads uninitialised memory, and on a GPU filling it costs a
    # kernel for each new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    classifier = make_classifier(config, datamodule, native)
    if attempt.checkpoint is None:
        load_weights(classifier.model, config)
        rehearse(config, classifier, datamodule, native.device)
    native = in_safe_memory_format(native, classifier.model, attempt.run)
    with compiled_as_recorded(config, attempt, classifier, native) as compilation:
        yield Prepared(classifier, datamodule, native, compilation)


def _fit_and_test(
    config: DictConfig,
    attempt: Attempt,
    loggers: Sequence[Logger],
    throughput: Throughput,
    parts: Prepared,
) -> dict[str, Any]:
    run, (classifier, datamodule, native, _) = attempt.run, parts
    averaging = make_averaging(config)
    callbacks = make_callbacks(config, attempt, throughput, averaging)
    options = trainer_options(config, native, attempt.turn)
    options["plugins"].append(CheckpointFiles(run))
    try:
        trainer = make_trainer(**options, callbacks=callbacks, logger=list(loggers) or False)
        trainer.fit(classifier, datamodule, ckpt_path=attempt.checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise UsageError(" ".join(str(error).split())) from error
    if averaging is not None and not throughput.has_trained:  # without an epoch left, Lightning skips on_train_end
        averaging.on_train_end(trainer, classifier)
    if not ranks.first_of(run.metrics_file.exists()):
        raise RuntimeError("no epoch was completed; raise trainer.max_time or lower data.train_size")
    # SWA's result is an average over epochs, so no single epoch is selected.
    has_choice = config.protocol.name != LAST and not isinstance(averaging, SWA)
    best_epoch = ranks.first_of(run.best_epoch()) if has_choice else None
    options = trainer_options(config, native, attempt.turn)
    during: list[L.Callback] = [Stopping(attempt.interruption)]
    if config.trainer.enable_progress_bar and ranks.rank() == 0:
        during.append(ProgressOfTest(attempt.turn))
    if config.tta != "none":
        during.append(AugmentedTest(config.tta, config.tta_below, len(datamodule.classes)))
    tester = make_trainer(**options, callbacks=during, logger=False, enable_checkpointing=False)
    ranks.share_buffers(classifier.model)  # buffers differ between processes after an epoch without validation
    measured = test(tester, classifier, datamodule, run, best_epoch)
    for active in trainer.loggers:
        active.log_metrics({name: value for name, value in measured.items() if "test/" in name}, trainer.global_step)
        active.finalize("success")
    run.save_weights(classifier.model, weights_name(class_names(config), measured["test/acc"]))
    speed = throughput.images_per_second
    probe_seconds = run.probes()["seconds"] if run.probes_file.exists() else None
    return {
        **measured,
        "best_epoch": best_epoch,
        "epochs": min(trainer.current_epoch, config.epochs),
        "seconds": round(throughput.seconds, 3),
        "images_per_second": None if math.isnan(speed) else round(speed, 1),
        "probes": None if probe_seconds is None else len(probe_seconds),
        "probe_seconds": None if probe_seconds is None else round(float(probe_seconds.sum()), 3),
        "precision": str(trainer.precision),
        **describe(config, classifier, datamodule, native),
        "mean": list(datamodule.mean),
        "std": list(datamodule.std),
        "classes": list(datamodule.classes),
        "confusion_matrix": classifier.test_confusion.compute().tolist(),
    }


def test(
    tester: L.Trainer, classifier: Classifier, datamodule: InMemoryDataModule, run: Run, best_epoch: int | None
) -> dict[str, float]:
    """Test the weights of the last epoch, then those of `best_epoch` (counted from 1), which stay loaded.

    Returns:
        `test/*` and `val/*` of the selected weights (the last epoch's if `best_epoch` is None), and `test/*_final` of
        the last epoch's weights.
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
