"""The command: files that hold what their run or file of weights does, and lines for what cannot be."""

import builtins
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from cifar_lab import export
from cifar_lab.exporting import formats, kinds, work
from cifar_lab.runs import Run
from cifar_lab.trained import load
from tests.conftest import TINY, Outcome
from tests.report_networks import ReportCNN, ReportResNet, ReportVGG

Lab = Callable[..., Outcome]
Command = Callable[..., tuple[int, str, str]]
LIGHT_WORK = ("--format", "safetensors", "--format", "weights")
LEAKY = partial(nn.LeakyReLU, 0.1)


@pytest.fixture
def command(called: Command) -> Command:
    """Run `python -m cifar_lab.export` with arguments in this process: its exit code, and what it printed."""
    return partial(called, export.main)


def trained_run(lab: Lab, *arguments: str) -> Run:
    outcome = lab(*TINY, "logger=none", "name=x", *arguments)
    assert outcome.code == 0, outcome.stderr
    return outcome.runs[-1]


def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (9, 32, 32, 3), dtype=torch.uint8)


def test_a_run_is_exported_in_every_format_with_a_card_whose_code_runs(
    lab: Lab, command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = trained_run(lab)
    code, out, err = command(run.folder)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["safetensors", "onnx", "torch-export", "weights", "model"]
    for line in lines[:-1]:
        assert re.search(r" MB, largest difference \d\.\de-\d\d on 20 test images \(batches of 1 and 20\)$", line), line
    folder = run.folder / "export"
    (kept,) = run.weights.glob("*.pth")
    names = {"model.onnx", "model.pt2", "model.safetensors", "model_card.md", kept.name}
    assert {path.name for path in folder.iterdir()} == names

    card = (folder / "model_card.md").read_text()
    result = run.result()
    assert f"| test accuracy | {result['test/acc']:.2%} (95 % interval " in card
    assert result["fingerprint"] in card
    assert "not on CIFAR-10" in card
    monkeypatch.chdir(folder)
    Image.new("RGB", (40, 40), (200, 30, 30)).save("image.png")
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "model_card.md", "exec"), {})
    answers = capfd.readouterr().out.split("\n")[:3]
    assert len(set(answers)) == 1
    assert answers[0] in result["classes"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("averaging=ema", "averaging.decay=0.5", "activation=mish"),
        ("averaging=swa", "optimizer=sgd", "averaging.start=0.5", "protocol=report"),
        ("trainer.precision=bf16-mixed", "bn=false", "data.mean=[0.5,0.5,0.5]"),
    ],
    ids=" ".join,
)
def test_a_runs_own_weights_are_what_is_exported(lab: Lab, command: Command, arguments: tuple[str, ...]) -> None:
    run = trained_run(lab, *arguments)
    code, _, err = command(run.folder, *LIGHT_WORK, "--output", "out")
    assert (code, err) == (0, "")
    again, own, images = load(Path("out/model.safetensors")), load(run.folder), pixels()
    torch.testing.assert_close(again.model.state_dict(), own.model.state_dict())
    torch.testing.assert_close(again.normalised(images), own.normalised(images))
    result = run.result()
    told = ("test/acc", "fingerprint", "options", "test_size")
    assert {name: again.facts[name] for name in told} == {name: result[name] for name in told}
    card = Path("out/model_card.md").read_text()
    assert ("The test set chose the epoch" in card) == (result["protocol"] == "report")


def test_a_safetensors_file_is_exported_as_its_run_is_without_it(lab: Lab, command: Command) -> None:
    run = trained_run(lab)
    command(run.folder, *LIGHT_WORK, "--output", "out")
    accuracy = run.result()["test/acc"]
    shutil.rmtree(run.folder)
    code, _, err = command("out/model.safetensors", "--format", "safetensors", "--format", "weights")
    assert (code, err) == (0, "")
    folder = Path("out/model-export")
    assert load(folder / "model.safetensors").facts["test/acc"] == accuracy
    assert (folder / "model.pth").exists()
    assert f"| test accuracy | {accuracy:.2%}" in (folder / "model_card.md").read_text()


def test_an_accuracy_is_told_only_of_the_weights_that_it_was_measured_with(lab: Lab, command: Command) -> None:
    run = trained_run(lab)
    code, _, err = command(run.last_checkpoint, *LIGHT_WORK)
    assert (code, err) == (0, "")
    folder = run.checkpoints / "last-export"
    assert "| test accuracy | not known of these weights |" in (folder / "model_card.md").read_text()
    assert "val/acc" not in json.loads(metadata(folder / "model.safetensors"))["facts"]
    assert (folder / "last.pth").exists()


