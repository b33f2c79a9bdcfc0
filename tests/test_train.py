import gc
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

from cifar_lab import fitting, hardware, provenance
from cifar_lab.analysis.statistics import wilson_interval
from cifar_lab.assembly import make_classifier
from cifar_lab.callbacks import Recorder
from cifar_lab.classifier import Classifier
from cifar_lab.config import build
from cifar_lab.models import CNN
from cifar_lab.runs import Run
from tests.conftest import TINY, Compose, Outcome

Lab = Callable[..., Outcome]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _same_numbers(first: Run, second: Run) -> bool:
    weights = [torch.load(next(run.weights.iterdir()), weights_only=True) for run in (first, second)]
    steps = [run.steps() for run in (first, second)]
    return all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0]) and all(
        np.array_equal(steps[0][name], steps[1][name]) for name in steps[0]
    )


def test_a_run_leaves_a_complete_directory(lab: Lab, composed: Compose) -> None:
    outcome = lab(*TINY, "trainer.precision=32-true")
    assert outcome.code == 0
    (run,) = outcome.runs
    assert run.folder.parts[-3:-1] == ("outputs", "cnn")
    left = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    assert {
        *(".hydra/config.yaml", ".hydra/overrides.yaml", "status.json", "result.json", "metrics.csv", "steps.npz"),
        *("checkpoints/best.ckpt", "checkpoints/last.ckpt"),
        *("figures/curves.png", "figures/learning_rate.png", "figures/confusion_matrix.png"),
    } <= left
    assert any(name.startswith("tensorboard/events.out.tfevents") for name in left)

    assert run.status()["state"] == "finished"
    assert "${" not in run.config_file.read_text()
    assert run.config()["scheduler"]["T_max"] == 2
    assert yaml.safe_load(run.config_file.read_text())["data"]["num_train"] == 60

    result = run.result()
    page = (Path(__file__).parents[1] / "docs" / "run_directory.md").read_text()
    documented = page.partition("\n## result.json\n")[2]
    assert set(re.findall(r"^\| `([^`]+)` \|", documented, re.MULTILINE)) == result.keys()
    assert result["status"] == "finished"
    assert result["num_parameters"] == sum(weight.numel() for weight in CNN(filters=(4, 4, 4)).parameters())
    assert result["overrides"] == [*TINY, "trainer.precision=32-true"]
    assert result["train_size"] + result["val_size"] == 60
    assert np.sum(result["confusion_matrix"]) == result["test_size"] == 20
    assert np.trace(result["confusion_matrix"]) / 20 == pytest.approx(result["test/acc"])
    assert result["val/acc"] == run.metrics()["val/acc"].max()
    assert result["best_epoch"] == run.metrics()["val/acc"].argmax() + 1
    assert len(run.steps()["loss"]) == result["epochs"] * 9

    # The weights are those that the result is about.
    (weights,) = run.weights.iterdir()
    digits = f"{round(10_000 * result['test/acc']):04d}"
    assert weights.name == f"best_model_LeakyReLU_CrossEntropy_Adam_CosineAnnealingLR_{digits}.pth"
    model = build(composed(*TINY).model)
    model.load_state_dict(torch.load(weights, weights_only=True))
    data = build(composed(*TINY).data)
    correct = sum((model.eval()(images).argmax(1) == labels).sum().item() for images, labels in data.test_dataloader())
    assert correct / 20 == pytest.approx(result["test/acc"])


def test_the_last_lines_tell_the_result(lab: Lab) -> None:
    outcome = lab(*TINY)
    result = outcome.runs[0].result()
    low, high = wilson_interval(round(20 * result["test/acc"]), 20)
    lines = outcome.stdout.splitlines()[-6:]
    assert lines[0].startswith(f"test accuracy  {result['test/acc']:.2%} (95 % interval {low:.2%} to {high:.2%}, 20 ")
    assert re.search(r"^data .*synthetic data, trained on 54 images$", lines[1])
    assert re.search(r"^protocol .*holdout: ", lines[2])
    assert lines[3] == f"best epoch     {result['best_epoch']} of 2"
    assert lines[4].startswith(f"seconds        {result['seconds']:,.0f}")
    assert lines[5] == f"folder         {outcome.runs[0].folder.relative_to(Path.cwd())}"
    assert outcome.stderr == ""


