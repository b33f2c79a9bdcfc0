"""A CNN's files, written once for all tests that read them."""

import pytest
import torch

from cifar_lab.export.kinds import Format
from cifar_lab.export.writing import Exported
from cifar_lab.trained import Trained
from tests.export.networks import exported, network

# A file of ONNX, which takes the longest, is one of `tests/export/test_command.py`, and of slow tests.
WITHOUT_ONNX = tuple(kind for kind in Format if kind is not Format.ONNX)


@pytest.fixture(scope="session")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, dict[Format, Exported]]:
    """The network, and its file of each format but ONNX."""
    folder = tmp_path_factory.mktemp("cnn")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = network(folder)
        return trained, {one.kind: one for one in exported(trained, folder / "out", *WITHOUT_ONNX)}
