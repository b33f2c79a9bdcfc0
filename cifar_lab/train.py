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
    hyperparameters,
    recording_outcome,
    resolved,
    run_application,
)
from cifar_lab.runs import Run, float32_digits, weights_name

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.loggers import Logger

    from cifar_lab import hardware
    from cifar_lab.callbacks import Throughput
    from cifar_lab.classifier import Classifier
    from cifar_lab.data.datamodule import InMemoryDataModule


def main() -> None:
    """The command line; exits with 0, 1 (a run failed), 2 (it cannot be run as asked) or 130 (interrupted)."""
    run_application(train)


def train(config: DictConfig) -> float:
    """Train a composition and leave its run directory; a finished run of a sweep is not trained again.

    Args:
        config: The composed configuration; Hydra has made the run's folder.

    Returns:
        The validation accuracy of the chosen weights, from 0 to 1.

    Raises:
        RunFailedError: The run ended without a result; its folder says why.
    """
    from cifar_lab.analysis.run_report import draw, summary

    hydra = HydraConfig.get()
    run = Run(hydra.runtime.output_dir)
    in_sweep = hydra.mode == RunMode.MULTIRUN
    if not in_sweep or run.status().get("state") != "finished":
        with recording_outcome(run, in_sweep):
            run.start(resolved(config), list(hydra.overrides.task))
            from cifar_lab.callbacks.tensorboard import TensorBoard

            options = {group: choice for group, choice in hydra.runtime.choices.items() if group in config}
            overrides = [line for line in hydra.overrides.task if not line.startswith("name=")]
            logger = build(config.logger, save_dir=run.folder)
            if isinstance(logger, TensorBoard):
                common = hydra.job.config.override_dirname.exclude_keys if in_sweep else None
                columns = hyperparameters(resolved(config), hydra.runtime.choices, hydra.overrides.task, common)
                val_is_test = not config.protocol.val_fraction
                logger.describe(resolved(config), overrides, columns, val_is_test=val_is_test)
            result = {**fit_and_test(config, run, logger), "options": options, "overrides": overrides}
            draw(run, result)
            if isinstance(logger, TensorBoard):
                logger.log_result(result, run.figures)
            run.finish(result)
    result = run.result()
    print(summary(run.folder, result), flush=True)
    return float(result["val/acc"])


def fit_and_test(config: DictConfig, run: Run, logger: "Logger | None" = None) -> dict[str, Any]:
    """Train, then test the chosen and the final epoch's weights, and keep the chosen ones.

    Args:
        config: The composed configuration.
        run: Where to write.
        logger: Lightning's, for metrics beside the run's own files.

    Returns:
        The result in plain values, by the names of `docs/run_directory.md`.
    """
    import lightning as L

    from cifar_lab import hardware
    from cifar_lab.callbacks import SWA, Throughput

    # Which devices there are stands in the result; how Lightning uses torch is nothing that a user could mend.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`")
    started = time.perf_counter()
    native = hardware.choose(config.trainer.accelerator, config.trainer.precision, config.trainer.memory_format)
    hardware.reset_peak_memory(native.device)
    datamodule = build(config.data)
    L.seed_everything(config.seed, verbose=False)
    classifier = make_classifier(config, datamodule, native)
    throughput, averaging = Throughput(), build(config.averaging)
    callbacks = make_callbacks(config, run, throughput, averaging)
    trainer = L.Trainer(**trainer_options(config, native), callbacks=callbacks, logger=logger or False)
    trainer.fit(classifier, datamodule)
    if not run.metrics_file.exists():
        raise RuntimeError("no epoch was trained to its end; give trainer.max_time more, or data.train_size less")
    # An average over epochs is no epoch's, and is itself what was chosen.
    best_epoch = None if isinstance(averaging, SWA) else find_best(run)
    tester = L.Trainer(**trainer_options(config, native), logger=False, enable_checkpointing=False)
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
        "seconds": round(time.perf_counter() - started, 3),
        "images_per_second": None if math.isnan(speed) else round(speed, 1),
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
    import torch

    (final,) = tester.test(classifier, datamodule, verbose=False)
    if best_epoch is None:
        chosen, validation = final, tester.validate(classifier, datamodule, verbose=False)[0]
    else:
        checkpoint = torch.load(run.best_checkpoint, map_location="cpu", weights_only=True)
        assert checkpoint["epoch"] + 1 == best_epoch
        classifier.load_state_dict(checkpoint["state_dict"])
        chosen, validation = tester.test(classifier, datamodule, verbose=False)[0], run.validation(best_epoch)
    measured = {**chosen, **{f"{name}_final": value for name, value in final.items()}, **validation}
    return {name: float32_digits(value) for name, value in measured.items()}


def find_best(run: Run) -> int | None:
    """The chosen epoch, from 1; None where no epoch was validated."""
    validated = run.metrics().dropna(subset=["val/acc"])
    return None if validated.empty else int(validated["epoch"].iloc[validated["val/acc"].argmax()])


def make_classifier(config: DictConfig, datamodule: "InMemoryDataModule", native: "hardware.Native") -> "Classifier":
    """The module that the configuration describes; its weights come from the global random state."""
    from cifar_lab.classifier import Classifier

    return Classifier(
        build(config.model),
        build(config.loss),
        build(config.optimizer),
        build_scheduler(config.scheduler, total_steps(config, datamodule)),
        l1=config.l1,
        grad_clip=config.grad_clip,
        memory_format=native.memory_format,
    )


def make_callbacks(config: DictConfig, run: Run, throughput: "Throughput", averaging: Any) -> list[Any]:
    """What happens beside training: our own, then the configuration's."""
    from cifar_lab.callbacks import Progress, Recorder, best_and_last

    callbacks = [throughput, Recorder(run, throughput), *best_and_last(run)]
    callbacks += [build(option) for option in config.callbacks.values()]
    if averaging is not None:
        callbacks.append(averaging)
    if config.trainer.enable_progress_bar:
        val_name = "val acc" if config.protocol.val_fraction else "test acc"
        callbacks.append(Progress(throughput, val_name=val_name))
    return callbacks


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
    from cifar_lab import hardware, provenance

    trained = batches_per_epoch(config, datamodule) * config.batch_size
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
        "test_size": int(classifier.test_confusion.confmat.sum()),
        "memory_format": str(native.memory_format).removeprefix("torch."),
        "optimizer_implementation": classifier.optimizer_implementation,
        "peak_memory_bytes": hardware.peak_memory_bytes(native.device),
        "hardware": hardware.describe(native.device),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
    }


if __name__ == "__main__":
    main()
