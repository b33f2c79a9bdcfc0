"""Weights saved by other programs load as the network that they belong to."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from cifar_lab.models import CNN, ResNet
from cifar_lab.trained import Overrides, load

SAID = Overrides(activation="relu", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def model() -> CNN:
    model = CNN((4, 4, 4), activation=nn.ReLU)
    model.train()(torch.rand(8, 3, 32, 32))  # changes BatchNorm's initial statistics
    return model.eval()


@pytest.fixture
def wrapped(model: CNN, tmp_path: Path) -> Any:
    """The network in DistributedDataParallel, in a process group of one."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield DistributedDataParallel(model)
    torch.distributed.destroy_process_group()


class Module(L.LightningModule):
    """Someone else's module, with weights in addition to the network's."""

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.save_hyperparameters({"lr": 0.1})
        setattr(self, name, network)
        self.auxiliary = nn.Linear(2, 2)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lightning(name: str, network: nn.Module, path: Path) -> None:
    silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = L.Trainer(accelerator="cpu", default_root_dir=path.parent, **silent)
    trainer.strategy.connect(Module(name, network))
    trainer.save_checkpoint(path)


NESTED: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "kuangliu": lambda state: {"net": {f"module.{name}": each for name, each in state.items()}, "acc": 90.0},
    "torchvision": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3},
    "tutorial": lambda state: {"epoch": 3, "model_state_dict": state, "loss": torch.tensor(1.0)},
    "timm": lambda state: {"arch": "cnn", "state_dict": state, "version": 2},
    "of its own": lambda state: {"student": {"weights": state}, "epoch": 3},
    "two": lambda state: {"state_dict": {"model": state}},
}


def assert_same(path: Path, model: CNN, overrides: Overrides = SAID) -> list[str]:
    trained = load(path, overrides)
    for name, value in trained.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])
    assert all(value.dtype == torch.float32 for value in trained.model.parameters())
    return list(trained.assumed)


def test_files_of_ddp_and_torch_compile_load(wrapped: nn.Module, model: CNN, tmp_path: Path) -> None:
    torch.save(wrapped.state_dict(), tmp_path / "ddp.pth")
    torch.save(torch.compile(model).state_dict(), tmp_path / "compiled.pth")
    torch.save(torch.compile(wrapped).state_dict(), tmp_path / "both.pth")
    for name in ("ddp", "compiled", "both"):
        assert assert_same(tmp_path / f"{name}.pth", model) == []
    assert any(name.startswith("_orig_mod.module.") for name in torch.load(tmp_path / "both.pth"))


@pytest.mark.parametrize("name", ["model", "network", "net"])
def test_a_lightning_checkpoint_with_additional_weights_loads(model: CNN, tmp_path: Path, name: str) -> None:
    lightning(name, torch.compile(model) if name == "net" else model, tmp_path / "x.ckpt")  # type: ignore[arg-type]
    assert assert_same(tmp_path / "x.ckpt", model) == []


@pytest.mark.parametrize("nest", NESTED.values(), ids=NESTED)
def test_a_checkpoint_with_additional_content_loads(model: CNN, tmp_path: Path, nest: Any) -> None:
    torch.save(nest(model.state_dict()), tmp_path / "x.pth")
    assert assert_same(tmp_path / "x.pth", model) == []


def test_the_average_is_used_and_named_if_a_checkpoint_has_one(model: CNN, tmp_path: Path) -> None:
    average, raw = AveragedModel(model).state_dict(), CNN((4, 4, 4)).state_dict()
    torch.save({"model": raw, "model_ema": average}, tmp_path / "x.pth")
    (line,) = assert_same(tmp_path / "x.pth", model)
    assert "model_ema" in line and line.endswith("not model")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted(model: CNN, tmp_path: Path, dtype: torch.dtype) -> None:
    half = {name: value.to(dtype) if value.is_floating_point() else value for name, value in model.state_dict().items()}
    model.load_state_dict(half)
    torch.save(half, tmp_path / "x.pth")
    save_file({f"module.{name}": value for name, value in half.items()}, tmp_path / "x.safetensors")
    for name in ("x.pth", "x.safetensors"):
        assert_same(tmp_path / name, model)


def test_a_file_of_torch_before_1_6_loads(model: CNN, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert_same(tmp_path / "x.pth", model)
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"x\.pth is damaged"):
        load(tmp_path / "x.pth", SAID)


def test_a_residual_network_in_a_checkpoint_is_recognised(tmp_path: Path) -> None:
    model = ResNet((1, 1), (4, 8))
    torch.save({"net": nn.DataParallel(model).state_dict()}, tmp_path / "x.pth")
    assert load(tmp_path / "x.pth", SAID).making["widths"] == [4, 8]


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (lambda model: model, r"x\.pth .*cifar_lab\.models\.cnn\.CNN.*state_dict\(\)"),
        (
            lambda model: {"state_dict": model.state_dict(), "args": argparse.Namespace()},
            r"x\.pth .*argparse\.Namespace",
        ),
        (lambda model: {"a": model.state_dict(), "b": model.state_dict()}, r"x\.pth .*'a', 'b'$"),
        (lambda model: {"state_dict": {}}, r"x\.pth .*'state_dict'$"),
        (lambda model: {}, r"x\.pth .*nothing$"),
    ],
    ids=["a module", "arguments", "two networks", "empty", "nothing"],
)
def test_a_file_without_weights_gives_a_one_line_error_with_a_remedy(
    model: CNN, tmp_path: Path, content: Any, facts: str
) -> None:
    torch.save(content(model), tmp_path / "x.pth")
    with pytest.raises(ValueError, match=facts) as error:
        load(tmp_path / "x.pth", SAID)
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)
