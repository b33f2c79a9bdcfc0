"""Training that starts from the weights of a different network, and frozen layers."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from cifar_lab.config import resolved
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.models import CNN, SpeedCNN
from cifar_lab.optimizers import make_optimizer
from cifar_lab.runs import Run, read_checkpoint
from cifar_lab.runs.fingerprints import fingerprint
from cifar_lab.train.classifier import Classifier
from cifar_lab.train.freezing import freeze
from tests.comparison import differences
from tests.conftest import TINY, Compose, Lab, Train, refusal
from tests.faults import Fault, armed
from tests.train.fits import fit

PLAIN = (*TINY, "logger=none", "trainer.precision=32-true")
FROZEN = "freeze=[conv_layers]"


def weights_of(run: Run, name: str = "last.ckpt") -> dict[str, Any]:
    state = read_checkpoint(run.checkpoints / name)["state_dict"]
    return {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}


def same(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {name for name in one if torch.equal(one[name], other[name])}


@pytest.mark.filterwarnings("ignore:Found 3 module")
def test_frozen_layers_get_no_gradient_and_no_optimizer_and_keep_their_statistics() -> None:
    model = CNN((4, 4, 4))
    freeze(model, ["conv_layers", "fc_layers.0.bias"])
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("conv_")} | {"fc_layers.0.bias"}
    optimizer, _ = make_optimizer(torch.optim.Adam, model)
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    assert held == {id(weight) for weight in model.parameters() if weight.requires_grad}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    module = Classifier(model, nn.functional.cross_entropy, torch.optim.Adam)
    fit(module)
    assert all(weight.grad is None for name, weight in model.named_parameters() if name in frozen)
    update_bn([torch.rand(8, 3, 32, 32)], module)  # as averaging=swa does
    kept = {name for name in before if name.startswith("conv_layers")} | {"fc_layers.0.bias"}
    assert kept <= same(before, model.state_dict())
    assert "fc_layers.6.weight" not in same(before, model.state_dict())
    module.train()
    assert not any(each.training for each in model.modules() if isinstance(each, nn.BatchNorm2d))


def test_frozen_statistics_stay_if_batch_norm_is_synchronised() -> None:
    model: Any = CNN((4, 4, 4))
    freeze(model, ["conv_layers"])
    module = Classifier(model, nn.functional.cross_entropy, torch.optim.Adam)
    module.model = nn.SyncBatchNorm.convert_sync_batchnorm(module.model)
    norms = [each for each in module.train().modules() if isinstance(each, nn.SyncBatchNorm)]
    assert len(norms) == 3 and not any(norm.training for norm in norms)
    assert all(norm.running_mean is not None for norm in norms)


@pytest.mark.parametrize(
    ("names", "facts"),
    [
        (["conv"], "freeze=[conv] network conv_layers fc_layers"),
        (["conv_layers.99"], "freeze=[conv_layers.99] conv_layers has 0, 1"),
        ([""], "freeze=[] conv_layers"),
        (["conv_layers", "fc_layers"], "leaves no weight"),
    ],
)
def test_parts_that_cannot_be_frozen_are_refused(names: list[str], facts: str) -> None:
    with pytest.raises(UsageError) as error:
        freeze(CNN((4, 4, 4)), names)
    assert all(fact in str(error.value) for fact in facts.split())


def test_weights_and_frozen_layers_can_be_axes_of_a_sweep(lab: Lab, trained: Train) -> None:
    first = trained(*PLAIN, name="first")
    outcome = lab(*PLAIN, "-m", "weights=first,null", f"freeze=[],{FROZEN[7:]}", "epochs=1", "hydra.sweep.dir=s")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.count("weights=first: 27 of 27 tensors loaded") == 2
    assert "eval mode" not in outcome.stderr
    start = torch.load(first.chosen_weights(), weights_only=True)
    convolutional = {name for name in start if name.startswith("conv_layers")}
    jobs = [run for run in outcome.runs if run.folder.parent.name == "s"]
    settings = [(run.config()["weights"], run.config()["freeze"]) for run in jobs]
    assert len(jobs) == 4 and len({run.config()["weights_digest"] for run in jobs}) == 2
    for setting, run in zip(settings, jobs, strict=True):
        assert (convolutional <= same(start, weights_of(run))) == (setting == ("first", ["conv_layers"]))
    head = [line for line in outcome.stdout.splitlines() if line.startswith("weights ")]
    assert head and "freeze" in head[0]


def test_a_run_from_weights_resumes_bitwise_without_their_file(lab: Lab, trained: Train) -> None:
    shutil.copy(trained(*PLAIN, name="first").chosen_weights(), "start.pth")
    words = (*PLAIN, "weights=start.pth", FROZEN, "averaging=ema", "scheduler=constant")
    assert lab(*words, "epochs=1", "hydra.run.dir=run").code == 0
    assert lab(*words, "hydra.run.dir=whole").code == 0
    Path("start.pth").unlink()
    outcome = lab("resume=run", "epochs=2")
    assert outcome.code == 0, outcome.stderr
    (line,) = (line for line in outcome.stdout.splitlines() if line.startswith("epochs=2: 1 before"))
    assert "ConstantLR" in line and "epoch 2 continues at lr 0.001" in line
    assert not differences(Run("run"), Run("whole")) - {"overrides"}


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("scheduler=step", "scheduler.step_size=2"), "StepLR|3 continues at lr 0.0001|5 has 1e-05"),
        (
            ("scheduler=warm_restarts", "scheduler.T_0=1"),
            "WarmRestarts|3 continues at lr 0.0005|5 has 0.00085",
        ),
        (
            ("scheduler=cosine", "scheduler.T_max=2"),
            "CosineAnnealingLR|3 continues at lr 1e-06|5 has 0.001",
        ),
        (("scheduler=plateau",), "ReduceLROnPlateau|3 continues at lr 0.001|val/loss"),
        (
            ("scheduler=linear", "scheduler.total_steps=45"),
            "LinearDecay|3 continues at lr 0.0006|5 has 0.0002",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_message_on_more_epochs_gives_the_schedules_rates(
    lab: Lab, trained: Train, words: tuple[str, ...], facts: str
) -> None:
    run = trained(*PLAIN, *words)
    outcome = lab("resume=run", "epochs=5")
    assert outcome.code == 0, outcome.stderr
    (line,) = (line for line in outcome.stdout.splitlines() if line.startswith("epochs=5: 2 before"))
    assert all(fact in line for fact in facts.split("|")), line
    rates = run.steps()["lr"]
    assert f"continues at lr {rates[18]:.3g}" in line
    assert "plateau" in words[0] or f"has {rates[36]:.3g}" in line


def test_weights_content_and_frozen_layers_are_part_of_the_identity(composed: Compose, tmp_path: Path) -> None:
    def identity(*words: str) -> str:
        return fingerprint(resolved(composed(*words)))

    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        torch.save({"x": torch.tensor(value)}, tmp_path / "same.pth")  # torch saves the file's name in the file
        (tmp_path / "same.pth").rename(tmp_path / name)
    one, other, third = (identity(f"weights={tmp_path / name}") for name in "abc")
    assert one == other and len({one, third, identity()}) == 3
    assert identity("freeze=[]", "weights=null") == identity()
    assert identity("freeze=[b,a]") == identity("freeze=[a,b,a]") != identity("freeze=[a]")


def test_weights_that_do_not_fit_are_named(lab: Lab, trained: Train) -> None:
    trained(*PLAIN, name="first")
    outcome = lab(*PLAIN, "weights=first", "data.num_train=40", "model.filters=[4,4,8]", "epochs=1")
    assert outcome.code == 0, outcome.stderr
    lines = [line for line in outcome.stdout.splitlines() if line.startswith("weights=first")]
    assert len(lines) == 2 and "different shape: conv_layers.8.weight, " in lines[1]
    torch.save({"x": torch.ones(3)}, "x.pth")
    refusal(lab(*PLAIN, "weights=x.pth"), "weights=x.pth", "x", "conv_layers.0.weight")


def test_a_whitening_layer_is_loaded_from_the_file(lab: Lab) -> None:
    widths = (4, 4, 4)
    model = SpeedCNN(widths)
    torch.save(model.state_dict(), "x.pth")
    words = [word for word in PLAIN if not word.startswith("model.")]
    outcome = lab(*words, "model=speed_cnn", "model.widths=[4,4,4]", "weights=x.pth", "epochs=1")
    assert outcome.code == 0, outcome.stderr
    assert "whiten.weight" in same(model.state_dict(), weights_of(outcome.runs[0]))


@pytest.mark.parametrize("named", ["missing.pth", "folder", ""])
def test_missing_weights_are_refused_before_anything_trains(lab: Lab, named: str) -> None:
    Path("folder").mkdir()
    outcome = lab(*PLAIN, "-m", f"weights=null,{named}" if named else "weights=")
    refusal(outcome, f"weights={named}", "name")
    assert not outcome.runs


def test_weights_may_come_from_a_run_whose_name_has_hydras_special_characters(lab: Lab, trained: Train) -> None:
    for name in ("loss=ce,seed=1", "loss=ce,seed=2"):
        shutil.copytree(trained(*PLAIN, name=name.replace(",", "")).folder, name)
    outcome = lab(*PLAIN, "epochs=1", "weights=loss=ce,seed=1")
    assert outcome.code == 0, outcome.stderr
    assert "weights=loss=ce,seed=1: 27 of 27" in outcome.stdout


def test_weights_that_change_between_check_and_training_are_refused(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, trained: Train
) -> None:
    from cifar_lab.train import starting

    run = trained(*PLAIN, name="first")
    config = resolved(composed(*PLAIN, f"weights={run.folder}"))
    monkeypatch.setattr(starting, "digest", lambda named: "another")
    with pytest.raises(UsageError, match=r"weights=.*has changed since the command began"):
        starting.load_weights(CNN((4, 4, 4)), config)


def test_an_interrupted_run_with_frozen_layers_and_an_average_resumes_bitwise(lab: Lab, trained: Train) -> None:
    words = (*PLAIN, "weights=first", FROZEN, "averaging=swa", "averaging.start=0.5")
    start = torch.load(trained(*PLAIN, name="first").chosen_weights(), weights_only=True)
    assert lab(*words, "hydra.run.dir=whole").code == 0
    with armed(Fault("batch", 5, signal.SIGTERM)):
        assert lab(*words, "hydra.run.dir=run").code == 143
    assert lab("resume=run").code == 0
    assert not differences(Run("run"), Run("whole")) - {"overrides"}
    (file,) = Run("run").weights.iterdir()
    frozen = {name for name in start if name.startswith("conv_layers")}
    assert frozen <= same(start, torch.load(file, weights_only=True))