def test_what_probes_cost_is_told_in_one_line_and_in_the_result(lab: Lab) -> None:
    outcome = lab(*TINY, "probe=gradient", "probe.every=5", "probe.at=[]", "probe.etas=[1]")
    (line,) = (line for line in outcome.stdout.splitlines() if line.startswith("probes "))
    result = outcome.runs[0].result()
    taken = outcome.runs[0].probes()["seconds"].sum()
    assert result["probes"] == 4
    assert result["probe_seconds"] == pytest.approx(taken, abs=1e-3)
    steps = result["epochs"] * result["train_size"] / result["images_per_second"]
    share = result["probe_seconds"] / steps
    assert line == f"probes         4 in {result['probe_seconds']:.1f} s, {share:.1%} of training"


def test_a_subset_is_said_to_be_one(lab: Lab) -> None:
    outcome = lab(*TINY, "data.train_size=30", "epochs=1")
    assert "trained on 30 of 54 images" in outcome.stdout
    assert outcome.runs[0].result()["train_size"] == 30


@pytest.mark.parametrize(("logger", "folder"), [("none", None), ("csv", "csv")])
def test_other_loggers(lab: Lab, logger: str, folder: str | None) -> None:
    outcome = lab(*TINY, f"logger={logger}")
    assert outcome.code == 0
    run = outcome.runs[0]
    assert not run.tensorboard.exists()
    assert (run.folder / "csv" / "metrics.csv").exists() == (folder == "csv")
    assert len(run.metrics()) == 2


def test_the_same_command_gives_the_same_bits_and_another_seed_others(lab: Lab) -> None:
    lab(*TINY, "hydra.run.dir=a")
    lab(*TINY, "hydra.run.dir=b")
    lab(*TINY, "hydra.run.dir=c", "seed=1")
    assert _same_numbers(Run("a"), Run("b"))
    assert not _same_numbers(Run("a"), Run("c"))
    assert Run("a").result()["fingerprint"] == Run("b").result()["fingerprint"] != Run("c").result()["fingerprint"]


def test_under_the_reports_protocol_the_test_set_chooses(lab: Lab) -> None:
    (run,) = lab(*TINY, "protocol=report").runs
    result = run.result()
    assert result["protocol"] == "report"
    assert result["train_size"] == 60
    assert result["test/acc"] == pytest.approx(result["val/acc"]) == pytest.approx(run.metrics()["val/acc"].max())
    assert result["test/acc_final"] == pytest.approx(run.metrics()["val/acc"].iloc[-1])


def test_a_run_that_is_never_validated_tests_its_last_epoch(lab: Lab) -> None:
    outcome = lab(*TINY, "trainer.check_val_every_n_epoch=5")
    assert outcome.code == 0
    result = outcome.runs[0].result()
    assert result["best_epoch"] is None
    assert 0 <= result["val/acc"] <= 1
    assert result["test/acc"] == result["test/acc_final"]
    assert "best epoch     none chosen of 2" in outcome.stdout


def test_a_sweep_trains_each_job_once(lab: Lab) -> None:
    command = ["--multirun", *TINY, "epochs=1", "loss=ce,mse", "seed=range(0,2)"]
    outcome = lab(*command)
    assert outcome.code == 0
    assert len(outcome.runs) == 4
    assert {run.folder.parent.name for run in outcome.runs} == {"loss-seed"}
    combinations = {(run.result()["options"]["loss"], run.result()["seed"]) for run in outcome.runs}
    assert combinations == {("ce", 0), ("ce", 1), ("mse", 0), ("mse", 1)}
    for run in outcome.runs:
        assert run.folder.name.endswith(run.result()["fingerprint"][:8])

    assert sorted(run.folder.name.rpartition("-")[0] for run in outcome.runs) == [
        *("loss=ce,seed=0", "loss=ce,seed=1", "loss=mse,seed=0", "loss=mse,seed=1")
    ]
    written = [_contents(run.folder) for run in outcome.runs]
    again = lab(*command)
    assert again.code == 0
    assert [run.folder for run in again.runs] == [run.folder for run in outcome.runs]
    assert [_contents(run.folder) for run in again.runs] == written
    assert again.stdout.count("test accuracy") == 4


