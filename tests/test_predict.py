"""Predictions for image files."""

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_lab import predict
from cifar_lab.data.cifar10 import CLASSES
from cifar_lab.data.synthetic import generate
from cifar_lab.trained import load
from tests.conftest import Called, Train, names, refusal
from tests.kinds_of_runs import FINISHED
from tests.report_networks import ReportVGG


@pytest.fixture
def run(trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run as `run` in the current folder, with images of its test set as `images/00.png` and so on."""
    trained(*FINISHED)
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for number, image in enumerate(generate(60, 20)[1].images.numpy()):
        Image.fromarray(image).save(f"images/{number:02}.png")
    return Path("run")


def parse(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_test_image_in_a_file_has_the_logits_of_the_test(run: Path, called: Called) -> None:
    network = load(run)
    (images, _), *_ = network.datamodule().test_dataloader()
    logits = network.logits(images)
    files = [np.array(Image.open(f"images/{number:02}.png")) for number in range(20)]
    assert torch.equal(network.logits_of_pixels(torch.from_numpy(np.stack(files))), logits)
    code, out, err = called(predict.main, run, "images", "--json", "--top", 50)  # there are only ten classes
    assert (code, err) == (0, "")
    expected = logits.double().softmax(1)
    for number, (line, row) in enumerate(zip(parse(out), expected.tolist(), strict=True)):
        assert line["image"] == f"images/{number:02}.png"
        told = {entry["class"]: entry["probability"] for entry in line["top"]}
        assert told == dict(zip(network.classes, row, strict=True))
        assert [entry["probability"] for entry in line["top"]] == sorted(row, reverse=True)
        # Logits of 16 bits may be equal; the class is the first of the largest, as in the test.
        assert line["class"] == network.classes[int(logits[number].argmax())]


def test_table_csv_and_json_agree(run: Path, called: Called) -> None:
    lines = parse(called(predict.main, run, "images/*.png", "--json", "--batch-size", 7)[1])
    rows = list(csv.DictReader(io.StringIO(called(predict.main, run, "images", "--csv", "--batch-size", 7)[1])))
    _, *table = called(predict.main, run, "images")[1].splitlines()
    assert len(lines) == len(rows) == len(table) == 20
    for line, row, shown in zip(lines, rows, table, strict=True):
        assert line["image"] == row["image"] == shown.split()[0]
        for rank, entry in enumerate(line["top"], start=1):
            assert row[f"class_{rank}"] == entry["class"]
            assert float(row[f"probability_{rank}"]) == entry["probability"]
            assert f"{entry['probability']:.1%} {entry['class']}" in shown
        assert len(line["top"]) == 3


def test_bad_images_give_a_line_each_and_the_rest_are_predicted(run: Path, called: Called) -> None:
    Path("images/03.png").write_text("no image")
    Path("images/05.png").write_bytes(Path("images/05.png").read_bytes()[:900])
    Path("images/new\nline.png").write_bytes(b"")
    code, out, err = called(predict.main, run, "images", "nowhere.png", "--json")
    assert code == 1
    assert len(parse(out)) == 18
    bad = ("nowhere.png", "images/03.png", "images/05.png", "images/new?line.png")
    for line, name in zip(err.splitlines(), bad, strict=True):
        names(line, f"error: {name}: ")
    for flags in ((), ("--json",), ("--csv",)):
        code, out, err = called(predict.main, run, "images/03.png", *flags)
        assert (code, out) == (1, "")
        names(err, "images/03.png")


def test_names_that_a_terminal_cannot_show_are_still_printed(run: Path, called: Called) -> None:
    name = os.fsdecode(b"\xff\n.png")
    shutil.copy("images/00.png", name)
    Path(os.fsdecode(b"\xfe.png")).touch()
    code, out, err = called(predict.main, run, name, os.fsdecode(b"\xfe.png"), "--json")
    assert (code, parse(out)[0]["image"]) == (1, name)
    names(err, "error: ?.png: ")
    for flags, line in (((), "??.png  "), (("--csv",), "??.png,")):
        assert called(predict.main, run, name, *flags)[1].splitlines()[1].startswith(line)


def test_a_progress_bar_stays_out_of_the_output(run: Path, called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    assert called(predict.main, run, "images", "--json")[2] == ""  # without a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    Path("images/07.png").write_bytes(b"")
    code, out, err = called(predict.main, run, "images", "--json")
    assert (code, len(parse(out))) == (1, 19)
    (complaint,) = (line for line in err.splitlines() if "error: " in line)
    names(complaint[complaint.index("error: ") :], "images/07.png")
    assert len(err) > len(complaint) + 1


def test_a_users_mistake_gives_a_one_line_error(run: Path, called: Called) -> None:
    Path("empty").mkdir()
    for arguments, facts in (
        (["run", "nowhere.png", "no/*.png"], ["nowhere.png", "no/*.png"]),
        (["run", "empty"], ["empty", ".png"]),
        (["nowhere", "images"], ["nowhere"]),
        (["empty", "images"], ["empty"]),
        (["run", "images", "--top", "0"], ["--top"]),
        (["run", "images", "--resize", "stretch"], ["--resize", "stretch", "crop"]),
        (["run", "images", "--json", "--csv"], ["--json", "--csv"]),
        (["run", "images", "--mean", "0.5,x,0.5"], ["--mean", "0.5,x,0.5"]),
        (["run", "images", "--activation", "relu"], ["--activation"]),
        (["run"], ["IMAGE"]),
    ):
        refusal(called(predict.main, *arguments), *facts)


def test_a_run_moved_to_a_machine_without_data_predicts(
    run: Path, called: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = called(predict.main, run, "images", "--json")[1]
    shutil.move(run, tmp_path / "elsewhere")
    config = tmp_path / "elsewhere" / ".hydra" / "config.yaml"
    assert "SyntheticDataModule" in config.read_text()
    monkeypatch.setattr("cifar_lab.data.datamodule.SyntheticDataModule.load", None)
    assert called(predict.main, "elsewhere", "images", "--json")[:2] == (0, expected)


def test_a_published_file_predicts_and_states_its_assumptions(run: Path, called: Called) -> None:
    torch.save(ReportVGG(stages=((4,), (4,)), hidden=8).state_dict(), "vgg.pth")
    code, out, err = called(predict.main, "vgg.pth", "images/00.png", "--json")
    assert code == 0
    assert parse(out)[0]["class"] in CLASSES
    notes = err.splitlines()
    assert all(line.startswith("note: vgg.pth: ") for line in notes)
    assert any("relu" in line for line in notes)
    code, _, err = called(
        predict.main, "vgg.pth", "images/00.png", "--activation", "relu", "--mean", "0,0,0", "--std", "1,1,1"
    )
    assert (code, err) == (0, "")
