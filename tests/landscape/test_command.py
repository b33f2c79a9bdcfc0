import json
import shutil
from functools import partial
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cifar_lab import landscape
from cifar_lab.config import build, saved
from cifar_lab.landscape.maps.along import optimizer_step
from cifar_lab.landscape.maps.measured_run import Settings, load
from cifar_lab.landscape.maps.points import Points
from cifar_lab.landscape.maths.covariate_shift import layers
from cifar_lab.landscape.maths.interpolation import with_weights
from cifar_lab.runs import Run
from tests.conftest import refusal
from tests.kinds_of_runs import FINISHED

TINY = (
    *("data=synthetic", "data.num_train=60", "data.num_test=20", "model=vgg_a", "model.stages=[[4],[4],[4],[4],[4]]"),
    *("model.hidden=8", "batch_size=18", "epochs=2", "trainer=cpu", "logger=none", "optimizer=sgd", "augment=none"),
    "callbacks=snapshots",
)
IMAGES = 54  # all training images, so it does not matter which are drawn


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    """A run with BatchNorm and its twin, with snapshots, in the folder `sweep`."""
    for name in ("with", "twin"):
        trained(*TINY, "bn=true", name=f"sweep/{name}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sweep"


@pytest.fixture
def command(called):
    """Run `python -m cifar_lab.landscape` with arguments in this process; return the exit code, stdout and stderr."""
    return partial(called, landscape.main)


def network(run, epoch):
    """Return a run's network with an epoch's weights, its training images and labels, and its loss."""
    config = saved(run)
    model = build(config.model)
    model.load_state_dict(torch.load(run.snapshots()[epoch], weights_only=True))
    data = build(config.data, augment=None)
    data.setup()
    batches = list(data.train_dataloader())
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return model.train(), images, labels, nn.functional.cross_entropy


def final_loss(run):
    model, images, labels, criterion = network(run, 2)
    return float(criterion(model(images), labels).detach())


def test_a_surface_has_the_final_loss_in_its_middle_and_passes_every_snapshot(runs, command):
    code, out, err = command("surface", runs / "with", runs / "twin", "--images", IMAGES, "--points", 3)
    assert code == 0, err
    frame = pd.read_csv(runs / "landscape" / "surface.csv")
    assert frame.groupby(["run", "kind"]).size().to_dict() == {
        (run, kind): 9 for run in ("with", "twin") for kind in ("plane", "profile", "trajectory")
    }
    for name in ("with", "twin"):
        middle = frame[(frame["run"] == name) & (frame["x"] == 0) & frame["kind"].isin(["plane", "profile"])]
        middle = middle[middle["y"].isna() | (middle["y"] == 0)]
        assert middle["loss"].tolist() == pytest.approx([final_loss(Run(runs / name))] * 2, rel=1e-4)
    places = pd.read_csv(runs / "landscape" / "trajectory.csv")
    assert places["epoch"].tolist() == [0, 1, 2] * 2
    assert {"surface.png", "surface_profile.png"} <= {path.name for path in (runs / "landscape").iterdir()}
    assert "sweep/landscape/surface.csv" in out
    assert err.startswith("surface: 54 ")


def test_without_snapshots_a_surface_has_no_trajectory_and_is_centred_on_the_last_checkpoint(runs, command):
    shutil.copytree(runs / "with", runs / "bare")
    shutil.rmtree(runs / "bare" / "snapshots")
    code, _, err = command("surface", runs / "bare", "--images", IMAGES, "--points", 3)
    assert code == 0
    assert "callbacks=snapshots" in err
    frame = pd.read_csv(runs / "landscape" / "surface.csv")
    assert set(frame["kind"]) == {"plane", "profile"}
    middle = frame[(frame["x"] == 0) & (frame["y"] == 0)]
    assert middle["loss"].tolist() == pytest.approx([final_loss(Run(runs / "with"))], rel=1e-4)
    assert not (runs / "landscape" / "trajectory.csv").exists()


def test_an_interrupted_command_resumes_to_the_same_numbers_and_a_finished_one_reads_its_points(
    runs, command, tmp_path, monkeypatch
):
    surface = ("surface", "sweep/with", "--images", "20", "--points", "3", "--output")
    keep, kept = Points.keep, []

    def interrupted(self, *arguments):
        keep(self, *arguments)
        kept.append(1)
        if len(kept) == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Points, "keep", interrupted)
        assert command(*surface, "begun")[0] == 130
    tables = [tmp_path / "begun" / name for name in ("surface.csv", "trajectory.csv")]
    assert not any(table.exists() for table in tables)
    code, _, err = command(*surface, "begun")
    assert code == 0
    assert err.startswith("surface: 15 ") and " 12 " in err
    assert command(*surface, "undisturbed")[0] == 0
    written = [table.read_bytes() for table in tables]
    assert written == [(tmp_path / "undisturbed" / table.name).read_bytes() for table in tables]

    monkeypatch.setattr(Points, "keep", Mock(side_effect=AssertionError("computed")))
    code, _, err = command(*surface, "begun")
    assert (code, len(err.splitlines())) == (0, 1)
    assert [table.read_bytes() for table in tables] == written
    code, _, err = command(*surface, "begun", "--seed", 1)
    assert (code, "AssertionError: computed" in err) == (1, True)