def metadata(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()["cifar_lab"]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ReportCNN((4, 4, 4), LEAKY), ()),
        (ReportCNN((4, 4, 4), LEAKY, bn=False), ()),
        (ReportResNet((4, 4, 8)), ()),
        (ReportVGG(((4,), (8,), (8, 8), (8, 8), (8, 8)), 8), ()),
        (ReportVGG(((4,), (8,), (8, 8), (8, 8), (8, 8)), 8, bn=True), ("--bn",)),
        (ReportVGG(((4,), (8,)), 8, by_stage=True), ("--model", "vgg_a_light")),
        (ReportVGG(((4,), (8,), (8, 8), (8, 8), (8, 8)), 8, by_stage=True, dropout=True), ()),
    ],
    ids=["cnn", "cnn without BatchNorm", "resnet", "vgg_a", "vgg_a with BatchNorm", "light", "dropout"],
)
def test_the_reports_own_classes_load_the_weights(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, model: nn.Module, said: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CIFAR_LAB_DATA", str(tmp_path / "nowhere"))
    model.train()(torch.randn(16, 3, 32, 32))
    torch.save(model.state_dict(), tmp_path / "best.pth")
    code, out, err = command(tmp_path / "best.pth", "--format", "weights", *said)
    assert code == 0, err
    assert "on 256 generated images, as its data is not here (batches of 1 and 256)" in out
    assert all(line.startswith("note: ") for line in err.splitlines())
    state = torch.load(tmp_path / "best-export" / "best.pth", weights_only=True)
    assert list(state) == list(model.state_dict())
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for value in model.state_dict().values():
        value.zero_()
    model.load_state_dict(state, strict=True)
    torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=0)
    assert "Nothing says the following" in (tmp_path / "best-export" / "model_card.md").read_text()


SMALL_VGG = ("model.stages=[[4],[8],[8,8],[8,8],[8,8]]", "model.hidden=8", "~model.filters")
STAGES = ((4,), (8,), (8, 8), (8, 8), (8, 8))


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        ((), ReportCNN((4, 4, 4), LEAKY)),
        (("bn=false",), ReportCNN((4, 4, 4), LEAKY, bn=False)),
        (("model=resnet14", "model.widths=[4,4,8]"), ReportResNet((4, 4, 8))),
        (("model=vgg_a", *SMALL_VGG[:2], "bn=false"), ReportVGG(STAGES, 8)),
        (("model=vgg_a", *SMALL_VGG[:2], "bn=true"), ReportVGG(STAGES, 8, bn=True)),
        (
            ("model=vgg_a_light", "model.stages=[[4],[8]]", "model.hidden=8", "bn=false"),
            ReportVGG(STAGES[:2], 8, by_stage=True),
        ),
        (("model=vgg_a_dropout", *SMALL_VGG[:2], "bn=false"), ReportVGG(STAGES, 8, by_stage=True, dropout=True)),
    ],
    ids=["cnn", "cnn without BatchNorm", "resnet", "vgg_a", "vgg_a with BatchNorm", "light", "dropout"],
)
def test_the_reports_own_classes_load_what_a_run_and_its_export_hold(
    lab: Lab, command: Command, arguments: tuple[str, ...], model: nn.Module
) -> None:
    tiny = [argument for argument in TINY if not argument.startswith(("model.filters", "epochs"))]
    small = [] if any(argument.startswith("model=") for argument in arguments) else ["model.filters=[4,4,4]"]
    outcome = lab(*tiny, "epochs=1", "logger=none", "name=x", *small, *arguments)
    assert outcome.code == 0, outcome.stderr
    (run,) = outcome.runs
    code, _, err = command(run.folder, "--format", "weights")
    assert (code, err) == (0, "")
    (kept,) = run.weights.glob("*.pth")
    for path in (kept, run.folder / "export" / kept.name):
        state = torch.load(path, weights_only=True)
        assert list(state) == list(model.state_dict())
        model.load_state_dict(state, strict=True)
    images = pixels()
    own = load(run.folder)
    with torch.no_grad():
        expected = model.eval()(own.normalised(images))
    own_logits = own.model(own.normalised(images))
    torch.testing.assert_close(own_logits, expected)


