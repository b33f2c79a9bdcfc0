"""A run's network, as its test used it."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from cifar_lab.machine import hardware
from cifar_lab.runs import Run
from cifar_lab.trained import Overrides, load
from tests.conftest import TINY, Lab, Train
from tests.kinds_of_runs import AVERAGED, EMA, FINISHED, WITHOUT_BN, change
from tests.report_networks import ReportCNN, ReportResNet, ReportVGG

ANY_MODEL = tuple(word for word in FINISHED if not word.startswith("model."))
SMALL_VGG = "model.stages=[[4],[8],[8,8],[8,8],[8,8]] model.hidden=8"
STAGES = ((4,), (8,), (8, 8), (8, 8), (8, 8))
LEAKY = partial(nn.LeakyReLU, 0.1)


@pytest.fixture
def run(trained: Train) -> Run:
    """A finished run."""
    return trained(*FINISHED)


@pytest.fixture
def weight_file(run: Run) -> Path:
    """The run's weight file."""
    (weights,) = run.weights.glob("*.pth")
    return weights


def accuracy(path: Path, overrides: Overrides | None = None) -> float:
    trained = load(path, overrides)
    right = total = 0
    for images, labels in trained.datamodule().test_dataloader():
        right += int((trained.logits(images).argmax(1) == labels).sum())
        total += len(labels)
    return right / total


@pytest.mark.parametrize(
    "words",
    [FINISHED, AVERAGED, *(pytest.param(words, marks=pytest.mark.slow) for words in (WITHOUT_BN, EMA))],
    ids=["plain", "averaged", "without bn", "ema"],
)
def test_a_runs_network_has_the_runs_test_accuracy(trained: Train, words: tuple[str, ...]) -> None:
    run = trained(*words)
    assert accuracy(run.folder, Overrides(precision=run.result()["precision"])) == pytest.approx(
        run.result()["test/acc"]
    )


@pytest.mark.parametrize(
    ("words", "model"),
    [
        pytest.param(FINISHED, ReportCNN((4, 4, 4), LEAKY), id="cnn"),
        *(
            pytest.param((*ANY_MODEL, "epochs=1", *words.split()), model, marks=pytest.mark.slow, id=words)
            for words, model in (
                ("model.filters=[4,4,4] bn=false", ReportCNN((4, 4, 4), LEAKY, bn=False)),
                ("model=resnet14 model.widths=[8,8,16]", ReportResNet((8, 8, 16))),
                (f"model=vgg_a {SMALL_VGG} bn=false", ReportVGG(STAGES, 8)),
                (f"model=vgg_a {SMALL_VGG} bn=true", ReportVGG(STAGES, 8, bn=True)),
                (
                    "model=vgg_a_light model.stages=[[4],[8]] model.hidden=8 bn=false",
                    ReportVGG(STAGES[:2], 8, by_stage=True),
                ),
                (f"model=vgg_a_dropout {SMALL_VGG} bn=false", ReportVGG(STAGES, 8, by_stage=True, dropout=True)),
            )
        ),
    ],
)
def test_the_reports_classes_load_a_runs_weights(trained: Train, words: tuple[str, ...], model: nn.Module) -> None:
    run = trained(*words)
    (kept,) = run.weights.glob("*.pth")
    state = torch.load(kept, weights_only=True)
    assert list(state) == list(model.state_dict())
    model.load_state_dict(state, strict=True)
    own, images = load(run.folder), torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.eval()(own.normalised(images))
    torch.testing.assert_close(own.model(own.normalised(images)), expected)


def test_a_weight_file_of_a_run_has_the_runs_configuration(run: Run, weight_file: Path) -> None:
    gelu = {"_target_": "torch.nn.GELU", "_partial_": True}
    change(run, activation=gelu, model={"activation": gelu}, data={"mean": [0.1, 0.2, 0.3]})
    for path in (weight_file, run.best_checkpoint):
        trained = load(path)
        assert trained.making["activation"]["_target_"] == "torch.nn.GELU"
        assert list(trained.mean) == [0.1, 0.2, 0.3]
        torch.testing.assert_close(trained.model.state_dict(), load(run.folder).model.state_dict())


def test_a_network_other_than_the_runs_or_the_requested_one_is_refused(run: Run, weight_file: Path) -> None:
    with pytest.raises(ValueError, match="--activation, --mean"):
        load(run.folder, Overrides(activation="relu", mean=(0.5, 0.5, 0.5)))
    with pytest.raises(ValueError, match=r"bn=true.* vgg_a bn=false"):
        load(run.folder, Overrides(model="vgg_a", bn=False))
    state = torch.load(weight_file, weights_only=True)
    torch.save({name: value for name, value in state.items() if not name.startswith("conv_layers.1.")}, weight_file)
    with pytest.raises(ValueError, match=r"cnn filters=\[4,4,4\] bn=false.* cnn bn=true .*conv_layers\.1\."):
        load(run.folder)