def test_curvature_of_the_first_middle_and_last_epoch_is_printed_with_two_over_lr(runs, command):
    code, out, err = command("curvature", runs / "with", "--images", 18, "--eigenvalues", 2, "--json")
    assert code == 0, err
    told = json.loads(out)
    rows = told["rows"]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    metrics = Run(runs / "with").metrics().set_index("epoch")["train/lr"]
    (measured,) = load([runs / "with"], Settings(runs, images=18))
    for row in rows:
        model, *_, criterion = network(measured.run, row["epoch"])
        loss = criterion(model(measured.images), measured.labels)
        assert row["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
        assert row["eigenvalue_1"] >= row["eigenvalue_2"]
        assert row["eigenvalue_1"] >= row["sharpness"] >= row["smallest_eigenvalue"]
        lr = metrics[row["epoch"]] if row["epoch"] else 0.05
        assert row["two_over_lr"] == pytest.approx(2 / lr)
    frame = pd.read_csv(runs / "landscape" / "curvature.csv")
    assert frame["eigenvalue_1"].tolist() == [row["eigenvalue_1"] for row in rows]
    assert [file.rpartition("/")[2] for file in told["files"]] == ["curvature.csv", "curvature.png"]


def test_interpolation_ends_at_the_two_networks_and_is_constant_between_a_run_and_its_twin(runs, command):
    run = Run(runs / "with")
    code, _, err = command("interpolate", run.folder, "--images", IMAGES, "--points", 3)
    assert code == 0, err
    frame = pd.read_csv(runs / "landscape" / "interpolate.csv")
    assert frame["share"].tolist() == [0, 0.5, 1]
    for row, epoch in ((0, 0), (2, 2)):
        model, images, labels, criterion = network(run, epoch)
        weights = {name: value.detach() for name, value in model.named_parameters()}
        logits = with_weights(model, weights, [(images, labels)])(images)
        # The command averages statistics over three batches; for equal-sized batches the means equal those of all
        # images.
        assert frame["train_loss"][row] == pytest.approx(float(criterion(logits, labels).detach()), rel=0.1)
    assert frame["held_out_accuracy"].between(0, 1).all()
    shutil.copytree(runs / "twin", runs / "again" / "with")
    both = (run.folder, runs / "again" / "with")
    code, out, err = command("interpolate", *both, "--images", 20, "--points", 3, "--json")
    assert code == 0, err
    (row,) = json.loads(out)["rows"]
    assert (row["start"], row["end"]) == ("sweep/with", "again/with")
    assert row["train_barrier"] == pytest.approx(0, abs=1e-6)
    frame = pd.read_csv(runs / "landscape" / "interpolate.csv")
    assert np.ptp(frame["held_out_loss"]) == pytest.approx(0, abs=1e-6)


def test_covariate_shift_reports_the_gradients_of_each_layer_at_the_start(runs, command):
    code, out, err = command("covariate-shift", runs / "with", "--images", 18, "--at", 0, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [row["layer"] for row in rows] == list(range(1, 9))
    assert (rows[0]["distance"], rows[0]["cosine"]) == (0, pytest.approx(1))
    assert all(row["distance"] > 0 for row in rows[1:])
    (measured,) = load([runs / "with"], Settings(runs, images=18))
    model, *_, criterion = network(measured.run, 0)
    criterion(model(measured.images), measured.labels).backward()
    parameters = dict(model.named_parameters())
    names = layers(parameters)
    for row in rows:
        whole = torch.cat([parameters[name].grad.flatten() for name in names[row["name"]]])
        assert row["gradient_norm"] == pytest.approx(float(whole.norm()), rel=1e-4)
    assert rows[-1]["name"] == "classifier.4"


PLAIN_SGD = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false")


@pytest.mark.parametrize(
    ("words", "lr", "expected"),
    [
        (PLAIN_SGD, 0.5, [1 - 0.5 * 0.6, 2 - 0.5 * 0.8]),
        (PLAIN_SGD, np.nan, [1 - 0.03, 2 - 0.04]),
        (("optimizer=adam", "grad_clip=null"), 0.1, [0.9, 1.9]),
    ],
)
def test_a_step_is_that_of_the_runs_optimizer_with_clipped_gradients(composed, words, lr, expected):
    config = composed("optimizer.weight_decay=0", *words)
    weights, gradient = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])}
    torch.testing.assert_close(
        optimizer_step(config, nn.ParameterDict(weights), weights, gradient, lr)["w"], torch.tensor(expected)
    )
    assert weights["w"].tolist() == [1, 2]


