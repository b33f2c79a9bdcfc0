"""The export command: the files compute what their run or weight file does, and errors take one line."""

import builtins
import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from cifar_lab import export
from cifar_lab.export import formats, kinds, writing
from cifar_lab.export.formats import on_cpu
from cifar_lab.runs import Run
from cifar_lab.runs.labels import NO_PROBABILITIES
from cifar_lab.trained import load
from tests.conftest import CHECKOUT, Train, names, refusal
from tests.faults import unfinished
from tests.kinds_of_runs import AVERAGED, EMA, FINISHED, WITHOUT_BN, change
from tests.report_networks import ReportCNN

Command = Callable[..., tuple[int, str, str]]
SLOW = pytest.mark.slow
LIGHT_WORK = ("--format", "safetensors")
LEAKY = partial(nn.LeakyReLU, 0.1)
CHOSEN = "The test set chose the epoch"


@pytest.fixture
def command(called: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `python -m cifar_lab.export` in this process, in an empty folder; return the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return partial(called, export.main)


@pytest.fixture
def run(trained: Train) -> Run:
    """A finished run."""
    return trained(*FINISHED)


def test_a_run_is_exported_in_every_format_with_a_card_whose_code_runs(
    run: Run, command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    left = run.folder / "export" / unfinished("onnx")  # left by a killed process
    left.mkdir(parents=True)
    (left / "model.onnx").touch()
    code, out, err = command(run.folder)
    assert (code, err) == (0, "")
    *lines, page = out.splitlines()
    assert [line.split()[0] for line in lines] == ["safetensors", "onnx", "torch-export"]
    assert all(re.search(r" MB, .* \d\.\de-\d\d .*\b20\b", line) for line in lines)
    folder = run.folder / "export"
    written = {"model.onnx", "model.pt2", "model.safetensors", "model_card.md"}
    assert {path.name for path in folder.iterdir()} == written

    assert page.endswith(str(folder / "model_card.md"))
    own = on_cpu(load(run.folder))
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    by_onnx = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    for found in (by_onnx, torch.export.load(folder / "model.pt2").module()(images)):
        torch.testing.assert_close(found, own.logits_of_pixels(images), atol=1e-5, rtol=0)
    model = onnx.load(folder / "model.onnx")
    (size, *_), *_ = (value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output))
    assert size.dim_param == "batch"
    for name in written - {"model_card.md"}:
        content = (folder / name).read_bytes()
        assert not any(str(place).encode() in content for place in (CHECKOUT, run.folder))

    (of_onnx,) = (entry.value for entry in model.metadata_props if entry.key == "cifar_lab")
    extra = {"cifar_lab.json": ""}
    torch.export.load(folder / "model.pt2", extra_files=extra)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        described = [json.loads(text) for text in (of_onnx, extra["cifar_lab.json"], file.metadata()["cifar_lab"])]
    for told in described:
        assert (told["classes"], told["mean"]) == (list(own.classes), list(own.mean))
        assert (told["names"], told["versions"]["torch"]) == (list(own.model.state_dict()), version("torch"))
    shape = {"name": "images", "dtype": "uint8", "shape": ["batch", 32, 32, 3], "range": [0, 255], "colours": "RGB"}
    assert [told.get("input") for told in described] == [shape, shape, None]

    card = (folder / "model_card.md").read_text()
    result = run.result()
    for fact in (f"{result['test/acc']:.2%}", result["fingerprint"], "synthetic", "CIFAR-10"):
        assert fact in card
    assert CHOSEN not in card
    monkeypatch.chdir(folder)
    Image.new("RGB", (40, 40), (200, 30, 30)).save("image.png")
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "model_card.md", "exec"), {})
    answers = capfd.readouterr().out.split("\n")[:3]
    assert len(set(answers)) == 1
    assert answers[0] in result["classes"]


@pytest.mark.parametrize(
    "words",
    [FINISHED, (*FINISHED, "loss=mse"), *(pytest.param(words, marks=SLOW) for words in (AVERAGED, WITHOUT_BN, EMA))],
    ids=["plain", "mse", "averaged", "without bn", "ema"],
)
def test_a_runs_own_weights_are_exported_and_can_be_exported_again_without_the_run(
    trained: Train, command: Command, words: tuple[str, ...]
) -> None:
    run = trained(*words)
    own, result = load(run.folder), run.result()
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    is_trained = "loss=mse" not in words  # MSE does not train probabilities, so none are promised
    code, out, err = command(run.folder, *LIGHT_WORK, "--output", "out", "--json")
    assert (code, err.count(NO_PROBABILITIES), err.count("\n")) == (0, not is_trained, not is_trained)
    told = json.loads(out)
    assert told["compared"] == {"images": 20, "generated": False, "tolerance": 1e-4}
    (file,) = told["files"]
    assert (file["format"], Path(file["path"]).stat().st_size) == ("safetensors", file["bytes"])
    assert 0 <= file["difference"] < 1e-5
    shutil.rmtree(run.folder)
    assert command("out/model.safetensors", *LIGHT_WORK)[0] == 0
    for folder in (Path("out"), Path("out/model-export")):
        again = load(folder / "model.safetensors")
        torch.testing.assert_close(again.model.state_dict(), own.model.state_dict())
        torch.testing.assert_close(again.normalised(images), own.normalised(images))
        facts = ("test/acc", "fingerprint", "options", "test_size")
        assert {name: again.facts[name] for name in facts} == {name: result[name] for name in facts}
        card = (folder / "model_card.md").read_text()
        assert f"{result['test/acc']:.2%}" in card
        assert (NO_PROBABILITIES in card, "gives probabilities" in card) == (not is_trained, is_trained)
    assert told["card"] == "out/model_card.md"


