"""A safetensors file describes its own network; any foreign metadata causes a one-line error at worst."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cifar_lab.models import CNN
from cifar_lab.trained import Overrides, load

Told = dict[str, Any]
HALVES = [0.5, 0.5, 0.5]


def description_of(model: torch.nn.Module) -> Told:
    return {
        "model": {
            "_target_": "cifar_lab.models.CNN",
            "filters": [4, 4, 4],
            "activation": {"_target_": "torch.nn.GELU", "_partial_": True},
        },
        "architecture": "cnn bn=true",
        "mean": HALVES,
        "std": HALVES,
        "classes": [f"c{n}" for n in range(10)],
        "names": list(model.state_dict()),
        "facts": {"test/acc": 0.5},
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a CNN's weights with changed metadata."""

    def saved(change: Callable[[Told], object] = lambda told: None) -> Path:
        model = CNN((4, 4, 4), activation=torch.nn.GELU)
        told = description_of(model)
        changed = change(told)
        text = changed if isinstance(changed, str) else json.dumps(told)
        save_file(model.state_dict(), tmp_path / "a.safetensors", {"cifar_lab": text})
        return tmp_path / "a.safetensors"

    return saved


def test_a_file_describes_its_network(write: Callable[..., Path]) -> None:
    trained = load(write())
    assert trained.making["activation"]["_target_"] == "torch.nn.GELU"
    assert next(iter(trained.classes)) == "c0"
    assert trained.facts == {"test/acc": 0.5}
    assert not trained.assumed
    assert load(trained.weights, Overrides(model="cnn", bn=True)).architecture == "cnn bn=true"
    for overrides, facts in (
        (Overrides(model="vgg_a", bn=False), r"cnn .*vgg_a bn=false"),
        (Overrides(activation="relu", mean=(0.5, 0.5, 0.5)), "--activation, --mean"),
    ):
        with pytest.raises(ValueError, match=facts):
            load(trained.weights, overrides)


def test_a_foreign_network_is_built_from_its_files_description(tmp_path: Path) -> None:
    model, path = torch.nn.Linear(6, 10), tmp_path / "linear.safetensors"
    making = {"_target_": "torch.nn.Linear", "in_features": 6, "out_features": 10}
    save_file(model.state_dict(), path, {"cifar_lab": json.dumps({**description_of(model), "model": making})})
    torch.testing.assert_close(load(path).model.state_dict(), model.state_dict())
    with pytest.raises(ValueError, match=r"\bcnn$"):
        load(path, Overrides(model="cnn"))


def test_a_foreign_file_is_a_plain_state_dict(tmp_path: Path) -> None:
    model = CNN((4, 4, 4))
    save_file(model.state_dict(), tmp_path / "best_model_ReLU.safetensors", {"format": "pt"})
    trained = load(tmp_path / "best_model_ReLU.safetensors", Overrides(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    assert trained.making["activation"]["_target_"] == "torch.nn.ReLU"
    torch.testing.assert_close(trained.model.state_dict(), model.state_dict())


HUGE = {"_target_": "torch.nn.Linear", "in_features": 10**7, "out_features": 10**7}


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda told: "no JSON", r"a\.safetensors: .*metadata"),
        (lambda told: "[" * 100_000, r"a\.safetensors: .*metadata"),
        (lambda told: "[]", "JSON"),
        (lambda told: told.pop("mean"), r"\bmean\b"),
        (lambda told: told.update(std=[0.5, 0.5, 0.0]), r"\bstd\b.* 0\b"),
        (lambda told: told.update(mean=[float("nan")] * 3), r"\bmean\b"),
        (lambda told: told.update(classes=["\x1b[31m"]), "names"),
        (lambda told: told.update(facts={"test/acc": "high"}), "test/acc .*str"),
        (lambda told: told["model"].update(_target_=7), "model"),
        (lambda told: told["model"].update(filters="${oc.env:HOME}"), r"a\.safetensors"),
        (lambda told: told["model"].update(_target_="os.system"), r"model\._target_=os\.system"),
        (lambda told: told["model"].update(_target_="my_lab.Net"), "--allow my_lab"),
        (lambda told: told["model"]["activation"].update(_target_="os.system"), r"activation\._target_=os\.system"),
        (lambda told: told["model"].update(filters=[10**9] * 3), r"\(filters\)"),
        (lambda told: told["model"].update(_target_="cifar_lab.models.VGG"), r"\(cifar_lab\.models\.VGG\)"),
        (lambda told: told["model"].update(colour="red"), "colour"),
        (lambda told: told["model"].update(init="random"), "init='random'"),
        (lambda told: told.update(model=HUGE), "cnn bn=true"),
        (lambda told: told["model"].update(activation=HUGE), r"a\.safetensors"),
    ],
)
def test_made_up_metadata_gives_a_one_line_error(
    write: Callable[..., Path], change: Callable[[Told], object], facts: str
) -> None:
    with pytest.raises(ValueError, match=facts) as error:
        load(write(change))
    assert "\n" not in str(error.value)


def test_a_damaged_file_gives_a_one_line_error(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write()
    content = path.read_bytes()
    for damaged in (b"", b"no file of tensors", content[:-100], content[:50], b"\xff" * 8 + content[8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.safetensors"):
            load(path)
    with pytest.raises(ValueError, match=r"none\.safetensors"):
        load(tmp_path / "none.safetensors")
