import gc
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor

from cifar_lab.config import build
from cifar_lab.config.precedence import Loader
from cifar_lab.machine import hardware
from cifar_lab.machine.ranks import RankLostError
from cifar_lab.models import CNN
from cifar_lab.runs import Run, read_checkpoint
from cifar_lab.statistics.accuracies import wilson_interval
from cifar_lab.table.command import main as table
from cifar_lab.train import figures, fitting
from cifar_lab.train import run as train
from cifar_lab.train.assembly import make_classifier
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.classifier import Classifier
from cifar_lab.train.outcome import recording_outcome
from cifar_lab.train.summary import summary
from tests.comparison import equal
from tests.conftest import CHECKOUT, TINY, Called, Compose, Outcome, Train, holds, names, refusal

Lab = Callable[..., Outcome]
# Several tests read these runs, each of which is trained once.
PLAIN = (*TINY, "logger=none")
STOPPED = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-12", "epochs=20")
PROBED = (
    *("experiment=optimizer_sgd", *TINY, *STOPPED, "logger=csv", "data.train_size=30"),
    *("probe=gradient", "probe.every=5", "probe.at=[]", "probe.etas=[1]"),
)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _weights(run: Run) -> dict[str, Tensor]:
    return torch.load(next(run.weights.iterdir()), weights_only=True)


def _accuracy(state: dict[str, Tensor], composed: Compose) -> float:
    """Test accuracy of the network of `TINY` with these weights."""
    config = composed(*TINY)
    model = build(config.model).eval()
    model.load_state_dict(state)
    batches = build(config.data).test_dataloader()
    return sum((model(images).argmax(1) == labels).sum().item() for images, labels in batches) / 20


def _lines(run: Run) -> list[str]:
    """The last lines of a run's command: accuracy, data, protocol, epoch, seconds, perhaps probes, and folder."""
    return summary(run).splitlines()


def _numbers(line: str) -> list[str]:
    return re.findall(r"\d[\d.,]*%?(?!\w)", line.replace(", ", " "))


def test_a_run_leaves_a_complete_directory(lab: Lab, trained: Train, composed: Compose) -> None:
    outcome = lab(*TINY)
    assert (outcome.code, outcome.stderr) == (0, "")
    (run,) = outcome.runs
    assert run.folder.parts[-3:-1] == ("outputs", "cnn")
    assert outcome.stdout.endswith(summary(run) + "\n")
    left = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    assert {
        *(".hydra/config.yaml", ".hydra/overrides.yaml", "status.json", "result.json", "metrics.csv", "steps.npz"),
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
        *("figures/curves.png", "figures/learning_rate.png", "figures/confusion_matrix.png"),
    } <= left
    assert any(name.startswith("tensorboard/events.out.tfevents") for name in left)

    assert "${" not in run.config_file.read_text()
    assert run.config()["scheduler"]["T_max"] == 2
    assert yaml.safe_load(run.config_file.read_text())["data"]["num_train"] == 60

    result = run.result()
    page = (CHECKOUT / "docs" / "run_directory.md").read_text(encoding="utf-8")
    documented = page.partition("\n## result.json\n")[2]
    assert set(re.findall(r"^\| `([^`]+)` \|", documented, re.MULTILINE)) == result.keys()
    assert result["status"] == run.status()["state"] == "finished"
    assert result["num_parameters"] == sum(weight.numel() for weight in CNN(filters=(4, 4, 4)).parameters())
    assert result["overrides"] == list(TINY)
    assert result["train_size"] + result["val_size"] == 60
    assert np.sum(result["confusion_matrix"]) == result["test_size"] == 20
    assert np.trace(result["confusion_matrix"]) / 20 == pytest.approx(result["test/acc"])
    assert result["val/acc"] == run.metrics()["val/acc"].max()
    assert result["best_epoch"] == run.metrics()["val/acc"].argmax() + 1
    assert len(run.steps()["loss"]) == result["epochs"] * 9

    # The weights are the ones that the result measured.
    (weights,) = run.weights.iterdir()
    digits = f"{round(10_000 * result['test/acc']):04d}"
    assert weights.name == f"best_model_LeakyReLU_CrossEntropy_Adam_CosineAnnealingLR_{digits}.pth"
    state, best = _weights(run), read_checkpoint(run.best_checkpoint)
    assert best["epoch"] + 1 == result["best_epoch"]
    assert all(torch.equal(state[name], best["state_dict"][f"model.{name}"]) for name in state)
    assert _accuracy(state, composed) == pytest.approx(result["test/acc"], abs=0.1)  # perhaps measured in bf16

    # The same command gives the same bits with any logger.
    other = trained(*PLAIN)
    assert not other.tensorboard.exists()
    assert equal(_weights(run), _weights(other))
    assert all(np.array_equal(values, other.steps()[name]) for name, values in run.steps().items())
    assert result["fingerprint"] == other.result()["fingerprint"]


