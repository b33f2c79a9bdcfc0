"""Loggers that receive a run's metrics, description and result in addition to its own files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import Logger

from cifar_lab.config import build
from cifar_lab.train.attempt import TrainingTask
from cifar_lab.train.loggers.description import Description, result_metrics


@contextmanager
def opened(options: Any, task: TrainingTask) -> Iterator[list[Logger]]:
    """Create the loggers of the chosen options and close them at the end; an exception closes them as failed."""
    listed = [options] if "_target_" in options else list(options.values())  # a user's option may be a single logger
    made = [logger for option in listed if (logger := _made(option, task)) is not None]
    succeeded = False
    try:
        yield made
        succeeded = True
    finally:
        for logger in made:
            if close := getattr(logger, "close", None):
                close(succeeded)


def log_result(loggers: Sequence[Logger], result: Mapping[str, Any], step: int, confusion_matrix: bytes) -> None:
    """Log a run's result at its last optimizer step, and the PNG of its confusion matrix."""
    for logger in loggers:
        if own := getattr(logger, "log_result", None):
            own(result_metrics(result), step, confusion_matrix)
        else:
            logger.log_metrics(result_metrics(result), step)
            logger.save()


def _made(option: Any, task: TrainingTask) -> Logger | None:
    """Create the logger of an option and describe the run to it; None for an option without a logger (`none`)."""
    description = Description.of(task)
    takes_folder = "save_dir" in list(option)  # OmegaConf's `in` is False for a key with a missing value (`???`)
    logger = build(option, **({"save_dir": task.attempt.run.folder} if takes_folder else {}))
    if describe := getattr(logger, "describe", None):
        describe(description)
    elif logger is not None:
        public = description.without_private()
        logger.log_hyperparams({**public.hyperparameters, "config": public.config})
    return logger
