"""Where a run's metrics go besides its own files: Lightning's loggers, with all else that a run has to show."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import Logger

from cifar_lab.config import build
from cifar_lab.train.attempt import TrainingTask
from cifar_lab.train.loggers.description import Description, result_metrics


@contextmanager
def opened(options: Any, task: TrainingTask) -> Iterator[list[Logger]]:
    """Open the loggers of the group's options, and close them at the end, as failed after an exception."""
    listed = [options] if "_target_" in options else list(options.values())  # a user's own may stand alone
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
    """Give loggers a run's result after its last optimizer step, and the PNG of its confusion matrix."""
    for logger in loggers:
        if own := getattr(logger, "log_result", None):
            own(result_metrics(result), step, confusion_matrix)
        else:
            logger.log_metrics(result_metrics(result), step)
            logger.save()


def _made(option: Any, task: TrainingTask) -> Logger | None:
    """Make the logger of an option with its description; None for an option without one, such as `logger=none`."""
    description = Description.of(task)
    takes_folder = "save_dir" in list(option)  # a key of which the value is missing is not `in` the option itself
    logger = build(option, **({"save_dir": task.attempt.run.folder} if takes_folder else {}))
    if describe := getattr(logger, "describe", None):
        describe(description)
    elif logger is not None:
        public = description.without_private()
        logger.log_hyperparams({**public.hyperparameters, "config": public.config})
    return logger