def test_unusable_runs_give_a_one_line_error(runs, trained, command):
    trained(*FINISHED, name="sweep/cnn")
    for name in ("bare", "damaged", "foreign"):
        shutil.copytree(runs / "with", runs / name)
    shutil.rmtree(runs / "bare" / "snapshots")
    (runs / "damaged" / "snapshots" / "epoch_0002.pt").write_bytes(b"not weights")
    config = runs / "foreign" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("cifar_lab.models.VGG", "my_lab.Model"))
    few = ("--images", "20")
    for arguments, facts in (
        (["surface", "nowhere"], ["nowhere"]),
        (["surface", "sweep/with", "sweep/with"], ["sweep/with, sweep/with"]),
        (["surface", "sweep/with", "sweep/twin", "sweep/with"], ["3"]),
        (["surface", "sweep/with"], ["--images 500", "54"]),
        (["interpolate", "sweep/with", "sweep/cnn", *few], ["sweep/cnn"]),
        (["curvature", "sweep/with", *few, "--at", "1,9"], ["--at 1,9", "0, 1, 2"]),
        (["curvature", "sweep/with", *few, "--at", "last"], ["--at last", "0, 1, 2"]),
        (["curvature", "sweep/bare", *few], ["sweep/bare", "callbacks=snapshots"]),
        (["covariate-shift", "sweep/bare", *few], ["sweep/bare", "callbacks=snapshots"]),
        (["interpolate", "sweep/bare", *few], ["sweep/bare", "callbacks=snapshots"]),
        (["curvature", "sweep/damaged", *few], ["epoch_0002.pt"]),
        (["surface", "sweep/foreign", *few], ["my_lab.Model", "--allow my_lab"]),
        (["band", "sweep/with"], ["study=bn_landscape"]),
        (["smoothness", "sweep/with"], ["study=bn_smoothness"]),
        (["surface"], ["RUN"]),
        ([], []),
    ):
        refusal(command(*arguments), *facts)
    assert not list(runs.glob("landscape/*.csv"))


@pytest.mark.parametrize("name", ["band", "smoothness", "surface", "curvature", "interpolate", "covariate-shift"])
def test_each_subcommand_has_help(command, name):
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"cifar-lab landscape {name}" in out
