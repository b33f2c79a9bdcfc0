"""The default folder of a sweep: one for each composition that its jobs share."""

from pathlib import Path

import pytest

from cifar_lab.config import checked

SHARED = "data=synthetic"


@pytest.mark.parametrize(
    ("line", "name", "former"),
    [
        ("-m loss=ce,mse experiment=best_cnn", "best_cnn-data=synthetic-loss", "loss"),
        ("-m loss=ce,mse epochs=2 data.train_size=100", "data=synthetic-epochs=2-data.train_size=100-loss", "loss"),
        ("-m loss=ce,mse model.filters=[8,8,16]", "data=synthetic-model.filters=8,8,16-loss", "loss"),
        # A name leaves out settings that change no number, and seeds, which share a table.
        ("-m bn=true,false optimizer=adam logger=none trainer=cpu callbacks=snapshots", "data=synthetic-bn", "bn"),
        ("-m bn=true,false seed=3 resume=auto trainer.precision=32-true epochs=50", "data=synthetic-bn", "bn"),
        # A setting that follows the number of epochs; an experiment's own option and number.
        ("-m bn=true,false epochs=9 scheduler.T_max=50", "data=synthetic-epochs=9-scheduler.T_max=50-bn", "bn"),
        ("-m bn=true,false experiment=optimizer_sgd optimizer=sgd", "optimizer_sgd-data=synthetic-bn", "bn"),
        ("-m loss=ce,mse experiment=best_cnn epochs=150", "best_cnn-data=synthetic-epochs=150-loss", "loss"),
        # A setting of only one of the jobs.
        ("-m optimizer=adam,sgd optimizer.lr=1e-3", "data=synthetic-optimizer.lr=0.001-optimizer", "optimizer"),
        ("-m experiment=swa,vgg_a optimizer=sgd", "data=synthetic-optimizer=sgd-experiment", "experiment"),
        # A sweep without axes; studies, with all or part of their axes.
        ("-m model=vgg_a epochs=1", "vgg_a-data=synthetic-epochs=1", "vgg_a"),
        ("study=loss loss=ce,mse epochs=1 seed=0", "study-loss-data=synthetic-epochs=1", "study-loss"),
        ("study=loss loss=ce experiment=vgg_a", "study-loss-vgg_a-data=synthetic", "study-loss-vgg_a"),
    ],
)  # fmt: skip
def test_a_sweep_is_named_by_its_jobs_common_settings_and_its_axes(line: str, name: str, former: str) -> None:
    plan = checked([*line.split(), SHARED])
    assert plan.sweep_folder == Path("outputs", name)
    assert plan.former == (Path("outputs", former),)
    assert all(plan.composed(job).name == name for job in plan.jobs if job.composed)


def test_the_order_of_common_settings_does_not_change_the_name() -> None:
    line = ["-m", "loss=ce,mse", "model.dropout=0.1", SHARED, "epochs=2", "model=vgg_a"]
    assert checked(line).sweep_folder == checked([line[0], *reversed(line[1:])]).sweep_folder


def test_a_long_name_is_cut_and_a_typed_one_is_not_changed() -> None:
    axes = "loss optimizer activation augment scheduler bn l1 grad_clip batch_size epochs optimizer.amsgrad data.mean"
    values = {"bn": "true", "optimizer.amsgrad": "true", "data.mean": "[0,0,0]", "loss": "ce", "optimizer": "adam",
              "activation": "relu", "augment": "none", "scheduler": "cosine"}  # fmt: skip
    plan = checked(["-m", SHARED, *(f"{axis}=choice({values.get(axis, 1)})" for axis in axes.split())])
    assert plan.sweep_folder is not None and len(plan.sweep_folder.name) < 160
    typed = checked(["-m", SHARED, "seed=0,1", "epochs=1", "name=mine"])
    assert (typed.sweep_folder, typed.former) == (Path("outputs/mine"), ())


def test_a_name_does_not_reveal_the_folder_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.data.files.find", lambda root: root)
    plan = checked(["-m", "loss=ce,mse", "data.root=/own/images", "data.verify=false"])
    assert plan.sweep_folder == Path("outputs/loss")
