"""Which checkpoints a run keeps."""

from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from cifar_lab.runs import Run


def best_and_last(run: Run) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    """The checkpoint of the epoch with the best `val/acc`, the first of equals, and that of the last epoch."""
    options: dict[str, Any] = {
        "dirpath": run.checkpoints,
        "auto_insert_metric_name": False,
        "enable_version_counter": False,
    }
    best = ModelCheckpoint(filename=run.best_checkpoint.stem, monitor="val/acc", mode="max", **options)
    last = ModelCheckpoint(filename=run.last_checkpoint.stem, save_on_train_epoch_end=True, **options)
    return best, last
