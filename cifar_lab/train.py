"""Train one composition, or each of a sweep: `python -m cifar_lab.train model=vgg_a bn=true`.

torch and Lightning are imported where training starts, so that help and mistakes do not wait for them.
"""

import logging
import math
import time
import warnings
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cifar_lab.config import (
    build,
    build_scheduler,
    class_names,
    fingerprint,
    recording_outcome,
    resolved,
    run_application,
)
from cifar_lab.runs import Run, float32_digits, weights_name

if TYPE_CHECKING:
    from cifar_lab import hardware
    from cifar_lab.classifier import Classifier
    from cifar_lab.data import InMemoryDataModule


def main() -> None:
    """The command line; exits with 0, 1 (a run failed), 2 (it cannot be run as asked) or 130 (interrupted)."""
    run_application(train)


def train(config: DictConfig) -> float:
    """Train a composition and leave its run directory; a finished run of a sweep is not trained again.

    Args:
        config: The composed configuration; Hydra has made the run's folder.

    Returns:
        The validation accuracy of the chosen epoch, from 0 to 1; NaN where no epoch was validated.

    Raises:
        RunFailedError: The run ended without a result; its folder says why.
    """
    hydra = HydraConfig.get()
    run = Run(hydra.runtime.output_dir)
    if hydra.mode != RunMode.MULTIRUN or run.status().get("state") != "finished":
        with recording_outcome(run):
            run.start(resolved(config))
            options = {group: choice for group, choice in hydra.runtime.choices.items() if group in config}
            overrides = [line for line in hydra.overrides.task if not line.startswith("name=")]
            run.finish({**fit_and_test(config, run), "options": options, "overrides": overrides})

    from cifar_lab.analysis.run_report import draw, summary

    draw(run)
    print(summary(run), flush=True)
    accuracy = run.result()["val/acc"]
    return math.nan if accuracy is None else float(accuracy)


def fit_and_test(config: DictConfig, run: Run) -> dict[str, Any]:
    """Train, then test the chosen and the final epoch's weights, and keep the chosen ones.

    Args:
        config: The composed configuration.
        run: Where to write.

    Returns:
        The result in plain values, by the names of `docs/run_directory.md`.
    """
    import lightning as L

    from cifar_lab import hardware
    from cifar_lab.callbacks import Progress, Recorder, Throughput, best_and_last
    from cifar_lab.classifier import Classifier

    # Which devices there are stands in the result; how Lightning uses torch is nothing that a user could mend.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
    started = time.perf_counter()
    native = hardware.choose(config.trainer.accelerator, config.trainer.precision, config.trainer.memory_format)
    datamodule = build(config.data)
    L.seed_everything(config.seed, verbose=False)
    classifier = Classifier(
        build(config.model),
        build(config.loss),
        build(config.optimizer),
        build_scheduler(config.scheduler, total_steps(config, datamodule)),
        l1=config.l1,
        grad_clip=config.grad_clip,
        memory_format=native.memory_format,
    )
    throughput = Throughput()
    callbacks = [throughput, Recorder(run, throughput), *best_and_last(run)]
    if config.trainer.enable_progress_bar:
        callbacks.append(Progress(throughput))
    logger = build(config.logger, save_dir=run.folder) or False
    trainer = L.Trainer(**trainer_options(config, native), callbacks=callbacks, logger=logger)
    trainer.fit(classifier, datamodule)

    tester = L.Trainer(**trainer_options(config, native), logger=False, enable_checkpointing=False)
    (final,) = tester.test(classifier, datamodule, verbose=False)
    best_epoch = load_best(classifier, run)
    chosen = tester.test(classifier, datamodule, verbose=False)[0] if best_epoch else final
    tests = {**chosen, "test/acc_final": final["test/acc"], "test/loss_final": final["test/loss"]}
    tests = {name: float32_digits(value) for name, value in tests.items()}
    for active in trainer.loggers:
        active.log_metrics(tests, step=trainer.global_step)
        active.finalize("success")
    run.save_weights(classifier.model, weights_name(class_names(config), chosen["test/acc"]))
    speed = throughput.images_per_second
    return {
        **tests,
        **run.validation(best_epoch),
        "best_epoch": best_epoch,
        "epochs": trainer.current_epoch,
        "seconds": round(time.perf_counter() - started, 3),
        "images_per_second": None if math.isnan(speed) else round(speed, 1),
        **describe(config, classifier, datamodule, native),
        "classes": list(datamodule.classes),
        "confusion_matrix": classifier.test_confusion.compute().tolist(),
    }


def trainer_options(config: DictConfig, native: "hardware.Native") -> dict[str, Any]:
    """Lightning's Trainer arguments; `precision` and `memory_format` are settled."""
    options = resolved(config.trainer)
    del options["memory_format"]
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


def total_steps(config: DictConfig, datamodule: "InMemoryDataModule") -> int:
    """Optimizer steps of the whole run."""
    batches, limit = datamodule.steps_per_epoch, config.trainer.limit_train_batches
    if limit is not None:
        batches = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
    return math.ceil(batches / config.trainer.accumulate_grad_batches) * config.epochs


def load_best(classifier: "Classifier", run: Run) -> int | None:
    """Load the chosen epoch's weights; returns its number, from 1, or None where no epoch was validated."""
    import torch

    if not run.best_checkpoint.exists():
        return None
    checkpoint = torch.load(run.best_checkpoint, map_location="cpu", weights_only=True)
    classifier.load_state_dict(checkpoint["state_dict"])
    return int(checkpoint["epoch"]) + 1


def describe(
    config: DictConfig, classifier: "Classifier", datamodule: "InMemoryDataModule", native: "hardware.Native"
) -> dict[str, Any]:
    """What was trained, on what, from which source, in plain values."""
    from cifar_lab import hardware, provenance

    return {
        "name": config.name,
        "seed": config.seed,
        "protocol": config.protocol.name,
        "fingerprint": fingerprint(resolved(config)),
        "num_parameters": sum(weight.numel() for weight in classifier.parameters()),
        "flops_per_image": classifier.flops_per_image(),
        "train_size": datamodule.size("train"),
        "train_available": datamodule.train_available,
        "val_size": datamodule.size("val"),
        "test_size": datamodule.size("test"),
        "precision": native.precision,
        "memory_format": str(native.memory_format).removeprefix("torch."),
        "optimizer_implementation": classifier.optimizer_implementation,
        "peak_memory_bytes": hardware.peak_memory_bytes(native.device),
        "hardware": hardware.describe(native.device),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
    }


if __name__ == "__main__":
    main()