def test_a_component_from_outside_is_exported_only_where_it_is_allowed(
    lab: Lab, command: Command, outside: Callable[..., tuple[str, ...]]
) -> None:
    source = (
        "import torch\nclass Net(torch.nn.Module):\n"
        "    def __init__(self, width=4, num_classes=10):\n"
        "        super().__init__()\n        self.layer = torch.nn.Linear(3072, num_classes)\n"
        "    def forward(self, images):\n        return self.layer(images.flatten(1))\n"
    )
    chosen = outside("my_nets", source, "model", "_target_: my_nets.Net\nnum_classes: 10\n")
    outcome = lab(*(argument for argument in TINY if not argument.startswith("model.")), "name=x", *chosen)
    assert outcome.code == 0, outcome.stderr
    (run,) = outcome.runs
    code, _, err = command(run.folder)
    assert code == 2
    assert "my_nets" in err
    assert "--allow my_nets lets it run" in err
    code, _, err = command(run.folder, "--allow", "my_nets", "--output", "out", *LIGHT_WORK, "--format", "torch-export")
    assert (code, err) == (0, "")
    assert 'Said(allow=["my_nets"])' in Path("out/model_card.md").read_text()
    code, _, err = command("out/model.safetensors", "--format", "weights")
    assert code == 2
    assert "--allow my_nets lets it run" in err
    assert command("out/model.safetensors", "--format", "weights", "--allow", "my_nets")[0] == 0


def test_a_run_is_exported_elsewhere_without_its_data(
    lab: Lab, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_run(lab)
    shutil.move(run.folder, tmp_path / "moved")
    config = tmp_path / "moved" / ".hydra" / "config.yaml"
    text = config.read_text().replace("SyntheticDataModule", "CIFAR10DataModule")
    config.write_text(re.sub(r"  (num_train|num_test|data_seed): .*\n", "", text).replace("\ndata:\n", DATA))
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    monkeypatch.setattr("cifar_lab.data.files.default_root", lambda: tmp_path / "no_cache")
    code, out, err = command(tmp_path / "moved", "--format", "weights")
    assert (code, err) == (0, "")
    assert "on 256 generated images, as its data is not here" in out
    code, _, err = command(tmp_path / "moved", "--format", "weights", "--data-root", tmp_path / "nowhere")
    assert code == 2
    assert err.startswith("error: no CIFAR-10 in ")


DATA = "\ndata:\n  root: /nowhere/at/all\n  download: null\n"


def test_json_tells_the_files_and_what_they_were_compared_on(lab: Lab, command: Command) -> None:
    run = trained_run(lab)
    code, out, err = command(run.folder, *LIGHT_WORK, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["compared"] == {"images": 20, "generated": False, "tolerance": 1e-4}
    assert [file["format"] for file in told["files"]] == ["safetensors", "weights"]
    for file in told["files"]:
        assert Path(file["path"]).stat().st_size == file["bytes"]
        assert 0 <= file["difference"] < 1e-5
    assert Path(told["card"]).exists()


def test_a_file_that_differs_is_refused_and_the_others_are_written(
    lab: Lab, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_run(lab)

    def encode(kind: kinds.Format, *rest: Any) -> bytes:
        content = formats.encode(kind, *rest)
        return content[:-64] + bytes(64) if kind == "safetensors" else content

    monkeypatch.setattr(work, "encode", encode)
    code, out, err = command(run.folder, *LIGHT_WORK)
    assert code == 1
    assert err.startswith("error: safetensors: the file was removed: largest difference ")
    assert err.count("\n") == 1
    assert out.startswith("weights ")
    assert not (run.folder / "export" / "model.safetensors").exists()
    assert "model.safetensors" not in (run.folder / "export" / "model_card.md").read_text()
    code, out, _ = command(run.folder, *LIGHT_WORK, "--json")
    assert code == 1
    assert [file["path"] is None for file in json.loads(out)["files"]] == [True, False]


def test_a_missing_extra_is_one_line(lab: Lab, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained_run(lab)
    command(run.folder, *LIGHT_WORK, "--output", "out")
    find = kinds.importlib.util.find_spec
    monkeypatch.setattr(kinds.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    code, _, err = command("nothing", "--format", "onnx")
    assert (code, err) == (2, "error: --format onnx needs onnxscript: pip install 'cifar-lab[export]'\n")
    assert command(run.folder, "--format", "weights")[0] == 0
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "safetensors":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    code, _, err = command("out/model.safetensors", "--format", "weights")
    assert code == 2
    assert err == "error: out/model.safetensors needs safetensors: pip install 'cifar-lab[export]'\n"


def test_what_cannot_be_is_one_line(tmp_path: Path, command: Command) -> None:
    torch.save(ReportCNN((4, 4, 4), LEAKY).state_dict(), tmp_path / "a.pth")
    (tmp_path / "file").write_text("")
    for arguments, words in (
        (("nothing",), "nothing does not exist"),
        ((tmp_path,), "is no run"),
        ((tmp_path / "a.pth", "--output", tmp_path / "file"), "is no folder; name another one by --output"),
        ((tmp_path / "a.pth", "--format", "tflite"), "tflite"),
        ((tmp_path / "a.pth", "--tolerance", "-1"), "tolerance"),
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1


def test_help_waits_for_no_torch() -> None:
    line = "import sys, cifar_lab.export; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "hydra", "omegaconf", "pandas", "onnx", "safetensors"} & set(modules)
