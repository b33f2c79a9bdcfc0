"""W&B's and MLflow's own files, read back."""

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cifar_lab import train
from cifar_lab.runs import Run
from cifar_lab.train.loggers.description import Description
from cifar_lab.train.loggers.remote import read_ids
from tests.conftest import TINY, Outcome, Train, quick, refusal

Lab = Callable[..., Outcome]
LINE = (*TINY, "trainer.precision=32-true", "trainer.enable_progress_bar=false")
SWEEP = (*LINE, "logger=[wandb,mlflow]", "tags=[draft,'${oc.env:LAB_TOKEN}']", "optimizer.lr=1e-3,1e-2", "name=rates")
SECRETS = {"LAB_TOKEN": "token-of-nobody", "WANDB_API_KEY": "0123456789" * 4}
EPOCH = {"train/loss", "train/objective", "train/acc", "train/lr", "val/loss", "val/acc"}
RESULT = {"test/acc", "test/acc_final", "val/acc_chosen", "whole_run/best_epoch", "whole_run/seconds"}
# The services' libraries raise warnings of their own; importing them and creating a database takes long.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]
BLOCK = 32_768  # bytes per block of W&B's file, which is a LevelDB log


class Outputs(NamedTuple):
    """A home folder with a sweep that both services have recorded."""

    folder: Path
    runs: list[Run]
    client: Any  # MLflow's client


def _records(run: Run) -> Iterator[Any]:
    """Yield the records in W&B's only file of a run."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(whole)
            whole = b""


def _history(run: Run) -> dict[str, list[float]]:
    """Return each metric of W&B's history, in order."""
    found: dict[str, list[float]] = {}
    for record in _records(run):
        for item in record.history.item:
            name = item.key or "/".join(item.nested_key)
            if "/" in name and item.value_json[0] in "-0123456789":
                found.setdefault(name, []).append(float(item.value_json))
    return found


def _run_record(run: Run) -> Any:
    (begun,) = (record.run for record in _records(run) if record.HasField("run"))
    return begun


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outputs]:
    """A sweep of two runs; no test changes them."""
    pytest.importorskip("wandb")
    mlflow = pytest.importorskip("mlflow")
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        patch.chdir(home)
        for name, value in {**SECRETS, "HOME": str(home)}.items():
            patch.setenv(name, value)
        made = train.sweep([*SWEEP, f"hydra.sweep.dir={home}/outputs/rates"])
        assert [each["status"] for each in made] == ["finished"] * 2
        client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
        yield Outputs(home, [Run(each["folder"]) for each in made], client)


def test_both_services_have_the_metrics_of_every_epoch_and_of_the_result(outputs: Outputs) -> None:
    for run in outputs.runs:
        metrics, result, history = run.metrics(), run.result(), _history(run)
        ids = read_ids(run.loggers_file)
        of_mlflow = outputs.client.get_run(ids["mlflow"]).data.metrics
        assert history.keys() >= EPOCH | RESULT and of_mlflow.keys() >= EPOCH | RESULT
        for name in EPOCH:
            points = outputs.client.get_metric_history(ids["mlflow"], name)
            assert history[name] == pytest.approx(metrics[name].tolist(), rel=1e-5)
            assert [point.value for point in points] == pytest.approx(metrics[name].tolist(), rel=1e-5)
        assert history["test/acc"] == [of_mlflow["test/acc"]] == [result["test/acc"]]
        assert of_mlflow["whole_run/best_epoch"] == result["best_epoch"]


def test_both_services_have_the_columns_tags_configuration_and_confusion_matrix(outputs: Outputs) -> None:
    for run, rate in zip(outputs.runs, (1e-3, 1e-2), strict=True):
        begun, found = _run_record(run), outputs.client.get_run(read_ids(run.loggers_file)["mlflow"])
        config = {item.key: item.value_json for item in begun.config.update}
        assert (config["optimizer.lr"], found.data.params["optimizer.lr"]) == (str(rate), str(rate))
        assert '"epochs":2' in config["config"] and "optimizer.lr=" in config["command"]
        assert list(begun.tags) == ["draft", "${oc.env:LAB_TOKEN}"]
        assert found.data.tags["draft"] == "true" and found.info.status == "FINISHED"
        artifacts = Path(found.info.artifact_uri)
        assert "epochs: 2" in (artifacts / "config.yaml").read_text()
        pictures = [*artifacts.rglob("confusion_matrix.png"), *run.folder.glob("wandb/**/confusion_matrix*.png")]
        assert [path.parent.name for path in pictures] == ["test", "test"]


def test_a_sweep_is_a_group_of_wandb_and_a_run_of_mlflow_with_children(outputs: Outputs) -> None:
    assert [_run_record(run).run_group for run in outputs.runs] == ["rates", "rates"]
    experiment = outputs.client.get_experiment_by_name("rates")
    found = outputs.client.search_runs([experiment.experiment_id])
    (parent,) = [each for each in found if "mlflow.parentRunId" not in each.data.tags]
    children = [each for each in found if each is not parent]
    assert [each.data.tags["mlflow.parentRunId"] for each in children] == [parent.info.run_id] * 2
    assert {each.info.run_id for each in children} == {read_ids(run.loggers_file)["mlflow"] for run in outputs.runs}