def test_a_job_that_fails_does_not_stop_the_sweep(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_and_test = fitting.fit_and_test

    def broken(config: Any, *arguments: Any) -> dict[str, Any]:
        if config.seed == 1:
            raise RuntimeError("out of\nmemory")
        return fit_and_test(config, *arguments)

    monkeypatch.setattr(fitting, "fit_and_test", broken)
    outcome = lab("-m", *TINY, "epochs=1", "seed=0,1,2")
    assert outcome.code == 1
    runs = {run.config()["seed"]: run for run in outcome.runs}
    assert {seed: run.status()["state"] for seed, run in runs.items()} == {0: "finished", 1: "failed", 2: "finished"}
    failed = runs[1]
    assert not failed.result_file.exists()
    assert "RuntimeError: out of" in failed.error_file.read_text()
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error:")]
    assert errors[0] == f"error: out of memory; the traceback is in {failed.error_file}"
    assert errors[1].startswith("error: not every run of the sweep finished")
    assert "Traceback" not in outcome.stderr

    monkeypatch.setattr(fitting, "fit_and_test", fit_and_test)
    assert lab("-m", *TINY, "epochs=1", "seed=0,1,2").code == 0
    assert failed.status()["state"] == "finished"


def test_a_run_that_fails_is_one_line_and_exit_1(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Classifier, batch: object, batch_idx: int) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Classifier, "training_step", broken)
    outcome = lab(*TINY)
    assert outcome.code == 1
    (run,) = outcome.runs
    assert outcome.stderr == f"error: no such kernel; the traceback is in {run.error_file}\n"
    assert run.status()["state"] == "failed"
    assert not run.result_file.exists()


def test_a_loss_that_is_no_number_is_a_diverged_run(lab: Lab) -> None:
    outcome = lab(*TINY, "optimizer=sgd", "optimizer.lr=1e30", "grad_clip=0", "bn=false")
    assert outcome.code == 1
    assert "error: the loss is nan in step 2; try a lower optimizer.lr" in outcome.stderr
    run = outcome.runs[0]
    assert run.status()["state"] == "diverged"
    assert run.status()["hardware"]["device"] == "cpu"
    assert run.status().get("git_revision") == provenance.git_revision()
    assert np.isnan(run.steps()["loss"]).tolist() == [False, True]  # it stopped within that step
    assert not run.result_file.exists()
    assert not run.checkpoints.exists()


def test_an_interrupt_ends_a_sweep_with_130(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Recorder, *_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "on_train_batch_end", interrupted)
    outcome = lab("-m", *TINY, "seed=0,1")
    assert outcome.code == 130
    assert [run.status()["state"] for run in outcome.runs] == ["interrupted"]
    assert outcome.stderr.splitlines()[-1] == "error: interrupted"


def test_a_failed_job_lets_go_of_its_model(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Classifier]] = []
    still_there: list[int] = []

    def broken(self: Classifier, batch: object, batch_idx: int) -> None:
        gc.collect()
        still_there.append(sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(self))
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Classifier, "training_step", broken)
    assert lab("-m", *TINY, "seed=0,1,2").code == 1
    assert still_there == [0, 0, 0]


def test_a_failure_in_a_figure_is_a_failed_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such font")

    monkeypatch.setattr("cifar_lab.analysis.figures.learning_rate", broken)
    outcome = lab(*TINY, "epochs=1")
    assert outcome.code == 1
    assert outcome.runs[0].status()["state"] == "failed"
    assert not outcome.runs[0].result_file.exists()