def test_an_experiment_stops_early_and_its_last_lines_give_the_result_and_the_cost_of_probes(trained: Train) -> None:
    run = trained(*PROBED)
    result, taken = run.result(), run.probes()
    accuracy, data, protocol, epoch, seconds, probes, folder = _lines(run)
    interval = [f"{bound:.2%}" for bound in wilson_interval(round(20 * result["test/acc"]), 20)]
    measured = [f"{result[name]:.2%}" for name in ("test/acc", "test/acc_final")]
    assert _numbers(accuracy) == [measured[0], "95", *interval, "20", measured[1]]
    assert "synthetic" in data
    assert _numbers(data) == ["30", "54"]
    assert "holdout" in protocol
    assert _numbers(epoch) == [str(result["best_epoch"]), str(result["epochs"])]
    assert _numbers(seconds) == [f"{result['seconds']:,.0f}", f"{result['images_per_second']:,.0f}"]
    assert folder.endswith(os.path.relpath(run.folder))
    assert result["probes"] == len(taken["step"]) == result["epochs"]  # each epoch has five steps
    assert result["probe_seconds"] == pytest.approx(taken["seconds"].sum(), abs=1e-3)
    steps = result["epochs"] * result["train_size"] / result["images_per_second"]
    share = result["probe_seconds"] / steps
    assert _numbers(probes) == [str(result["probes"]), f"{result['probe_seconds']:.1f}", f"{share:.1%}"]
    assert result["epochs"] == len(run.metrics()) < 20
    assert (result["published"], result["name"], result["train_size"]) == (0.7858, "optimizer_sgd", 30)
    assert not run.tensorboard.exists()
    assert (run.folder / "csv" / "metrics.csv").exists()
    assert not (trained(*PLAIN, name="plain").folder / "csv").exists()


