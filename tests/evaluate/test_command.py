"""`python -m cifar_lab.evaluate`: numbers and figures of trained networks."""

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch.optim.swa_utils import update_bn

from cifar_lab.evaluate import main
from cifar_lab.evaluate.evaluating import Settings, evaluate
from cifar_lab.runs import Run
from cifar_lab.runs.labels import NO_PROBABILITIES
from cifar_lab.trained import Overrides, load
from tests.conftest import Train, names, refusal
from tests.kinds_of_runs import FINISHED, change
from tests.report_networks import ReportCNN

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(called: Command) -> Command:
    """Run `python -m cifar_lab.evaluate` with arguments in this process; return the exit code, stdout and stderr."""
    return partial(called, main)


@pytest.fixture
def run(trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A finished run in the current folder."""
    monkeypatch.chdir(tmp_path)
    return trained(*FINISHED)


def test_an_evaluation_gives_the_runs_own_accuracy_on_either_split_and_writes_files(run: Run, command: Command) -> None:
    code, out, err = command(run.folder)
    assert code == 0, err
    folder = run.folder / "evaluation" / "test"
    told = json.loads((folder / "evaluation.json").read_text())
    assert told["own_test_acc"] == run.result()["test/acc"] == pytest.approx(told["acc"])
    assert told["loss"] == pytest.approx(run.result()["test/loss"], rel=1e-5)
    assert told["confusion_matrix"] == run.result()["confusion_matrix"]
    assert "synthetic" in told["data"]
    for fact in (f"{told['acc']:.2%}", f"{told['ece']:.2%}", f"{told['nll']:.4f}", f"{told['temperature']:.3f}"):
        assert fact in out
    files = {path.name for path in folder.iterdir()}
    assert {"per_class.csv", "answers.npz", "confusion_matrix.png", "reliability.png", "mistakes.png"} <= files
    with np.load(folder / "answers.npz") as answers:
        assert (answers["logits"].argmax(1) == answers["labels"]).mean() == pytest.approx(told["acc"])
    _, out, _ = command(run.folder, "--json", "--split", "val")
    (told,) = json.loads(out)
    assert (told["split"], told["images"]) == ("val", run.result()["val_size"])
    assert told["acc"] == pytest.approx(run.result()["val/acc"])
    assert told["temperature"] is told["ece_scaled"] is None  # not fitted on the images that it is measured on


def test_all_runs_of_a_folder_are_compared_and_an_unusable_one_does_not_stop_the_others(
    run: Run, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tables and figures take the most time.
    monkeypatch.setattr("cifar_lab.evaluate.evaluating.write", lambda evaluation, folder: [folder / "evaluation.json"])
    for name in ("a", "b", "c"):
        shutil.copytree(run.folder, tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "curves.png").write_bytes(b"no weights")
    shutil.rmtree(tmp_path / "sweep" / "b" / "weights")
    shutil.rmtree(tmp_path / "sweep" / "b" / "checkpoints")
    code, out, err = command("sweep")
    assert code == 1
    names(err, "sweep/b")
    first, third = (line.split() for line in out.splitlines()[-2:])
    assert (first[0], third[0]) == ("sweep/a", "sweep/c")
    assert first[1:] == third[1:]
    assert f"{run.result()['test/acc']:.2%}" in first
    (tmp_path / "empty").mkdir()
    refusal(command("empty"), "empty")


def test_calibration_is_marked_if_the_loss_does_not_train_probabilities(
    run: Run, trained: Train, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        "cifar_lab.evaluate.figures.reliability", lambda panels, title: titles.append(title) or Figure()
    )
    of_mse = trained(*FINISHED, "loss=mse", name="mse")
    code, out, err = command(run.folder, of_mse.folder)
    assert code == 0
    assert [NO_PROBABILITIES in title for title in titles] == [False, True]
    own, marked = (
        json.loads((each.folder / "evaluation" / "test" / "evaluation.json").read_text()) for each in (run, of_mse)
    )
    assert own["calibration_note"] is None
    assert marked["calibration_note"] == NO_PROBABILITIES
    assert out.count(NO_PROBABILITIES) == 2 and err.count(NO_PROBABILITIES) == 1
    first, second, below = out.splitlines()[-3:]
    assert " * " not in first and " * " in second and below.startswith("* ")
    code, _, err = command(run.folder)
    assert (code, err) == (0, "")
    named = shutil.copy(of_mse.chosen_weights(), run.folder.parent)  # a bare weight file, named like the report's
    assert [load(Path(path)).gives_probabilities for path in (run.folder, of_mse.folder, named)] == [True, False, False]


def test_networks_of_other_data_or_classes_or_without_batch_norm_are_refused(run: Run) -> None:
    network = load(run.folder)
    facts = {"options": {"data": "synthetic"}}
    alone = dataclasses.replace(network, run=None, config=None, facts=facts, label="x.safetensors")
    with pytest.raises(ValueError, match=r"x\.safetensors .*data=synthetic"):
        evaluate(alone, Settings())
    fewer = copy.deepcopy(network.model)
    fewer.fc_layers[6] = torch.nn.Linear(256, 5)
    with pytest.raises(ValueError, match=r"\b5\b"):
        evaluate(dataclasses.replace(network, model=fewer.eval()), Settings())
    without_bn = dataclasses.replace(network, model=ReportCNN((4, 4, 4), bn=False).eval())
    with pytest.raises(ValueError, match="--reestimate-bn"):
        evaluate(without_bn, Settings(reestimate_bn=True))


def test_the_mean_over_an_image_and_its_mirror_is_symmetric(run: Run) -> None:
    trained = load(run.folder)
    nameless = dataclasses.replace(trained, classes=[])
    plain, flipped = (evaluate(nameless, Settings(tta=tta)) for tta in (None, "flip"))
    images, _ = next(iter(trained.datamodule().test_dataloader()))
    expected = (trained.logits(images) + trained.logits(images.flip(3))) / 2
    torch.testing.assert_close(flipped.answers.logits[: len(images)], expected)
    assert not torch.equal(plain.answers.logits, flipped.answers.logits)
    assert [row["class"] for row in plain.result["per_class"]][:2] == ["0", "1"]  # logits without class names


def test_batch_norm_statistics_are_estimated_as_by_torch(run: Run) -> None:
    trained, expected = (load(run.folder, Overrides(precision="32-true")) for _ in range(2))
    evaluate(trained, Settings(reestimate_bn=True))
    loader = expected.datamodule(augment=True).train_dataloader()
    loader.set_epoch(run.result()["epochs"])
    update_bn(loader, expected.model)
    torch.testing.assert_close(trained.model.state_dict(), expected.model.state_dict())
    assert not trained.model.training


def test_impossible_requests_give_a_one_line_error(run: Run, command: Command) -> None:
    change(run, protocol={"val_fraction": 0.0}, data={"val_fraction": 0.0})
    for option, value, fact in (
        *(("--split", "val", "--split val"), ("--tta", "turn", "flip")),
        *(("--mean", "0.5", "1"), ("--std", "a,b,c", "a,b,c")),
    ):
        refusal(command(run.folder, option, value), option, fact)
    assert not (run.folder / "evaluation").exists()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A bare weight file, named like the report's."""
    path = tmp_path / "best_model_ReLU_CrossEntropy_Adam_StepLR_8842.pth"
    torch.save(ReportCNN((4, 4, 4)).state_dict(), path)
    return path


def test_missing_images_give_a_one_line_error_that_says_where_to_put_them(
    published: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIFAR_LAB_DATA", raising=False)
    code, out, err = command(published, "--data-root", published.parent)
    assert (code, out) == (2, "")
    note, error = err.splitlines()
    assert note.startswith(f"note: {published}: ") and "0.4914" in note
    names(error, published.parent, "data.root=", "CIFAR_LAB_DATA")


@pytest.mark.data
def test_a_bare_weight_file_is_evaluated_on_cifar10(published: Path, command: Command) -> None:
    _, out, _ = command(published, "--json")
    (told,) = json.loads(out)
    assert told["images"] == 10_000
    assert told["own_test_acc"] is told["temperature"] is None
    assert (published.with_name(f"{published.stem}-evaluation") / "test" / "reliability.png").exists()
