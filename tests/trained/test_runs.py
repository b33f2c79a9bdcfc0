"""A run's network, as its test had it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cifar_lab.trained import Said, load
from tests.conftest import TINY, Outcome

Lab = Callable[..., Outcome]


def accuracy(path: Path, said: Said | None = None) -> float:
    trained = load(path, said)
    right = total = 0
    for images, labels in trained.datamodule().test_dataloader():
        right += int((trained.logits(images).argmax(1) == labels).sum())
        total += len(labels)
    return right / total


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("averaging=ema", "averaging.decay=0.5", "activation=mish"),
        ("averaging=swa", "optimizer=sgd", "averaging.start=0.5"),
        ("protocol=report", "bn=false", "data.mean=[0.5,0.5,0.5]"),
        ("trainer.precision=bf16-mixed",),
    ],
    ids=" ".join,
)
def test_a_runs_network_has_the_runs_test_accuracy(lab: Lab, arguments: tuple[str, ...]) -> None:
    outcome = lab(*TINY, "name=x", *arguments)
    assert outcome.code == 0, outcome.stderr
    (run,) = outcome.runs
    assert accuracy(run.folder, Said(precision=run.result()["precision"])) == pytest.approx(run.result()["test/acc"])


def test_a_run_is_read_in_another_folder(lab: Lab, tmp_path: Path) -> None:
    (run,) = lab(*TINY, "name=x").runs
    shutil.move(run.folder, tmp_path / "moved")
    trained = load(tmp_path / "moved")
    assert trained.facts["test/acc"] == trained.run.result()["test/acc"]  # type: ignore[union-attr]
    assert trained.architecture == "cnn bn=true"
    assert not trained.assumed


def test_a_file_of_a_run_has_the_runs_configuration(lab: Lab) -> None:
    (run,) = lab(*TINY, "name=x", "activation=gelu", "data.mean=[0.1,0.2,0.3]").runs
    (weights,) = run.weights.glob("*.pth")
    for path in (weights, run.best_checkpoint):
        trained = load(path)
        assert trained.making["activation"]["_target_"] == "torch.nn.GELU"
        assert list(trained.mean) == [0.1, 0.2, 0.3]
        torch.testing.assert_close(trained.model.state_dict(), load(run.folder).model.state_dict())


def test_weights_of_another_network_are_one_line(lab: Lab) -> None:
    (run,) = lab(*TINY, "name=x").runs
    (weights,) = run.weights.glob("*.pth")
    state = torch.load(weights, weights_only=True)
    torch.save({name: value for name, value in state.items() if not name.startswith("conv_layers.1.")}, weights)
    with pytest.raises(ValueError, match=r"is cnn filters=\[4,4,4\] bn=false; its network is cnn bn=true"):
        load(run.folder)


def test_what_a_run_says_itself_cannot_be_said_otherwise(lab: Lab) -> None:
    (run,) = lab(*TINY, "name=x").runs
    with pytest.raises(ValueError, match="is a run, which says so itself; leave --activation, --mean out"):
        load(run.folder, Said(activation="relu", mean=(0.5, 0.5, 0.5)))
    with pytest.raises(ValueError, match="bn=true; asked for vgg_a bn=false"):
        load(run.folder, Said(model="vgg_a", bn=False))


def test_a_run_without_weights_is_one_line(lab: Lab) -> None:
    (run,) = lab(*TINY, "name=x").runs
    shutil.rmtree(run.weights)
    assert load(run.folder).weights == run.best_checkpoint
    shutil.rmtree(run.checkpoints)
    with pytest.raises(ValueError, match="holds no weights"):
        load(run.folder)


def test_of_several_files_the_one_of_the_result_counts(lab: Lab) -> None:
    (run,) = lab(*TINY, "name=x").runs
    (weights,) = run.weights.glob("*.pth")
    for digits in ("0000", "9999"):
        shutil.copy(weights, run.weights / f"{weights.stem[:-4]}{digits}.pth")
    assert load(run.folder).weights == weights


def test_a_component_from_outside_runs_only_where_it_is_allowed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_lab.py").write_text("import torch\nclass Mine(torch.nn.ReLU): ...\n")
    conf = tmp_path / "conf" / "activation"
    conf.mkdir(parents=True)
    (conf / "mine.yaml").write_text("_target_: my_lab.Mine\n_partial_: true\n")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = lab(*TINY, "name=x", "--config-dir", str(tmp_path / "conf"), "activation=mine", "allow=[my_lab]")
    assert outcome.code == 0, outcome.stderr
    (run,) = outcome.runs
    with pytest.raises(ValueError, match="--allow my_lab lets it run"):
        load(run.folder)
    assert load(run.folder, Said(allow=["my_lab"])).facts["test/acc"] == run.result()["test/acc"]