def test_a_card_has_the_accuracy_of_its_own_weights_and_says_if_the_test_set_chose_the_epoch(
    run: Run, command: Command
) -> None:
    code, _, err = command(run.last_checkpoint, *LIGHT_WORK)
    assert (code, err) == (0, "")
    folder = run.checkpoints / "last-export"
    assert "%" not in (folder / "model_card.md").read_text()
    assert not {"test/acc", "val/acc"} & set(load(folder / "model.safetensors").facts)
    change(run, data={"val_fraction": 0.0})
    assert command(run.folder, *LIGHT_WORK)[0] == 0
    assert CHOSEN in (run.folder / "export" / "model_card.md").read_text()


def test_assumptions_about_a_bare_file_are_noted_and_in_its_card(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "nowhere"))
    torch.save(ReportCNN((4, 4, 4), LEAKY).state_dict(), "best.pth")
    code, out, err = command("best.pth", *LIGHT_WORK)
    assert code == 0
    assert "256" in out
    card = Path("best-export/model_card.md").read_text()
    notes = err.splitlines()
    assert notes and all(note.startswith("note: best.pth: ") for note in notes)
    assert all(note.partition("best.pth: ")[2] in card for note in notes)


def test_a_users_component_is_exported_only_if_it_is_allowed(
    run: Run, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_nets.py").write_text("from cifar_lab.models import CNN\n\n\nclass Net(CNN): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("cifar_lab.models.CNN", "my_nets.Net"))
    allowed = ("--allow", "my_nets")
    refusal(command(run.folder), "my_nets.Net", "--allow my_nets")
    code, _, err = command(run.folder, *allowed, "--output", "out", *LIGHT_WORK)
    assert (code, err) == (0, "")
    assert 'Overrides(allow=["my_nets"])' in Path("out/model_card.md").read_text()
    refusal(command("out/model.safetensors", *LIGHT_WORK), "--allow my_nets")
    assert command("out/model.safetensors", *LIGHT_WORK, *allowed)[0] == 0


def test_a_run_is_exported_on_a_machine_without_its_data(
    run: Run, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(run.folder, tmp_path / "moved")
    config = tmp_path / "moved" / ".hydra" / "config.yaml"
    text = config.read_text().replace("SyntheticDataModule", "CIFAR10DataModule")
    lines = f"\ndata:\n  root: {tmp_path / 'gone'}\n  download: null\n"
    config.write_text(re.sub(r"  (num_train|num_test|data_seed): .*\n", "", text).replace("\ndata:\n", lines))
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    monkeypatch.setattr("cifar_lab.data.files.default_root", lambda: tmp_path / "no_cache")
    code, out, err = command("moved", *LIGHT_WORK, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["compared"] == {"images": 256, "generated": True, "tolerance": 1e-4}
    nowhere = tmp_path / "nowhere"
    refusal(command("moved", *LIGHT_WORK, "--data-root", nowhere), nowhere, "CIFAR-10")


def test_a_file_with_other_logits_is_refused_and_the_others_are_written(
    run: Run, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(kind: kinds.Format, *rest: Any) -> bytes:
        content = formats.encode(kind, *rest)
        return content[:-64] + bytes(64) if kind == "safetensors" else content

    monkeypatch.setattr(writing, "encode", encode)
    code, out, err = command(run.folder, *LIGHT_WORK, "--format", "torch-export")
    assert code == 1
    names(err, "safetensors", "--tolerance", "0.0001")
    assert out.startswith("torch-export ")
    assert not (run.folder / "export" / "model.safetensors").exists()
    assert "model.safetensors" not in (run.folder / "export" / "model_card.md").read_text()
    code, out, _ = command(run.folder, *LIGHT_WORK, "--json")
    assert code == 1
    assert [file["path"] for file in json.loads(out)["files"]] == [None]


def test_a_missing_extra_gives_a_one_line_error(run: Run, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    command(run.folder, *LIGHT_WORK, "--output", "out")
    find = kinds.importlib.util.find_spec
    monkeypatch.setattr(kinds.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    install = "pip install 'cifar-lab[export]'"
    refusal(command("nothing", "--format", "onnx"), "--format onnx", "onnxscript", install)
    assert command(run.folder, *LIGHT_WORK)[0] == 0
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "safetensors":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    refusal(command("out/model.safetensors", *LIGHT_WORK), "out/model.safetensors", install)


def test_impossible_requests_give_a_one_line_error(tmp_path: Path, command: Command) -> None:
    torch.save(ReportCNN((4, 4, 4), LEAKY).state_dict(), tmp_path / "a.pth")
    (tmp_path / "file").write_text("")
    for arguments, facts in (
        (("nothing",), ("nothing",)),
        ((tmp_path,), (tmp_path,)),
        ((tmp_path / "a.pth", "--output", tmp_path / "file"), (tmp_path / "file", "--output")),
        ((tmp_path / "a.pth", "--format", "tflite"), ("--format", "tflite", "onnx")),
        ((tmp_path / "a.pth", "--format", "weights"), ("weights", "safetensors", "onnx", "torch-export")),
        ((tmp_path / "a.pth", "--tolerance", "-1"), ("--tolerance", "0")),
    ):
        refusal(command(*arguments), *facts)
    assert {path.name for path in tmp_path.iterdir()} == {"a.pth", "file"}
