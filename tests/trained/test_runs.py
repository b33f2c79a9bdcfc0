"""A run's network, as its test had it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

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
    lab: Lab, outside: Callable[..., tuple[str, ...]]
) -> None:
    source = "import torch\nclass Mine(torch.nn.ReLU): ...\n"
    chosen = outside("my_lab", source, "activation", "_target_: my_lab.Mine\n_partial_: true\n")
    outcome = lab(*TINY, "name=x", *chosen)
    assert outcome.code == 0, outcome.stderr
    (run,) = outcome.runs
    with pytest.raises(ValueError, match="--allow my_lab lets it run"):
        load(run.folder)
    assert load(run.folder, Said(allow=["my_lab"])).facts["test/acc"] == run.result()["test/acc"]


def test_a_network_from_outside_may_call_its_parts_model(lab: Lab, outside: Callable[..., tuple[str, ...]]) -> None:
    source = (
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, num_classes=10):\n"
        "        super().__init__()\n"
        "        self.model = torch.nn.Conv2d(3, 4, 3)\n"
        "        self.head = torch.nn.Linear(4, num_classes)\n"
        "    def forward(self, images):\n"
        "        return self.head(self.model(images).mean((2, 3)))\n"
    )
    chosen = outside("parts_lab", source, "model", "_target_: parts_lab.Net\nnum_classes: 10\n")
    outcome = lab(*(word for word in TINY if not word.startswith("model.")), "name=x", *chosen)
    assert outcome.code == 0, outcome.stderr
    (run,) = outcome.runs
    for path in (run.folder, run.best_checkpoint):
        trained = load(path, Said(allow=["parts_lab"]))
        assert set(trained.model.state_dict()) == {"model.weight", "model.bias", "head.weight", "head.bias"}


def test_a_folder_that_makes_more_than_a_network_is_refused(lab: Lab, tmp_path: Path) -> None:
    (run,) = lab(*TINY, "name=x").runs
    victim = tmp_path / "victim"
    victim.mkdir()
    config = yaml.safe_load(run.config_file.read_text())
    attack = {"_target_": "cifar_lab.data.archive.unpack", "temporary": str(victim), "archive": "x"}
    run.config_file.write_text(yaml.safe_dump({**config, "model": {**config["model"], "activation": attack}}))
    with pytest.raises(ValueError, match="lies outside this project"):
        load(run.folder)
    assert victim.exists()
    run.config_file.write_text(
        yaml.safe_dump({**config, "model": {**config["model"], "filters": [20_000_000, 20_000_000, 4]}})
    )
    with pytest.raises(ValueError, match="its network is cnn bn=true"):
        load(run.folder)


def test_an_accuracy_is_known_of_the_chosen_weights_alone(lab: Lab) -> None:
    (run,) = lab(*TINY, "name=x", "callbacks=snapshots").runs
    assert "test/acc" in load(run.folder).facts
    facts = load(run.snapshots()[0]).facts
    assert "test/acc" not in facts
    assert facts["fingerprint"] == run.result()["fingerprint"]


def test_of_a_run_that_goes_on_the_best_epoch_so_far_counts(lab: Lab) -> None:
    (run,) = lab(*TINY, "name=x").runs
    run.result_file.unlink()
    run.set_state("interrupted")
    trained = load(run.folder)
    assert trained.weights == run.best_checkpoint
    assert trained.assumed == ["the run has not finished: its weights are those of best.ckpt"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accelerator": "tpu"}, "it was trained on tpu, which is not here"),
        ({"precision": "16-mixed"}, "it was trained in 16-mixed, which this machine does not do natively"),
    ],
)
def test_what_this_machine_has_not_is_replaced_and_said(lab: Lab, changes: dict[str, str], words: str) -> None:
    (run,) = lab(*TINY, "name=x", "trainer.precision=32-true").runs
    config = yaml.safe_load(run.config_file.read_text())
    run.config_file.write_text(yaml.safe_dump({**config, "trainer": {**config["trainer"], **changes}}))
    run.set_state("finished", precision=changes.get("precision", "32-true"))
    trained = load(run.folder)
    assert words in trained.assumed[0]
    assert (trained.native.device, trained.native.precision) == ("cpu", "32-true")


def test_names_of_classes_are_plain(lab: Lab) -> None:
    (run,) = lab(*TINY, "name=x").runs
    result = run.result()
    run.result_file.write_text(json.dumps({**result, "classes": ["\x1b[31mred", *result["classes"][1:]]}))
    assert load(run.folder).classes[0] == "?[31mred"