def test_a_run_without_its_weight_file_uses_its_best_checkpoint_and_fails_without_both(run: Run) -> None:
    shutil.rmtree(run.weights)
    assert load(run.folder).weights == run.best_checkpoint
    shutil.rmtree(run.checkpoints)
    with pytest.raises(ValueError, match=re.escape(str(run.folder))):
        load(run.folder)


def test_the_weight_file_of_the_result_is_used_if_there_are_several(run: Run, weight_file: Path) -> None:
    for digits in ("0000", "9999"):
        shutil.copy(weight_file, run.weights / f"{weight_file.stem[:-4]}{digits}.pth")
    trained = load(run.folder)
    assert (trained.weights, trained.architecture) == (weight_file, "cnn bn=true")
    assert not trained.assumed


def test_a_users_component_runs_only_if_it_is_allowed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_lab.py").write_text("import torch\n\n\nclass Mine(torch.nn.ReLU): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    change(run, model={"activation": {"_target_": "my_lab.Mine", "_partial_": True}})
    with pytest.raises(ValueError, match=r"my_lab\.Mine .*--allow my_lab"):
        load(run.folder)
    trained = load(run.folder, Overrides(allow=["my_lab"]))
    assert {type(module).__name__ for module in trained.model.modules()} >= {"Mine"}


def test_a_users_network_may_have_a_part_called_model(lab: Lab, outside: Callable[..., tuple[str, ...]]) -> None:
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
    tiny = (word for word in TINY if not word.startswith(("model.", "epochs=")))
    outcome = lab(*tiny, "epochs=1", "logger=none", "name=x", *chosen)
    assert outcome.code == 0, outcome.stderr
    (run,) = outcome.runs
    for path in (run.folder, run.best_checkpoint):
        trained = load(path, Overrides(allow=["parts_lab"]))
        assert set(trained.model.state_dict()) == {"model.weight", "model.bias", "head.weight", "head.bias"}


def test_a_folder_whose_configuration_calls_more_than_a_network_is_refused(run: Run, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    attack = {"_target_": "cifar_lab.data.download.shutil.rmtree", "path": str(victim)}
    own = yaml.safe_load(run.config_file.read_text())["model"]["activation"]
    change(run, model={"activation": attack})
    with pytest.raises(ValueError, match=r"cifar_lab\.data\.download\.shutil\.rmtree"):
        load(run.folder)
    assert victim.exists()
    change(run, model={"activation": own, "filters": [20_000_000, 20_000_000, 4]})
    with pytest.raises(ValueError, match="cnn bn=true"):
        load(run.folder)


def test_an_accuracy_is_known_only_for_the_chosen_weights_and_class_names_are_plain(
    run: Run, weight_file: Path
) -> None:
    result = run.result()
    run.result_file.write_text(json.dumps({**result, "classes": ["\x1b[31mred", *result["classes"][1:]]}))
    trained = load(run.folder)
    assert "test/acc" in trained.facts
    assert trained.classes[0] == "?[31mred"
    snapshot = run.folder / "snapshots" / "epoch_0001.pt"
    snapshot.parent.mkdir()
    shutil.copy(weight_file, snapshot)
    facts = load(snapshot).facts
    assert "test/acc" not in facts
    assert facts["fingerprint"] == result["fingerprint"]


def test_the_best_epoch_so_far_of_a_running_run_is_used(run: Run) -> None:
    run.result_file.unlink()
    run.set_state("interrupted")
    trained = load(run.folder)
    assert trained.weights == run.best_checkpoint
    (assumed,) = trained.assumed
    assert "best.ckpt" in assumed


@pytest.mark.parametrize("changes", [{"accelerator": "tpu"}, {"precision": "16-mixed"}], ids=["tpu", "16-mixed"])
def test_hardware_that_this_machine_lacks_is_replaced_with_a_note(run: Run, changes: dict[str, str]) -> None:
    change(run, trainer={"precision": "32-true", **changes})
    run.set_state("finished", precision=changes.get("precision", "32-true"))
    trained = load(run.folder)
    (overrides,) = trained.assumed
    (missing,) = changes.values()
    assert missing in overrides
    device = hardware.training_device("auto") if "accelerator" in changes else "cpu"
    assert (trained.native.device, trained.native.precision) == (device, "32-true")
