"""A CNN's files, written once for all tests that read them."""

import pytest
import torch

from cifar_lab.export.kinds import Format
from cifar_lab.export.writing import Exported
from cifar_lab.trained import Trained
from tests.export.networks import exported, network


@pytest.fixture(scope="session")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, dict[Format, Exported]]:
    """The network, and its file of each format but ONNX: it takes the longest, and `test_command.py` reads one."""
    folder = tmp_path_factory.mktemp("cnn")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = network(folder)
        files = exported(trained, folder / "out", Format.SAFETENSORS, Format.TORCH_EXPORT)
        return trained, {one.kind: one for one in files}
