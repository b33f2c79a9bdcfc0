"""Which checkpoint a run keeps beside the last one."""

from lightning.pytorch.callbacks import ModelCheckpoint

from cifar_lab.runs import Run


def best(run: Run) -> ModelCheckpoint:
    """The checkpoint of the epoch with the best `val/acc`, the first of equals."""
    return ModelCheckpoint(
        dirpath=run.checkpoints,
        filename=run.best_checkpoint.stem,
        monitor="val/acc",
        mode="max",
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )
