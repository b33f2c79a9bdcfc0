"""Runs on other data than ten classes of CIFAR-10: their network, tables and figures adapt."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_lab import evaluate, predict
from cifar_lab.data import cifar10
from cifar_lab.data.images import LabelledImages
from cifar_lab.runs import Run
from tests.conftest import TINY, Called, Lab, refusal
from tests.data import layouts

SMALL = ("batch_size=20", "epochs=1", "logger=none", "name=x", "trainer=cpu", "model.filters=[4,4,4]")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)


def trained(lab: Lab, *words: str) -> Run:
    outcome = lab(*SMALL, *words)
    assert outcome.code == 0, outcome.stderr
    return outcome.runs[-1]


def test_cifar100_trains_is_evaluated_and_predicts_with_its_classes(lab: Lab, called: Called, tmp_path: Path) -> None:
    layouts.cifar100(tmp_path / "data", 200, 100)
    run = trained(lab, "data=cifar100", "data.root=data", "data.verify=false")
    result = run.result()
    assert run.config()["model"]["num_classes"] == 100 and result["classes"] == layouts.FINE
    assert np.shape(result["confusion_matrix"]) == (100, 100) and len(result["mean"]) == len(result["std"]) == 3
    code, out, err = called(evaluate.main, run.folder, "--json")
    assert code == 0, err
    (told,) = json.loads(out)
    assert told["acc"] == pytest.approx(told["own_test_acc"]) and told["data"] == "CIFAR-100"
    assert [row["class"] for row in told["per_class"]] == layouts.FINE
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    (tmp_path / "data").rename(tmp_path / "gone")
    code, out, err = called(predict.main, run.folder, "red.png", "--json")
    assert code == 0, err
    assert json.loads(out)["class"] in layouts.FINE
    refusal(called(evaluate.main, run.folder, "--test-set", "cifar10_1"), "not trained on CIFAR-10")


def test_a_folder_of_photos_trains_and_is_refused_after_a_change(lab: Lab, called: Called, tmp_path: Path) -> None:
    layouts.photos(tmp_path / "mine", {"ant": 30, "bee": 20, "cat": 10})
    run = trained(lab, "data=folder", "data.path=mine", "data.label_noise=0.25")
    assert run.result()["classes"] == ["ant", "bee", "cat"] and run.config()["model"]["num_classes"] == 3
    assert (run.result()["train_size"], run.result()["test_size"]) == (43, 12)
    (tmp_path / "mine").rename(tmp_path / "moved")
    code, _, err = called(evaluate.main, run.folder, "--data-root", "moved")
    assert code == 0, err
    (tmp_path / "moved" / "ant" / "0.png").unlink()
    refusal(called(evaluate.main, run.folder, "--data-root", "moved"), "content has changed")


def test_a_network_for_cifar10_is_measured_on_later_and_on_corrupted_images(
    lab: Lab, called: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [LabelledImages.checked(layouts.pixels(40, seed=seed), np.arange(40) % 10) for seed in (1, 2)]
    monkeypatch.setattr(cifar10, "load_once", lambda root, verify: sets)
    monkeypatch.setattr("cifar_lab.data.files.find", lambda root: (tmp_path, ""))
    layouts.cifar10_1(tmp_path / "data" / "cifar-10.1")
    run = trained(lab, "data=cifar10", "data.root=data", "data.verify=false")
    code, out, err = called(evaluate.main, run.folder, "--json", "--test-set", "cifar10_1")
    assert code == 0, err
    (told,) = json.loads(out)
    assert told["images"] == 20 and "cifar10_1" in told["data"] and told["own_test_acc"] is None
    assert (run.folder / "evaluation" / "test-cifar10_1" / "evaluation.json").exists()
    tested = trained(lab, "data=cifar10", "data.root=data", "data.verify=false", "data.test_set=cifar10_1", "name=y")
    assert tested.result()["test/acc"] == pytest.approx(told["acc"])
    assert tested.result()["fingerprint"] != run.result()["fingerprint"]

    corrupted = tmp_path / "CIFAR-10-C"
    corrupted.mkdir()
    np.save(corrupted / "labels.npy", np.tile(sets[1].labels.numpy(), 5))
    np.save(corrupted / "fog.npy", np.tile(sets[1].images.numpy(), (5, 1, 1, 1)))
    np.save(corrupted / "spatter.npy", layouts.pixels(200, seed=3))
    code, out, err = called(evaluate.main, run.folder, "--corruptions", corrupted)
    assert code == 0, err
    result = json.loads((run.folder / "evaluation" / "test" / "evaluation.json").read_text())
    fog = [row for row in result["corruptions"] if row["corruption"] == "fog"]
    assert [row["severity"] for row in fog] == [1, 2, 3, 4, 5]
    assert [row["acc"] for row in fog] == [pytest.approx(result["acc"])] * 5, "not corrupted"
    lines = [line.split() for line in out.splitlines() if line.startswith(("fog", "mean", "spatter"))]
    assert [line[0] for line in lines] == ["fog", "mean", "spatter"] and lines[0][1:] == lines[1][1:]
    np.save(corrupted / "fog.npy", layouts.pixels(7))
    refusal(called(evaluate.main, run.folder, "--corruptions", corrupted), "fog.npy", "7 images")
    refusal(called(evaluate.main, run.folder, "--corruptions", tmp_path), "not CIFAR-10-C")


def test_noise_and_imbalance_make_a_different_run_but_their_neutral_values_do_not(lab: Lab) -> None:
    tiny = (*TINY, "epochs=1", "logger=none", "data.imbalance=0.5")
    outcome = lab("-m", *tiny, "data.label_noise=0,0.4")
    assert outcome.code == 0, outcome.stderr
    clean, noisy = sorted(outcome.runs, key=lambda run: run.config()["data"]["label_noise"])
    assert clean.result()["fingerprint"] != noisy.result()["fingerprint"]
    assert clean.result()["train_size"] == noisy.result()["train_size"] < 54
    assert "imbalance=0.5" in outcome.stdout and "label_noise=0.4" in outcome.stdout
