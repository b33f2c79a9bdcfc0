"""TensorBoard's messages, from plain values; imported only if TensorBoard is used."""

import struct
import time
from collections.abc import Mapping

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb

Layout = dict[str, dict[str, list[str | list[str]]]]


def scalars(values: Mapping[str, float], descriptions: Mapping[str, str]) -> Summary:
    """Numbers by tag, with their descriptions."""
    # Tensors, as TensorFlow 2 writes them: TensorBoard's fast loader drops the description of a `simple_value`.
    points = [scalar_pb(tag, float(value), descriptions.get(tag)) for tag, value in values.items()]
    return Summary(value=[value for point in points for value in point.value])


def png(tag: str, encoded: bytes) -> Summary:
    """An image from the bytes of its PNG file."""
    width, height = struct.unpack(">II", encoded[16:24])  # the first chunk of every PNG begins with its size
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=encoded)
    return Summary(value=[Summary.Value(tag=tag, image=image)])


def code(tag: str, text: str) -> Summary:
    """A text with its lines and spaces, as a block of Markdown code."""
    return text_pb(tag, "\n".join(f"    {line}" for line in text.splitlines()))


def session_start(hyperparameters: Mapping[str, bool | float | str]) -> Summary:
    """A row of the HParams tab.

    A summary of the whole experiment is left out on purpose: TensorBoard takes the first that it finds for all runs,
    and without one it shows the columns of every run.
    """
    start = SessionStartInfo(start_time_secs=time.time())
    for name, value in hyperparameters.items():
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(start.hparams[name], kind, value)
    return _session(hparams_metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))


def session_end(succeeded: bool) -> Summary:
    """The end of a row of the HParams tab."""
    status = STATUS_SUCCESS if succeeded else STATUS_FAILURE
    end = SessionEndInfo(status=status, end_time_secs=time.time())
    return _session(hparams_metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))


def layout() -> Layout:
    """The charts of the Custom Scalars tab: each run's training and validation, then the runs compared.

    TensorBoard merges the charts of all runs by their titles, so the titles hold for all protocols.
    """

    def chart(*tags: str) -> list[str | list[str]]:
        return ["Multiline", [f"{tag}$" for tag in tags]]

    val = "val (under protocol=report: the test set)"
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