def test_a_run_without_a_whole_epoch_is_a_failed_run(lab: Lab) -> None:
    outcome = lab(*TINY, "trainer.max_time=00:00:00:00")
    assert outcome.code == 1
    assert "no epoch was trained to its end" in outcome.stderr
    assert outcome.runs[0].status()["state"] == "failed"


@pytest.mark.parametrize(("argument", "words"), [("model.filters=[1,2]", "filters=[1, 2] has 2 widths")])
def test_what_a_component_refuses_is_one_line_and_exit_2(lab: Lab, argument: str, words: str) -> None:
    outcome = lab(*TINY, argument)
    assert outcome.code == 2
    assert len(outcome.stderr.splitlines()) == 1
    assert words in outcome.stderr
    assert not list(Path().iterdir())


def test_the_schedule_is_the_configurations(lab: Lab) -> None:
    (run,) = lab(*TINY, "epochs=4", "scheduler.eta_min=1e-4").runs
    expected = [1e-4 + 9e-4 * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert run.metrics()["train/lr"].tolist() == pytest.approx(expected, rel=1e-5)
    lab(*TINY, "scheduler=one_cycle", "trainer.accumulate_grad_batches=2", "hydra.run.dir=cycle")
    rates = Run("cycle").steps()["lr"]
    assert len(rates) == 2 * 5
    assert rates[-1] == pytest.approx(1e-3 / 25 / 1e4, rel=1e-3)


def test_what_is_composed_is_what_is_trained(composed: Compose, lab: Lab) -> None:
    config = composed(*TINY, "l1=1e-3", "grad_clip=0.25", "trainer.memory_format=channels_last")
    native = hardware.choose("cpu", memory_format="channels_last")
    classifier = make_classifier(config, build(config.data), native)
    assert (classifier.l1, classifier.grad_clip) == (1e-3, 0.25)
    assert classifier.memory_format == torch.channels_last
    (run,) = lab(*TINY, "l1=1e-3", "trainer.precision=32-true", "data.seed=0", "seed=1").runs
    assert (run.metrics()["train/objective"] > run.metrics()["train/loss"] + 0.01).all()
    assert run.result()["precision"] == "32-true"
    lab(*TINY, "l1=1e-3", "trainer.precision=bf16-mixed", "data.seed=0", "hydra.run.dir=other")
    other = Run("other")
    assert other.result()["precision"] == "bf16-mixed"
    # The same images in the same order, so the first losses differ by the initial weights.
    assert abs(other.steps()["loss"][0] - run.steps()["loss"][0]) > 1e-3


def test_missing_data_is_one_line_that_says_what_to_do(lab: Lab, tmp_path: Path) -> None:
    outcome = lab(f"data.root={tmp_path}/nowhere", "epochs=1")
    assert outcome.code == 2
    (line,) = outcome.stderr.splitlines()
    assert line.startswith(f"error: no CIFAR-10 in {tmp_path}/nowhere: put cifar-10-batches-bin/")
    assert "data.root=" in line
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_finished_run_is_left_as_it_is(lab: Lab) -> None:
    lab(*TINY, "epochs=1", "hydra.run.dir=taken")
    before = _contents(Path("taken"))
    outcome = lab(*TINY, "epochs=1", "seed=1", "hydra.run.dir=taken")
    assert outcome.code == 2
    assert "holds a finished run; set hydra.run.dir=" in outcome.stderr
    assert _contents(Path("taken")) == before


def test_a_folder_with_somebodys_files_is_left_as_it_is(lab: Lab) -> None:
    Path("mine/figures").mkdir(parents=True)
    Path("mine/figures/paper.png").write_text("mine")
    outcome = lab(*TINY, "hydra.run.dir=mine")
    assert outcome.code == 2
    assert "holds figures of no run; set hydra.run.dir=" in outcome.stderr
    assert _contents(Path("mine")) == {"mine/figures/paper.png": b"mine"}


def test_an_empty_folder_may_be_named(lab: Lab) -> None:
    Path("mine").mkdir()
    assert lab(*TINY, "epochs=1", "hydra.run.dir=mine").code == 0


@pytest.mark.parametrize(
    ("argument", "words"),
    [("loss=foo", "ce, focal, label_smoothing, mse"), ("epochs=abc", "a whole number from 1 on"), ("lrr=1", "lrr")],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(lab: Lab, argument: str, words: str) -> None:
    outcome = lab(*TINY, argument)
    assert outcome.code == 2
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not outcome.runs


def test_a_folder_that_cannot_be_written_is_one_line(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = lab(*TINY, "hydra.run.dir=file/run")
    assert outcome.code == 2
    assert re.fullmatch(r"error: cannot write .*file.*; set hydra\.run\.dir= to a writable folder\n", outcome.stderr)


def test_help_and_the_configuration_need_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['train', *sys.argv[1:]]\n"
        "from cifar_lab.train import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit(' '.join({'torch', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    for argument in ("--help", "--cfg=job"):
        done = subprocess.run([sys.executable, "-c", code, argument], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not list(tmp_path.iterdir())


def test_the_first_step_does_not_wait_for_what_draws_and_tabulates(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from cifar_lab.classifier import Classifier\n"
        "from cifar_lab.train import run\n"
        "def first_step(*_):\n"
        "    print(*{'pandas', 'cifar_lab.analysis.figures', 'cifar_lab.cost'} & set(sys.modules), flush=True)\n"
        "    os._exit(7)\n"
        "Classifier.training_step = first_step\n"
        "run([*sys.argv[1:], 'trainer.enable_progress_bar=false'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *TINY], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (7, "\n"), done


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "cifar_lab.train", *TINY, "epochs=1"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("folder         outputs/cnn/")


@pytest.mark.data
def test_the_users_command_trains_on_real_images(lab: Lab) -> None:
    narrow = "model.stages=[[8],[8],[8,8],[8,8],[8,8]]"
    outcome = lab("model=vgg_a", "bn=true", narrow, "epochs=1", "data.train_size=1000", "trainer=cpu")
    assert outcome.code == 0
    result = outcome.runs[0].result()
    assert (result["train_size"], result["train_available"], result["val_size"]) == (1000, 45_000, 5_000)
    assert result["test_size"] == 10_000
    assert result["classes"][0] == "airplane"
    assert "CIFAR-10, trained on 1,000 of 45,000 images" in outcome.stdout


def test_the_averaged_weights_are_the_result_of_swa(lab: Lab, composed: Compose) -> None:
    swa = ["averaging=swa", "averaging.start=0.5", "epochs=4", "trainer.precision=32-true"]
    (run,) = lab(*TINY, *swa).runs
    result = run.result()
    assert result["best_epoch"] is None
    assert result["test/acc"] == result["test/acc_final"]
    model = build(composed(*TINY).model)
    model.load_state_dict(torch.load(next(run.weights.iterdir()), weights_only=True))
    data = build(composed(*TINY).data)
    (images, labels), *_ = data.test_dataloader()
    assert (model.eval()(images).argmax(1) == labels).float().mean().item() == pytest.approx(result["test/acc"])


def test_swa_that_never_averaged_is_a_failed_run(lab: Lab) -> None:
    stop = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-12", "epochs=20"]
    outcome = lab(*TINY, *stop, "averaging=swa")
    assert outcome.code == 1
    assert "before averaging began after epoch 16" in outcome.stderr
    assert not outcome.runs[0].result_file.exists()


def test_early_stopping_ends_a_run_that_has_stopped_growing(lab: Lab) -> None:
    stop = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-12", "epochs=20"]
    outcome = lab(*TINY, *stop)
    assert outcome.code == 0
    result = outcome.runs[0].result()
    assert result["epochs"] == len(outcome.runs[0].metrics()) < 20


def test_the_result_holds_the_experiments_published_accuracy(lab: Lab) -> None:
    (run,) = lab("experiment=optimizer_sgd", *TINY, "epochs=1").runs
    assert run.result()["published"] == 0.7858
    assert run.folder.parent.name == "optimizer_sgd"
