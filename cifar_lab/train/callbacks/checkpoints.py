"""Which checkpoint a run keeps beside the last one."""

import os
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from cifar_lab.runs import Run


def best(run: Run) -> ModelCheckpoint:
    """The checkpoint of the epoch with the best `val/acc`, the first of equals."""
    return _Best(
        dirpath=run.checkpoints,
        filename=run.best_checkpoint.stem,
        monitor="val/acc",
        mode="max",
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


class _Best(ModelCheckpoint):
    """Remembers the best accuracy though the run's folder has been moved, which Lightning's own forgets then."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        here = {name: self._here(state_dict[name]) for name in paths}
        scores = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **here, "best_k_models": scores, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        return os.path.join(str(self.dirpath), os.path.basename(path)) if path else path
