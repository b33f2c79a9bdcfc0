"""Grad-CAM, filters, activations and dead units of a run, through the command."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from PIL import Image

from cifar_lab import explain
from cifar_lab.data.files import DataError
from cifar_lab.explain.explaining import mistaken
from cifar_lab.trained import load
from tests.conftest import Train, names, refusal
from tests.kinds_of_runs import FINISHED, change
from tests.report_networks import ReportCNN

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, `runs/leaky` with LeakyReLU and `runs/relu` with ReLU, and a picture in the current folder."""
    trained(*FINISHED, name="runs/leaky")
    relu = {"_target_": "torch.nn.ReLU", "_partial_": True}
    change(trained(*FINISHED, name="runs/relu"), activation=relu, model={"activation": relu})
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40), "teal").save("a $price$.png")
    return Path("runs")


@pytest.fixture
def command(called: Command) -> Command:
    """Run `python -m cifar_lab.explain` with arguments in this process; return the exit code, stdout and stderr."""
    return partial(called, explain.main)


@pytest.mark.paints
def test_mistakes_filters_and_activations_are_printed_and_drawn(runs: Path, command: Command) -> None:
    code, out, err = command(runs / "leaky", "--mistakes", 2, "--images", 30, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert len(told["examples"]) == 2
    assert all(example["true"] != example["predicted"] for example in told["examples"])
    folder = runs / "leaky" / "explanation"
    written = ["gradcam.png", "filters.png", "activations.csv", "activations.png", "dead_units.csv"]
    assert told["files"] == [str(folder / file) for file in written]
    for file in written:
        if file.endswith(".png"):
            with Image.open(folder / file) as image:
                assert min(image.size) > 150
    frame = pd.read_csv(folder / "activations.csv")
    assert frame["layer"].tolist() == [layer["layer"] for layer in told["layers"]]
    assert frame[["negative_inputs", "zeros", "negative_only", "dead"]].stack().between(0, 1).all()
    (network,) = told["networks"]
    assert network["units"] == frame["units"].sum() and network["dead_units"] == frame["dead_units"].sum()
    assert told["images"] == 30


def test_the_most_confident_mistakes_of_the_test_are_shown(runs: Path) -> None:
    network = load(runs / "leaky")
    (images, labels), *_ = network.datamodule().test_dataloader()
    probabilities = network.logits(images).double().softmax(1)
    wrong = [
        (float(row.max()), network.classes[int(row.argmax())], network.classes[int(label)], str(place))
        for place, (row, label) in enumerate(zip(probabilities, labels, strict=True))
        if row.argmax() != label
    ]
    found = mistaken(network, 5)
    assert [(one.probability, one.predicted, one.true, one.name) for one in found] == sorted(wrong, reverse=True)[:5]
    assert len(mistaken(network, 1000)) == len(wrong)


def test_dead_units_are_one_number_per_activation(runs: Path, command: Command) -> None:
    (file,) = (runs / "relu" / "weights").glob("*.pth")
    state = torch.load(file, weights_only=True)
    state["conv_layers.0.bias"].fill_(-100)  # more negative than the weights can offset: all four channels die
    torch.save(state, file)
    code, out, err = command(runs / "relu", "--against", runs / "leaky", "--images", 40)
    assert (code, err) == (0, "")
    frame = pd.read_csv(runs / "relu" / "explanation" / "dead_units.csv").set_index("network")
    assert frame.index.tolist() == [str(runs / "relu"), str(runs / "leaky")]
    assert frame["activation"].tolist() == ["ReLU", "LeakyReLU"]
    assert frame["units"].tolist() == [4 + 4 + 4 + 512 + 256] * 2
    relu, leaky = frame["dead_units"]
    assert (relu, leaky) == (frame["negative_only_units"].iloc[0], 0) and relu >= 4
    lines = [line for line in out.splitlines() if line.startswith(str(runs))]
    assert [line.split()[0] for line in lines] == frame.index.tolist()
    assert lines[1].endswith("0 (0.00%)")


def test_explanations_are_in_float32_for_any_precision(runs: Path, command: Command) -> None:
    means = {}
    for name in ("32-true", "bf16-true", "64-true"):
        arguments = ("--precision", name, "--images", 20, "--mistakes", 1, "--output", name)
        assert command(runs / "relu", *arguments)[::2] == (0, "")
        means[name] = pd.read_csv(Path(name) / "activations.csv")["mean"].to_numpy()
        assert means[name] == pytest.approx(means["32-true"], rel=0.05)


@pytest.mark.paints
def test_explaining_pictures_needs_no_data(runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Mock(side_effect=DataError("no-data"))
    monkeypatch.setattr("cifar_lab.data.datamodule.SyntheticDataModule.load", missing)
    run = (runs / "leaky").rename(runs / r"a$\x$")  # must not be read as a formula
    Path("bad.png").write_text("no image")
    code, out, err = command(run, "a $price$.png", "bad.png", "--output", "out/of/it")
    assert code == 1
    assert sorted(path.name for path in Path("out/of/it").iterdir()) == ["filters.png", "gradcam.png"]
    error, note = err.splitlines()
    names(error, "bad.png")
    assert note.startswith("note: ") and "no-data" in note
    assert "a $price$.png" in out and "- out/of/it/gradcam.png" in out
    for arguments in ((), ("--mistakes", 3), ("a $price$.png", "--against", "runs/relu")):
        refusal(command(run, *arguments), "no-data")


def test_the_explanation_of_a_published_file_is_written_next_to_it(runs: Path, command: Command) -> None:
    torch.save(ReportCNN((4, 4, 4)).state_dict(), "cnn.pth")
    code, _, err = command("cnn.pth", "a $price$.png", "--data-root", "nowhere")
    assert code == 0
    assert sorted(path.name for path in Path("cnn-explanation").iterdir()) == ["filters.png", "gradcam.png"]
    assert all(line.startswith("note: ") for line in err.splitlines())
    code, out, err = command("cnn.pth", "--data-root", "nowhere")
    assert (code, out) == (2, "")
    names(err.splitlines()[-1], "nowhere", "data.root=")


def test_a_users_mistake_gives_a_one_line_error(runs: Path, command: Command) -> None:
    Path("many").mkdir()
    for number in range(65):
        shutil.copy("a $price$.png", f"many/{number}.png")
    for arguments, facts in (
        (["runs/leaky", "a $price$.png", "--mistakes", "3"], ["--mistakes"]),
        (["runs/leaky", "--mistakes", "65"], ["--mistakes", "64"]),
        (["runs/leaky", "nowhere.png"], ["nowhere.png"]),
        (["runs/leaky", "a $price$.png", "--layer", "features.3"], ["features.3", "conv_layers.0, conv_layers.4"]),
        (["runs/leaky", "a $price$.png", "--layer", "fc_layers.0"], ["--layer fc_layers.0", "conv_layers.0"]),
        (["runs/leaky", "many"], ["65", "64"]),
        (["runs", "a $price$.png"], ["runs"]),
        (["runs/leaky", "--against", "nowhere"], ["nowhere"]),
        (["runs/leaky", "--output", "a $price$.png/folder"], ["a $price$.png"]),
        ([], ["RUN|WEIGHTS"]),
    ):
        refusal(command(*arguments), *facts)


def test_without_captum_grad_cam_names_the_package_and_the_rest_works(
    runs: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    refusal(command(runs / "leaky", "a $price$.png"), "pip install 'cifar-lab[explain]'")
    code, out, _ = command(runs / "leaky", "--images", 10, "--layer", "conv_layers.0")
    assert (code, "gradcam" in out, "dead_units.csv" in out) == (0, False, True)