def test_under_the_reports_protocol_the_test_set_chooses_the_epoch_and_the_schedule_is_as_configured(
    trained: Train,
) -> None:
    run = trained(*PLAIN, "protocol=report", "epochs=4", "scheduler.eta_min=1e-4")
    result, metrics = run.result(), run.metrics()
    assert (result["protocol"], result["train_size"]) == ("report", 60)
    assert result["test/acc"] == pytest.approx(result["val/acc"]) == pytest.approx(metrics["val/acc"].max())
    assert result["test/acc_final"] == pytest.approx(metrics["val/acc"].iloc[-1])
    assert "chosen on the test set" in _lines(run)[2]  # readers must be told
    expected = [1e-4 + 9e-4 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert metrics["train/lr"].tolist() == pytest.approx(expected, rel=1e-5)


def test_protocol_last_trains_on_all_images_and_tests_the_last_epochs_weights(trained: Train) -> None:
    words = (*PLAIN, "epochs=4", "scheduler.eta_min=1e-4")
    run, chosen = trained(*words, "protocol=last"), trained(*words, "protocol=report", name="report")
    result, of_last = run.result(), chosen.result()["test/loss_final"]
    assert chosen.result()["test/loss"] != of_last  # the two must differ for the next line to test anything
    assert result["test/loss"] == result["test/loss_final"] == of_last
    assert (result["protocol"], result["best_epoch"], result["train_size"]) == ("last", None, 60)
    assert not run.best_checkpoint.exists()
    assert "no epoch chosen" in _lines(run)[2]


def test_an_epoch_without_its_incomplete_batch_has_fewer_steps_and_images(trained: Train) -> None:
    run = trained(*TINY, "batch_size=20", "data.drop_last=true", "scheduler=one_cycle", "logger=none")
    assert len(run.steps()["loss"]) == 2 * 2 and run.result()["train_size"] == 40
    assert run.steps()["lr"].argmin() == 3  # the schedule ends with the run


@pytest.mark.parametrize("limit", ["null", "2", "0.4", "1.0", "9"])
def test_val_size_is_the_number_of_validated_images(limit: str, tmp_path: Path) -> None:
    counts: list[int] = []

    class Counting(Callback):
        def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            counts.append(len(batch[1]))

    sizes = ("data.num_test=250", "data.train_size=6", "protocol=report", "epochs=1")
    limits = (f"trainer.limit_val_batches={limit}", "trainer.limit_test_batches=1")
    result = train([*PLAIN, *sizes, *limits, f"hydra.run.dir={tmp_path / 'run'}"], [Counting()])
    assert result["val_size"] == sum(counts) > 0


def test_a_run_that_is_never_validated_tests_its_last_epoch(trained: Train) -> None:
    seldom = ("trainer.accumulate_grad_batches=2", "trainer.check_val_every_n_epoch=5")
    run = trained(*PLAIN, *seldom, "trainer.precision=bf16-mixed", "scheduler=one_cycle", "l1=1e-3")
    result, rates, metrics = run.result(), run.steps()["lr"], run.metrics()
    assert (result["best_epoch"], result["precision"]) == (None, "bf16-mixed")
    assert 0 <= result["val/acc"] <= 1
    assert result["test/acc"] == result["test/acc_final"]
    assert _numbers(_lines(run)[3]) == ["2"]
    assert len(rates) == 2 * 5
    assert rates[-1] == pytest.approx(1e-3 / 25 / 1e4, rel=1e-3)
    assert (metrics["train/objective"] > metrics["train/loss"] + 0.01).all()  # includes the L1 penalty


def test_the_composition_is_trained_as_composed(composed: Compose) -> None:
    config = composed(*TINY, "l1=1e-3", "grad_clip=0.25", "trainer.memory_format=channels_last")
    classifier = make_classifier(config, build(config.data), hardware.choose("cpu", memory_format="channels_last"))
    assert (classifier.l1, classifier.grad_clip) == (1e-3, 0.25)
    assert classifier.memory_format == torch.channels_last


def test_swas_result_is_that_of_the_averaged_weights_and_a_new_seed_gives_new_weights_for_the_same_images(
    trained: Train, composed: Compose
) -> None:
    averaged = ("averaging=swa", "averaging.start=0.5", "trainer.precision=32-true", "seed=1", "data.seed=0")
    run, other = trained(*PLAIN, *averaged), trained(*PLAIN, name="other")
    result = run.result()
    assert (result["best_epoch"], result["precision"]) == (None, "32-true")
    assert result["test/acc"] == result["test/acc_final"]
    assert _accuracy(_weights(run), composed) == pytest.approx(result["test/acc"])
    assert run.config()["data"] == other.config()["data"]
    assert abs(run.steps()["loss"][0] - other.steps()["loss"][0]) > 1e-3
    assert result["fingerprint"] != other.result()["fingerprint"]


def test_swa_that_never_averaged_is_an_error(composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"\b16$"):  # the epoch in which averaging was to begin
        fitting.fit_and_test(composed(*PLAIN, *STOPPED, "averaging=swa"), Attempt(Run(tmp_path)))


def test_a_sweep_continues_after_a_failing_job_and_its_command_trains_each_job_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, initialise, load = Classifier.training_step, Classifier.__init__, Loader.load_configuration
    networks: list[weakref.ref[Classifier]] = []
    alive: list[int] = []
    compositions: list[list[str]] = []

    def counted(self: Classifier, *arguments: Any, **options: Any) -> None:
        alive.append(sum(network() is not None for network in networks))
        initialise(self, *arguments, **options)
        networks.append(weakref.ref(self))

    def broken(self: Classifier, *arguments: Any) -> Any:
        if self.seed == 1:
            raise RuntimeError("out of\nmemory")
        if self.seed == 2:
            raise KeyboardInterrupt
        return step(self, *arguments)

    def composed(self: Loader, config_name: str, overrides: list[str], **options: Any) -> DictConfig:
        compositions.append(overrides)
        return load(self, config_name, overrides, **options)

    monkeypatch.setattr(Classifier, "__init__", counted)
    monkeypatch.setattr(Classifier, "training_step", broken)
    monkeypatch.setattr(Loader, "load_configuration", composed)
    monkeypatch.setattr("cifar_lab.train.command.tabulate", lambda folder: None)  # the table has its own tests
    command = ("-m", *PLAIN, "epochs=1", "seed=range(0,3)", "name=seed")
    gc.disable()  # so that collection at the right time is not left to chance
    try:
        outcome = lab(*command)
    finally:
        gc.enable()

    assert outcome.code == 130
    assert len(compositions) == 3  # the check composes each job once
    assert alive == [0, 0, 0]  # neither a finished job nor a failed one leaves its network behind
    assert {run.folder.parent.name for run in outcome.runs} == {"seed"}
    runs = {run.config()["seed"]: run for run in outcome.runs}
    states = {seed: run.status()["state"] for seed, run in runs.items()}
    assert states == {0: "finished", 1: "failed", 2: "interrupted"}
    finished, failed = runs[0], runs[1]
    assert finished.folder.name == f"seed=0-{finished.result()['fingerprint'][:8]}"
    assert not failed.result_file.exists()
    assert "RuntimeError: out of" in failed.error_file.read_text()
    error, last = (line for line in outcome.stderr.splitlines() if line.startswith("error: "))
    names(error, "out of memory", failed.error_file)
    assert outcome.stderr.splitlines()[-1] == last
    assert "Traceback" not in outcome.stderr

    written = _contents(finished.folder)
    monkeypatch.setattr(Classifier, "training_step", step)
    again = lab(*command)
    assert again.code == 0
    assert [run.folder for run in again.runs] == [run.folder for run in outcome.runs]
    assert len(alive) == 5
    assert _contents(finished.folder) == written
    for run in again.runs:
        assert summary(run) in again.stdout


def test_a_failing_figure_leaves_the_run_finished_and_is_drawn_by_the_next_command(
    lab: Lab, called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[str] = []

    def broken(*_: object) -> Figure:
        states.extend(Run(file.parent).state() for file in Path("sweep").glob("*/status.json"))
        raise RuntimeError("latex could not be found")

    with monkeypatch.context() as patch:
        patch.setattr(figures, "training_curves", broken)
        patch.setattr("cifar_lab.table.figures.compared_curves", broken)
        outcome = lab("-m", *TINY, "epochs=1", "seed=0,1", "hydra.sweep.dir=sweep")
    assert (outcome.code, set(states)) == (0, {"finished"})
    run, curves = outcome.runs[0], Path("sweep/curves.png")
    resumed = f"resume={os.path.relpath(run.folder)}"
    holds(outcome.stderr, f"{run.figures / 'curves.png'} was not drawn: latex", f"{resumed} draws", f"{curves} was not")
    assert {path.stem for path in run.figures.iterdir()} == {"learning_rate", "confusion_matrix"}
    assert not curves.exists() and "accuracy.png" in Path("sweep/table.md").read_text()

    assert called(table, "sweep")[0] == 0
    assert curves.exists()
    again = lab(resumed)
    assert (again.code, again.stderr) == (0, "")
    assert (run.figures / "curves.png").exists()


def test_a_process_killed_while_drawing_leaves_the_run_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    with recording_outcome(run, in_sweep=False):
        run.start({"epochs": 1})
        run.finish({"test/acc": 0.5})
        raise RankLostError("process 0 was killed by SIGKILL")
    assert (run.state(), run.result()["test/acc"]) == ("finished", 0.5)
    holds(capsys.readouterr().err, "process 0 was killed", "resume=")


@pytest.mark.paints
def test_a_name_with_dollars_is_not_a_formula(lab: Lab) -> None:
    outcome = lab(*PLAIN, "epochs=1", "name=cost_$5_vs_$10")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.runs[0].result()["name"] == "cost_$5_vs_$10"


def test_a_run_without_a_whole_epoch_has_failed(lab: Lab) -> None:
    outcome = lab(*PLAIN, "trainer.max_time=00:00:00:00")
    assert (outcome.code, outcome.runs[0].status()["state"]) == (1, "failed")
    names(outcome.stderr, "trainer.max_time", "data.train_size")


def test_wrong_arguments_of_a_component_give_one_line_and_exit_code_2(lab: Lab) -> None:
    refusal(lab(*PLAIN, "model.filters=[1,2]"), "filters=[1, 2]")
    assert not list(Path().iterdir())


def test_an_occupied_folder_is_left_unchanged(lab: Lab, trained: Train) -> None:
    trained(*PLAIN, name="taken")
    Path("mine/figures").mkdir(parents=True)
    Path("mine/figures/paper.png").write_text("mine")
    before = _contents(Path())
    refusal(lab(*PLAIN, "seed=1", "hydra.run.dir=taken"), "taken", "hydra.run.dir=")
    refusal(lab(*PLAIN, "hydra.run.dir=mine"), "figures", "hydra.run.dir=")
    assert _contents(Path()) == before


_WATCHED = """
import os, runpy, sys
from cifar_lab.train.classifier import Classifier

def first_step(*_):
    drawing = {"pandas", "cifar_lab.figures", "cifar_lab.train.cost"} & set(sys.modules)
    print("trains", *drawing, file=sys.stderr, flush=True)
    os._exit(7)

Classifier.training_step = first_step
runpy.run_module("cifar_lab.train", run_name="__main__", alter_sys=True)
"""


def test_plotting_libraries_are_not_imported_before_the_first_step(tmp_path: Path) -> None:
    line = [sys.executable, "-c", _WATCHED, *PLAIN, "trainer.enable_progress_bar=false"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (7, "trains\n"), done


@pytest.mark.data
def test_the_command_trains_on_real_images(lab: Lab) -> None:
    narrow = "model.stages=[[8],[8],[8,8],[8,8],[8,8]]"
    outcome = lab("model=vgg_a", "bn=true", narrow, "epochs=1", "data.train_size=1000", "trainer=cpu")
    assert outcome.code == 0
    result = outcome.runs[0].result()
    assert (result["train_size"], result["train_available"], result["val_size"]) == (1000, 45_000, 5_000)
    assert result["test_size"] == 10_000
    assert result["classes"][0] == "airplane"
    assert _numbers(_lines(outcome.runs[0])[1]) == ["10", "1,000", "45,000"]
