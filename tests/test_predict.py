"""Images from files to what a run takes them for."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_lab import predict, train
from cifar_lab.data.cifar10 import CLASSES
from cifar_lab.runs import Run
from cifar_lab.trained import load
from tests.conftest import TINY
from tests.report_networks import ReportVGG

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run."""
    folder, threads = tmp_path_factory.mktemp("trained") / "run", torch.get_num_threads()
    torch.set_num_threads(1)
    train.run([*TINY, "logger=none", f"hydra.run.dir={folder}"])
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, as `run` in the folder at hand, beside images of its test set as `images/00.png` and so on."""
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for number, image in enumerate(load(Path("run")).datamodule().test_dataloader().data.images.numpy()):  # type: ignore[attr-defined]
        Image.fromarray(image).save(f"images/{number:02}.png")
    return Path("run")


@pytest.fixture
def command(called: Command) -> Command:
    """Run `python -m cifar_lab.predict` with arguments in this process: its exit code, and what it printed."""
    return partial(called, predict.main)


def parsed(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_test_image_as_a_file_has_the_logits_of_the_test(run: Path, command: Command) -> None:
    network = load(run)
    (images, _), *_ = network.datamodule().test_dataloader()
    logits = network.logits(images)
    files = [np.array(Image.open(f"images/{number:02}.png")) for number in range(20)]
    assert torch.equal(network.logits_of_pixels(torch.from_numpy(np.stack(files))), logits)
    code, out, err = command(run, "images", "--json", "--top", 10)
    assert (code, err) == (0, "")
    expected = logits.double().softmax(1)
    for number, (line, row) in enumerate(zip(parsed(out), expected.tolist(), strict=True)):
        assert line["image"] == f"images/{number:02}.png"
        told = {entry["class"]: entry["probability"] for entry in line["top"]}
        assert told == dict(zip(network.classes, row, strict=True))
        assert [entry["probability"] for entry in line["top"]] == sorted(row, reverse=True)
        assert line["class"] == network.classes[int(np.argmax(row))]


def test_batches_make_no_difference(run: Path, command: Command) -> None:
    one, all_ = (parsed(command(run, "images", "--json", "--batch-size", size)[1]) for size in (3, 500))
    assert len(one) == len(all_) == 20
    for left, right in zip(one, all_, strict=True):
        assert left["image"] == right["image"]
        assert left["probability"] == pytest.approx(right["probability"], rel=1e-4)


def test_the_table_the_csv_and_the_json_say_the_same(run: Path, command: Command) -> None:
    lines = parsed(command(run, "images/*.png", "--json")[1])
    rows = list(csv.DictReader(io.StringIO(command(run, "images", "--csv")[1])))
    _, *table = command(run, "images")[1].splitlines()
    assert len(lines) == len(rows) == len(table) == 20
    for line, row, shown in zip(lines, rows, table, strict=True):
        assert line["image"] == row["image"] == shown.split()[0]
        for rank, entry in enumerate(line["top"], start=1):
            assert row[f"class_{rank}"] == entry["class"]
            assert float(row[f"probability_{rank}"]) == entry["probability"]
            assert f"{entry['probability']:.1%} {entry['class']}" in shown
        assert len(line["top"]) == 3


def test_bad_images_are_a_line_each_and_the_rest_goes_on(run: Path, command: Command) -> None:
    Path("images/03.png").write_text("no image")
    Path("images/05.png").write_bytes(Path("images/05.png").read_bytes()[:900])
    Path("images/new\nline.png").write_bytes(b"")
    code, out, err = command(run, "images", "nowhere.png", "--json")
    assert code == 1
    assert len(parsed(out)) == 18
    assert err.splitlines() == [
        "error: nowhere.png: it does not exist",
        "error: images/03.png: it is no image of a known format "
        "(AVIF, BMP, GIF, JPEG, JPEG2000, PNG, PPM, TGA, TIFF, WEBP)",
        next(line for line in err.splitlines() if line.startswith("error: images/05.png: image file is truncated")),
        "error: images/new?line.png: it is empty",
    ]


def test_names_that_no_terminal_takes_are_printed_all_the_same(run: Path, command: Command) -> None:
    name = os.fsdecode(b"\xff\n.png")
    shutil.copy("images/00.png", name)
    Path(os.fsdecode(b"\xfe.png")).touch()
    code, out, err = command(run, name, os.fsdecode(b"\xfe.png"), "--json")
    assert (code, parsed(out)[0]["image"], err) == (1, name, "error: ?.png: it is empty\n")
    for flags, line in (((), "??.png  "), (("--csv",), "??.png,")):
        assert command(run, name, *flags)[1].splitlines()[1].startswith(line)


def test_more_classes_than_there_are_is_all_of_them(run: Path, command: Command) -> None:
    (line,) = parsed(command(run, "images/00.png", "--top", 50, "--json")[1])
    assert sorted(entry["class"] for entry in line["top"]) == sorted(load(run).classes)


def test_a_bar_on_the_terminal_stays_out_of_what_is_printed(
    run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(run, "images", "--json")[2] == ""
    monkeypatch.setattr(predict, "_MANY", 20)
    assert command(run, "images", "--json")[2] == ""  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    Path("images/07.png").write_bytes(b"")
    code, out, err = command(run, "images", "--json")
    assert (code, len(parsed(out))) == (1, 19)
    assert "images/07.png: it is empty" in err and "images" in err and len(err) > 50


def test_without_one_good_image_nothing_is_printed(run: Path, command: Command) -> None:
    Path("bad.png").write_text("no image")
    for flags in ((), ("--json",), ("--csv",)):
        code, out, err = command(run, "bad.png", *flags)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.png", "no/*.png"], "no images: nowhere.png: it does not exist; no/*.png: no file is like it"),
        (["run", "empty"], "no file in it or below ends in .apng"),
        (["nowhere", "images"], "nowhere does not exist; name a run's folder, or a file of weights"),
        (["empty", "images"], "empty is no run"),
        (["run", "images", "--top", "0"], "--top"),
        (["run", "images", "--resize", "stretch"], "stretch"),
        (["run", "images", "--json", "--csv"], "print one of them"),
        (["run", "images", "--mean", "0.5,x,0.5"], "--mean 0.5,x,0.5: numbers joined by commas"),
        (["run", "images", "--activation", "relu"], "leave --activation out"),
        (["run"], "Missing argument"),
    ],
)
def test_a_mistake_is_one_line(run: Path, command: Command, arguments: list[str], words: str) -> None:
    Path("empty").mkdir()
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_run_moved_to_a_machine_without_data_predicts(
    run: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = command(run, "images", "--json")[1]
    shutil.move(run, tmp_path / "elsewhere")
    config = tmp_path / "elsewhere" / ".hydra" / "config.yaml"
    assert "SyntheticDataModule" in config.read_text()
    monkeypatch.setattr("cifar_lab.data.datamodule.SyntheticDataModule.load", None)
    assert command("elsewhere", "images", "--json")[:2] == (0, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("averaging=ema", "averaging.decay=0.5", "activation=mish", "trainer.precision=bf16-mixed"),
        ("averaging=swa", "averaging.start=0.5", "optimizer=sgd", "data.mean=[0.5,0.5,0.5]"),
        ("model=vgg_a", "model.stages=[[4],[4]]", "model.hidden=8", "bn=false", "activation=elu"),
        ("model=resnet14", "model.blocks=[1,1]", "model.widths=[4,4]", "activation=gelu"),
    ],
    ids=" ".join,
)
def test_every_kind_of_network_predicts_as_its_test_did(
    run: Path, command: Command, arguments: tuple[str, ...]
) -> None:
    base = [line for line in TINY if "model=" not in arguments[0] or not line.startswith("model.filters")]
    train.run([*base, *arguments, "logger=none", "hydra.run.dir=other"])
    code, out, err = command("other", "images", "--json", "--precision", Run("other").result()["precision"])
    assert (code, err) == (0, "")
    labels = load(run).datamodule().test_dataloader().data.labels.tolist()  # type: ignore[attr-defined]
    classes = load(run).classes
    right = [line["class"] == classes[label] for line, label in zip(parsed(out), labels, strict=True)]
    assert np.mean(right) == pytest.approx(Run("other").result()["test/acc"])


def test_components_from_outside_run_where_they_are_allowed(
    run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("somebodys_lab.py").write_text("from cifar_lab.models import CNN\n\n\nclass Model(CNN):\n    pass\n")
    monkeypatch.syspath_prepend(".")
    config = run / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("cifar_lab.models.CNN", "somebodys_lab.Model"))
    code, _, err = command(run, "images", "--json")
    assert (code, "--allow somebodys_lab" in err) == (2, True)
    code, out, _ = command(run, "images", "--json", "--allow", "somebodys_lab")
    assert (code, len(parsed(out))) == (0, 20)


def test_a_published_file_predicts_and_says_what_is_assumed(run: Path, command: Command) -> None:
    torch.save(ReportVGG(stages=((4,), (4,)), hidden=8).state_dict(), "vgg.pth")
    code, out, err = command("vgg.pth", "images/00.png", "--json")
    assert code == 0
    assert parsed(out)[0]["class"] in CLASSES
    assert all(line.startswith("note: ") for line in err.splitlines())
    assert "note: vgg.pth: activation relu" in err
    code, _, err = command("vgg.pth", "images/00.png", "--activation", "relu", "--mean", "0,0,0", "--std", "1,1,1")
    assert (code, err) == (0, "")


def test_help_waits_for_no_torch() -> None:
    line = "import sys, cifar_lab.predict; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "hydra", "omegaconf", "pandas", "matplotlib", "captum"} & set(modules)
    line = "import sys; sys.argv = ['predict', '--help']; from cifar_lab.predict import main; main()"
    out = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout
    assert "cifar-lab predict" in out and "RUN|WEIGHTS" in out and "--batch-size" in out
