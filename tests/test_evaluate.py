"""`python -m cifar_lab.evaluate`: numbers and figures of trained networks."""

import copy
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import update_bn

from cifar_lab.evaluate import main
from cifar_lab.evaluation import Settings, evaluate
from cifar_lab.runs import Run
from cifar_lab.trained import Said, load
from tests.conftest import TINY, Outcome
from tests.report_networks import ReportCNN

Lab = Callable[..., Outcome]


@pytest.fixture
def command(called: Callable[..., tuple[int, str, str]]) -> Callable[..., Outcome]:
    """Run `python -m cifar_lab.evaluate` with arguments in this process."""
    return lambda *arguments: Outcome(*called(main, *arguments), [])


@pytest.fixture
def run(lab: Lab) -> Run:
    outcome = lab(*TINY, "name=x")
    assert outcome.code == 0, outcome.stderr
    return outcome.runs[0]


def test_it_finds_the_runs_own_accuracy_and_leaves_files(run: Run, command: Lab) -> None:
    outcome = command(run.folder)
    assert outcome.code == 0, outcome.stderr
    assert "the run's own" in outcome.stdout
    folder = run.folder / "evaluation" / "test"
    told = json.loads((folder / "evaluation.json").read_text())
    assert told["acc"] == pytest.approx(run.result()["test/acc"])
    assert told["loss"] == pytest.approx(run.result()["test/loss"], rel=1e-5)
    assert told["confusion_matrix"] == run.result()["confusion_matrix"]
    assert told["data"] == "synthetic data"
    names = {path.name for path in folder.iterdir()}
    assert {"per_class.csv", "answers.npz", "confusion_matrix.png", "reliability.png", "mistakes.png"} <= names
    with np.load(folder / "answers.npz") as answers:
        assert (answers["logits"].argmax(1) == answers["labels"]).mean() == pytest.approx(told["acc"])


def test_json_is_a_list_and_nothing_else(run: Run, command: Lab) -> None:
    outcome = command(run.folder, "--json", "--split", "val")
    (told,) = json.loads(outcome.stdout)
    assert told["split"] == "val"
    assert told["images"] == run.result()["val_size"]
    assert told["acc"] == pytest.approx(run.result()["val/acc"])
    assert told["temperature_fitted_on"] == "the other half of these images"


def test_several_networks_are_compared(run: Run, command: Lab, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "other")
    outcome = command(run.folder, tmp_path / "other")
    *_, heading, first, second = outcome.stdout.splitlines()
    assert heading.split()[:2] == ["network", "accuracy"]
    assert first.split()[1:] == second.split()[1:]


def test_a_folder_is_all_of_its_runs_and_one_that_cannot_be_used_stops_no_other(
    run: Run, command: Lab, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(run.folder, tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "curves.png").write_bytes(b"no weights")
    shutil.rmtree(tmp_path / "sweep" / "b" / "weights")
    shutil.rmtree(tmp_path / "sweep" / "b" / "checkpoints")
    outcome = command(tmp_path / "sweep", "--json")
    assert outcome.code == 1
    assert [Path(told["network"]).name for told in json.loads(outcome.stdout)] == ["a", "c"]
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("error: ") and "holds no weights" in line
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / "empty").code == 2


def test_networks_of_other_data_or_classes_are_one_line(run: Run, command: Lab, tmp_path: Path) -> None:
    network = load(run.folder)
    facts = {"options": {"data": "synthetic"}}
    alone = dataclasses.replace(network, run=None, config=None, facts=facts, label="x.safetensors")
    with pytest.raises(ValueError, match="was trained on data=synthetic; name the run's folder"):
        evaluate(alone, Settings())
    fewer = copy.deepcopy(network.model)
    fewer.fc_layers[6] = torch.nn.Linear(256, 5)
    with pytest.raises(ValueError, match="knows 5 classes, and the images are of more"):
        evaluate(dataclasses.replace(network, model=fewer.eval()), Settings())


def test_a_logit_without_a_name_is_a_number(run: Run) -> None:
    nameless = dataclasses.replace(load(run.folder), classes=[])
    assert [row["class"] for row in evaluate(nameless, Settings()).result["per_class"]][:2] == ["0", "1"]


def test_the_mean_of_an_image_and_its_mirror_is_the_same_for_both(run: Run) -> None:
    trained = load(run.folder)
    plain, flipped = (evaluate(trained, Settings(tta=tta)).answers.logits for tta in (None, "flip"))
    images, _ = next(iter(trained.datamodule().test_dataloader()))
    expected = (trained.logits(images) + trained.logits(images.flip(3))) / 2
    torch.testing.assert_close(flipped[: len(images)], expected)
    assert not torch.equal(plain, flipped)


def test_batch_norm_is_estimated_as_torch_does(run: Run) -> None:
    trained, expected = (load(run.folder, Said(precision="32-true")) for _ in range(2))
    evaluate(trained, Settings(reestimate_bn=True))
    loader = expected.datamodule(augment=True).train_dataloader()
    loader.set_epoch(run.result()["epochs"])
    update_bn(loader, expected.model)
    torch.testing.assert_close(trained.model.state_dict(), expected.model.state_dict())
    assert not trained.model.training


@pytest.mark.parametrize(
    ("overrides", "arguments", "words"),
    [
        (["bn=false"], ["--reestimate-bn"], "has no BatchNorm; leave --reestimate-bn out"),
        (["protocol=report"], ["--split", "val"], "nothing was held out"),
        ([], ["--tta", "turn"], "flip"),
        ([], ["--mean", "0.5"], "--mean takes three numbers"),
        ([], ["--std", "a,b,c"], "--std a,b,c: numbers joined by commas"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line(
    lab: Lab, command: Lab, overrides: list[str], arguments: list[str], words: str
) -> None:
    (run,) = lab(*TINY, "name=x", *overrides).runs
    outcome = command(run.folder, *arguments)
    assert outcome.code == 2
    assert outcome.stderr.startswith("error: ")
    assert words in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_what_is_no_network_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from cifar_lab import evaluate\n"
        "sys.argv = ['evaluate', 'nowhere']\n"
        "try: evaluate.main()\n"
        "except SystemExit as end: sys.exit(10 * ('torch' in sys.modules) + end.code)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "nowhere does not exist" in ended.stderr


def test_missing_images_are_one_line_that_says_where_to_put_them(
    command: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    path = tmp_path / "best_model_ReLU_CrossEntropy_Adam_StepLR_8842.pth"
    torch.save(ReportCNN((4, 4, 4)).state_dict(), path)
    outcome = command(path, "--data-root", tmp_path)
    assert outcome.code == 2
    note, error = outcome.stderr.splitlines()
    assert note.startswith("note: ")
    assert "inputs normalised by mean 0.4914" in note
    assert f"no CIFAR-10 in {tmp_path}" in error


@pytest.mark.data
def test_a_file_alone_is_evaluated_on_cifar10(command: Lab, tmp_path: Path) -> None:
    path = tmp_path / "best_model_LeakyReLU_CrossEntropy_Adam_StepLR_8842.pth"
    torch.save(ReportCNN((4, 4, 4)).state_dict(), path)
    outcome = command(path, "--json")
    (told,) = json.loads(outcome.stdout)
    assert told["images"] == 10_000
    assert told["own_test_acc"] is None
    assert len(told["temperature"]) == 2
    assert (tmp_path / f"{path.stem}-evaluation" / "test" / "reliability.png").exists()
