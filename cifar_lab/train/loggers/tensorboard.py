"""Logs a run to TensorBoard: one event file per attempt, with the hyperparameters by which a sweep is compared.

Imported only if TensorBoard is used.
"""

import copy
import struct
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from cifar_lab.runs.labels import LAST, protocol_name
from cifar_lab.train.loggers.description import CONFUSION_MATRIX, Description

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# TensorBoard sorts tags alphabetically and opens the first two groups. These curves are logged a second time in a group
# that comes first in Time Series.
_FIRST = {"train/acc": "accuracy/train", "val/acc": "accuracy/val"}
_DESCRIPTIONS = {
    "train/objective": "loss plus L1 penalty",
    "train/lr": "learning rate at the epoch's last step",
    **dict.fromkeys(("val/acc_chosen", "val/loss_chosen", "test/acc", "test/loss"), "with the chosen weights"),
    "test/acc_tta": "with the chosen weights and test-time augmentation",
    **dict.fromkeys(("test/acc_final", "test/loss_final"), "with the last epoch's weights, without selection"),
    "whole_run/best_epoch": "the chosen epoch, counted from 1",
    "whole_run/seconds": "wall time from loading the data to the last test",
    "whole_run/images_per_second": "training images per second of training steps, including data loading",
}


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, with one event file per attempt and every tab filled.

    Scalars are plotted over optimizer steps; nothing is written within an epoch. `describe` sets the contents of the
    Text and HParams tabs; `log_result` adds the result and the confusion matrix. HParams shows a run that is closed
    without a result as failed.

    Args:
        save_dir: The run's folder.
        name: Subfolder for the event file.
        version: Subfolder of that; empty for none.
        log_graph: Log the network's graph when training starts. A copy is traced, so training stays bitwise identical.
    """

    def __init__(
        self, save_dir: str | Path, name: str = "tensorboard", version: str = "", log_graph: bool = False
    ) -> None:
        super().__init__(save_dir, name, version, log_graph=log_graph, default_hp_metric=False)
        self._hyperparameters: Mapping[str, bool | float | str] = {}
        self._texts: dict[str, str] = {}
        self._descriptions = dict(_DESCRIPTIONS)

    def describe(self, description: Description) -> None:
        """Set the run's description, which is written when the file is opened."""
        self._hyperparameters = description.hyperparameters
        self._texts = {
            "command": description.command,
            "config": yaml.safe_dump(dict(description.config), sort_keys=False),
            **({"tags": " ".join(description.tags)} if description.tags else {}),
        }
        if description.val_is_test:
            chose = "" if protocol_name(description.config) == LAST else ", which also chose the epoch"
            for tag in ("accuracy/val", "val/acc", "val/loss", "val/acc_chosen", "val/loss_chosen"):
                also = f", {_DESCRIPTIONS[tag]}" if tag in _DESCRIPTIONS else ""
                self._descriptions[tag] = f"the test set{chose}{also}"

    @property
    @rank_zero_experiment
    def experiment(self) -> "SummaryWriter":
        """The writer of the event file; the first access opens the file and writes the description."""
        writer = self._experiment
        if writer is None:
            writer = super().experiment
            writer.add_custom_scalars(_layout())
            self._write(_session_start(self._hyperparameters))
            for tag, text in self._texts.items():
                block = "\n".join(f"    {line}" for line in text.splitlines())  # a Markdown code block
                self._write(text_pb(tag, block))
        return writer

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write scalars at an optimizer step, except Lightning's `epoch`."""
        values = {tag: value for tag, value in metrics.items() if tag != "epoch"}
        values |= {tag: metrics[name] for name, tag in _FIRST.items() if name in metrics}
        self._write(_scalars(values, self._descriptions), step or 0)
        for tag in values:
            self._descriptions.pop(tag, None)  # TensorBoard keeps the first description of a tag

    @rank_zero_only
    def log_graph(self, model: Any, input_array: object = None) -> None:
        """Log the graph of a Classifier's network if `log_graph` is set, by tracing a copy on the CPU."""
        if self._log_graph:
            network = copy.deepcopy(model.model).cpu()
            image = torch.zeros(1, 3, 32, 32, dtype=next(network.parameters()).dtype)
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # torch's deprecated tracer, which TensorBoard's graphs need
                self.experiment.add_graph(network, image)

    @rank_zero_only
    def log_result(self, metrics: Mapping[str, float], step: int, confusion_matrix: bytes) -> None:
        """Write a run's result and the PNG of its confusion matrix."""
        self.log_metrics(metrics, step)
        if confusion_matrix:
            width, height = struct.unpack(">II", confusion_matrix[16:24])  # a PNG's first chunk starts with its size
            image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=confusion_matrix)
            self._write(Summary(value=[Summary.Value(tag=CONFUSION_MATRIX, image=image)]), step)

    @rank_zero_only
    def save(self) -> None:
        """Flush the log to disk."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush the log to disk; the file stays open for the tests and the result."""
        if self._experiment is not None:
            self.save()

    @rank_zero_only
    def close(self, succeeded: bool) -> None:
        """Record whether the run succeeded and close its file, if it was opened."""
        if self._experiment is not None:
            self._write(_session_end(succeeded))
            self._experiment.close()

    def _write(self, summary: Any, step: int | None = None) -> None:
        self.experiment.file_writer.add_summary(summary, step)


def _scalars(values: Mapping[str, float], descriptions: Mapping[str, str]) -> Summary:
    # Written as tensors, like TensorFlow 2 does: TensorBoard's fast loader drops the description of a `simple_value`.
    points = [scalar_pb(tag, float(value), descriptions.get(tag)) for tag, value in values.items()]
    return Summary(value=[value for point in points for value in point.value])


def _session_start(hyperparameters: Mapping[str, bool | float | str]) -> Summary:
    """Return a row of the HParams tab.

    There is deliberately no summary of the whole experiment: TensorBoard would use the first one it finds for all runs,
    and without one it shows the columns of every run.
    """
    start = SessionStartInfo(start_time_secs=time.time())
    for name, value in hyperparameters.items():
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(start.hparams[name], kind, value)
    return _session(hparams_metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))


def _session_end(succeeded: bool) -> Summary:
    status = STATUS_SUCCESS if succeeded else STATUS_FAILURE
    end = SessionEndInfo(status=status, end_time_secs=time.time())
    return _session(hparams_metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))


def _layout() -> dict[str, dict[str, list[str | list[str]]]]:
    """Return the charts of the Custom Scalars tab: training and validation of each run, then a comparison of runs.

    TensorBoard merges charts of all runs by title, so the titles must fit every protocol.
    """

    def chart(*tags: str) -> list[str | list[str]]:
        return ["Multiline", [f"{tag}$" for tag in tags]]

    val = "val (under protocol=report and last: the test set)"
    return {
        "Training and validation": {
            f"loss: train, {val}": chart("train/loss", "val/loss"),
            f"accuracy: train, {val}": chart("train/acc", "val/acc"),
            "learning rate": chart("train/lr"),
        },
        "Runs compared": {
            f"accuracy: {val}": chart("val/acc"),
            f"loss: {val}": chart("val/loss"),
            "test accuracy: chosen weights": chart("test/acc"),
            "test accuracy: last epoch": chart("test/acc_final"),
        },
    }


def _session(tag: str, data: HParamsPluginData) -> Summary:
    metadata = hparams_metadata.create_summary_metadata(data)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=hparams_metadata.NULL_TENSOR)])