def test_nothing_private_is_sent(outputs: Outputs) -> None:
    private = [*SECRETS.values(), str(outputs.folder), os.uname().nodename + ".", "requirements.txt"]
    for run in outputs.runs:
        (file,) = run.folder.glob("wandb/offline-run-*/*.wandb")
        sent = [path.read_bytes() for path in (file, *(file.parent / "files").rglob("*.*")) if path.is_file()]
        found = outputs.client.get_run(read_ids(run.loggers_file)["mlflow"])
        sent += [path.read_bytes() for path in Path(found.info.artifact_uri).rglob("*.*")]
        sent.append(str([found.data.params, found.data.tags, found.info.user_id]).encode())
        assert [each for each in private if any(each.encode() in content for content in sent)] == []
        assert found.info.user_id == "unknown" and "mlflow.source.name" not in found.data.tags


def test_a_resumed_run_continues_its_curve_and_its_id(outputs: Outputs, lab: Lab) -> None:
    tracking = f"logger.mlflow.tracking_uri=sqlite:///{outputs.folder}/mlflow.db"
    line = (*LINE, "logger=[wandb,mlflow]", tracking, "scheduler=constant", "epochs=1", "name=longer")
    (run,) = lab(*line, "hydra.run.dir=run").runs
    ids = read_ids(run.loggers_file)
    assert lab("resume=run", "epochs=3").code == 0
    assert read_ids(run.loggers_file) == ids
    assert _run_record(run).run_id == ids["wandb"] and len(list(run.folder.glob("wandb/offline-run-*"))) == 1
    points = [point.value for point in outputs.client.get_metric_history(ids["mlflow"], "val/acc")]
    expected = pytest.approx(run.metrics()["val/acc"].tolist(), rel=1e-5)
    assert _history(run)["val/acc"] == points == expected and len(points) == 3


def test_a_failing_service_causes_one_note_and_training_continues(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    pytest.importorskip("mlflow")

    def init(**_: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    outcome = lab(*LINE, "logger=[wandb,mlflow]", "logger.mlflow.tracking_uri=http://127.0.0.1:9", "epochs=1")
    assert outcome.code == 0 and outcome.runs[0].has_result()
    lines = outcome.stderr.splitlines()
    assert [line.partition(":")[2].split()[0] for line in lines] == ["wandb:", "mlflow:"]
    assert all(line.endswith("training continues without it") for line in lines)


def test_wandb_without_a_network_is_kept_offline(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    init = wandb.init

    def unreachable(**options: Any) -> Any:
        if options["mode"] == "online":
            raise RuntimeError("no network")
        return init(**options)

    monkeypatch.setattr(wandb, "init", unreachable)
    outcome = lab(*LINE, "logger=wandb", "logger.wandb.offline=false", "epochs=1")
    (note,) = outcome.stderr.splitlines()
    assert outcome.code == 0 and "wandb sync" in note
    assert _history(outcome.runs[0])["val/acc"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
@pytest.mark.parametrize("word", ["logger={}", "logger=[tensorboard,{}]"])
def test_a_missing_package_is_refused_before_a_folder_is_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, word: str
) -> None:
    monkeypatch.setattr("cifar_lab.config.checks.importlib.util.find_spec", lambda module: None)
    refusal(lab(*LINE, word.format(name)), f"logger={name}", f"pip install 'cifar-lab[{name}]'")
    assert not list(tmp_path.iterdir())


def test_several_loggers_of_a_sweep_are_one_value(lab: Lab) -> None:
    outcome = lab("-m", *LINE, "epochs=1", "logger=[tensorboard,csv]", "loss=ce,mse", "logger.csv.name=mine")
    assert (outcome.code, len(outcome.runs)) == (0, 2)
    for run in outcome.runs:
        assert run.result()["options"]["logger"] == "[tensorboard,csv]"
        assert run.tensorboard.is_dir() and (run.folder / "mine" / "hparams.yaml").exists()


@pytest.mark.parametrize(
    ("word", "facts"),
    [
        ("logger=[tensorboard,wandbb]", ["logger=wandbb does not exist", "did you mean wandb"]),
        ("loss=[ce,mse]", ["loss=[ce,mse] does not exist"]),
        ("logger=[]", ["logger= does not exist"]),
        ("tags=draft", ["tags", "a list"]),
    ],
)
def test_an_impossible_list_of_loggers_is_refused(lab: Lab, word: str, facts: list[str]) -> None:
    refusal(lab(*LINE, word), *facts)


def test_home_folders_and_variables_are_replaced_by_their_names(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(*LINE, "epochs=1", "logger=none")
    home, token = Path.home(), SECRETS["LAB_TOKEN"]
    monkeypatch.setenv("LAB_TOKEN", token)
    composition = {**run.composition(), "interpolations": {"name": "of-${oc.env:LAB_TOKEN}"}}
    run.composition_file.write_text(json.dumps(composition))
    config = {"name": f"of-{token}", "data": {"root": f"{home}/images"}, "logger": {"wandb": {}}}
    words = (f"name=of-{token}", f"data.root={home}/images", "logger.wandb.entity=me")
    shown = Description(run, "a", None, (token,), words, config, {}, val_is_test=False).without_private()
    assert shown.tags == ("${oc.env:LAB_TOKEN}",)
    assert shown.config == {"name": "of-${oc.env:LAB_TOKEN}", "data": {"root": "~/images"}}
    assert shown.words == ("name=of-${oc.env:LAB_TOKEN}", "data.root=~/images")
