import copy
import gc
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups
from tensorboard.util import tensor_util

from cifar_lab.callbacks import Recorder
from cifar_lab.classifier import Classifier
from cifar_lab.config import build, conf_folder
from cifar_lab.runs import Run
from tests.conftest import TINY, Compose, Outcome

Lab = Callable[..., Outcome]
ALL = {"size_guidance": {"tensors": 0, "images": 0}}
TAGS = {
    *("train/loss", "train/acc", "train/objective", "train/lr", "val/loss", "val/acc"),
    *("val/acc_chosen", "val/loss_chosen", "test/acc", "test/loss", "test/acc_final", "test/loss_final"),
    *("whole_run/best_epoch", "whole_run/seconds", "whole_run/images_per_second"),
}


def _events(run: Run) -> EventAccumulator:
    """What the run's one event file holds."""
    (file,) = run.tensorboard.rglob("*")
    return EventAccumulator(str(file), **ALL).Reload()


def _curve(events: EventAccumulator, tag: str) -> list[float]:
    return [float(tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]


def _text(events: EventAccumulator, tag: str) -> str:
    (event,) = events.Tensors(tag)
    return textwrap.dedent(tensor_util.make_ndarray(event.tensor_proto).item().decode())


def _tags(events: EventAccumulator, plugin: str) -> set[str]:
    tags = events.Tags()["tensors"]
    return {tag for tag in tags if events.SummaryMetadata(tag).plugin_data.plugin_name == plugin}


def _tensorboard(folder: Path) -> TBContext:
    """What `tensorboard --logdir` gives its tabs to work on."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    return TBContext(logdir=str(folder), data_provider=MultiplexerDataProvider(multiplexer, str(folder)))


def _hparams(folder: Path) -> tuple[api_pb2.Experiment, list[api_pb2.SessionGroup]]:
    """The HParams tab: its columns and rows."""
    context, request = backend_context.Context(_tensorboard(folder)), RequestContext()
    experiment = context.experiment_from_metadata(
        request, "", True, context.hparams_metadata(request, ""), context.hparams_from_data_provider(request, "", None)
    )
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING],
        col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
    )
    answer = list_session_groups.Handler(request, context, "", asked).run()
    return experiment, list(answer.session_groups)


def _statuses(folder: Path) -> set[int]:
    gc.collect()  # which ends the file of a run that failed after training
    return {session.status for group in _hparams(folder)[1] for session in group.sessions}


def test_every_metric_of_every_epoch_and_of_the_result_is_there(lab: Lab) -> None:
    (run,) = lab(*TINY).runs
    events, metrics, result = _events(run), run.metrics(), run.result()
    for name in ("train/loss", "train/acc", "train/objective", "train/lr", "val/loss", "val/acc"):
        assert _curve(events, name) == pytest.approx(metrics[name].tolist(), rel=1e-5)
    for name in ("test/acc", "test/acc_final", "test/loss", "test/loss_final"):
        assert _curve(events, name) == pytest.approx([result[name]], rel=1e-5)
    assert _curve(events, "val/acc_chosen") == pytest.approx([result["val/acc"]])
    for name in ("seconds", "images_per_second", "best_epoch"):
        assert _curve(events, f"whole_run/{name}") == pytest.approx([result[name]], rel=1e-5)


def test_a_run_is_one_file_with_scalars_by_split_and_quantity(lab: Lab) -> None:
    (run,) = lab(*TINY).runs
    assert _tags(_events(run), "scalars") == TAGS


def test_the_configuration_the_command_and_the_figures_can_be_read(lab: Lab) -> None:
    (run,) = lab(*TINY, "name=mine").runs
    events = _events(run)
    assert _tags(events, "text") == {"command", "config"}
    assert yaml.safe_load(_text(events, "config")) == run.config()
    assert shlex.split(_text(events, "command").replace("\\\n", " ")) == ["python", "-m", "cifar_lab.train", *TINY]
    names = {"curves", "learning_rate", "confusion_matrix"}
    assert set(events.Tags()["images"]) == {f"figures/{name}" for name in names}
    for name in names:
        (image,) = events.Images(f"figures/{name}")
        assert image.encoded_image_string == (run.figures / f"{name}.png").read_bytes()
        assert image.width > 500 and image.height > 300


def test_a_sweep_is_one_run_a_job_with_its_axes_and_metrics_as_columns(lab: Lab) -> None:
    runs = lab("-m", *TINY, "loss=ce,mse", "optimizer.lr=1e-3,1e-2").runs
    experiment, rows = _hparams(Path("outputs"))
    assert {info.name for info in experiment.hparam_infos} == {"loss", "optimizer.lr", "seed"}
    assert {info.name.tag for info in experiment.metric_infos} == TAGS
    assert sorted(row.name for row in rows) == [
        f"{run.folder.relative_to(run.folder.parents[1])}/tensorboard" for run in runs
    ]
    combinations = [(row.hparams["loss"].string_value, row.hparams["optimizer.lr"].number_value) for row in rows]
    assert sorted(combinations) == [("ce", 0.001), ("ce", 0.01), ("mse", 0.001), ("mse", 0.01)]
    assert all({value.name.tag for value in row.metric_values} == TAGS for row in rows)
    by_name = {row.name: {value.name.tag: value.value for value in row.metric_values} for row in rows}
    for run in runs:
        _events(run)
        values = by_name[f"{run.folder.relative_to(run.folder.parents[1])}/tensorboard"]
        assert values["test/acc"] == pytest.approx(run.result()["test/acc"])
    assert _statuses(Path("outputs")) == {api_pb2.STATUS_SUCCESS}


def test_single_runs_and_sweeps_share_a_table(lab: Lab) -> None:
    lab(*TINY, "epochs=1", "model.dropout=0.2")
    lab("-m", *TINY, "epochs=1", "loss=ce,mse")
    experiment, rows = _hparams(Path("outputs"))
    assert {"loss", "model", "optimizer", "model.dropout", "seed"} <= {info.name for info in experiment.hparam_infos}
    assert len(rows) == 3


def test_the_charts_are_the_same_for_all_runs_and_true_of_all(lab: Lab) -> None:
    runs = lab("-m", *TINY, "epochs=1", "protocol=holdout,report").runs
    events = [_events(run).Tensors("custom_scalars__config__") for run in runs]
    layouts = {tensor_util.make_ndarray(event.tensor_proto).item() for (event,) in events}
    (layout,) = map(Layout.FromString, layouts)  # TensorBoard merges equal ones
    charts = [chart for category in layout.category for chart in category.chart]
    assert {tag.removesuffix("$") for chart in charts for tag in chart.multiline.tag} <= TAGS
    with_val = [chart.title for chart in charts if any(tag.startswith("val/") for tag in chart.multiline.tag)]
    assert len(with_val) == 4 and all("under protocol=report: the test set" in title for title in with_val)


@pytest.mark.parametrize("protocol", ["holdout", "report"])
def test_val_is_said_to_be_the_test_set_where_it_is(lab: Lab, protocol: str) -> None:
    events = _events(lab(*TINY, f"protocol={protocol}").runs[0])
    for tag in ("val/acc", "val/loss", "val/acc_chosen", "val/loss_chosen"):
        assert ("the test set" in events.SummaryMetadata(tag).summary_description) == (protocol == "report")


def _fails(*_: object) -> None:
    raise RuntimeError("broken")


def _interrupts(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("place", "breaks", "arguments", "has_val"),
    [
        ((Classifier, "training_step"), _fails, (), False),
        ((Classifier, "on_test_epoch_end"), _fails, (), True),
        ((Recorder, "on_train_epoch_end"), _interrupts, (), True),
        (None, None, ("optimizer=sgd", "optimizer.lr=1e30", "grad_clip=0", "bn=false"), False),
    ],
    ids=["failed in training", "failed in testing", "interrupted", "diverged"],
)
def test_a_run_without_a_result_leaves_what_it_has(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, place: Any, breaks: Any, arguments: tuple[str, ...], has_val: bool
) -> None:
    if place is not None:
        monkeypatch.setattr(*place, breaks)
    outcome = lab(*TINY, *arguments)
    assert outcome.code != 0
    (run,) = outcome.runs
    events = _events(run)
    assert _tags(events, "text") == {"command", "config"}
    assert ("val/acc" in _tags(events, "scalars")) == has_val
    assert _statuses(Path("outputs")) == {api_pb2.STATUS_FAILURE}


def test_a_failure_in_a_figure_ends_the_file(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar_lab.analysis.figures.learning_rate", _fails)
    (run,) = lab(*TINY).runs
    assert "test/acc" in _tags(_events(run), "scalars")
    assert _statuses(Path("outputs")) == {api_pb2.STATUS_FAILURE}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_drawing_the_graph_changes_no_bit_of_training(lab: Lab, precision: str) -> None:
    command = (*TINY, f"trainer.precision={precision}", "trainer.memory_format=channels_last")
    lab(*command, "hydra.run.dir=without")
    assert lab(*command, "hydra.run.dir=with", "logger.log_graph=true").stderr == ""
    runs = [Run("without"), Run("with")]
    assert [events.Tags()["graph"] for events in map(_events, runs)] == [False, True]
    without, drawn = [torch.load(next(run.weights.iterdir()), weights_only=True) for run in runs]
    assert all(torch.equal(without[key], drawn[key]) for key in without)
    quantities = ["train/loss", "train/acc", "train/objective", "train/lr", "val/loss", "val/acc"]
    assert runs[0].metrics()[quantities].equals(runs[1].metrics()[quantities])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model", [path.stem for path in sorted((conf_folder() / "model").glob("*.yaml"))])
def test_every_model_has_a_graph(composed: Compose, tmp_path: Path, model: str, dtype: torch.dtype) -> None:
    config = composed(f"model={model}", "data=synthetic", "logger.log_graph=true")
    network = build(config.model).to(dtype)
    classifier = Classifier(network, torch.nn.CrossEntropyLoss(), torch.optim.Adam, memory_format=torch.channels_last)
    before = copy.deepcopy(network.state_dict())
    logger = build(config.logger, save_dir=tmp_path)
    logger.log_graph(classifier)
    logger.finalize("failed")
    assert network.training and all(torch.equal(network.state_dict()[key], before[key]) for key in before)
    (file,) = (tmp_path / "tensorboard").iterdir()
    graph = EventAccumulator(str(file)).Reload().Graph()
    assert any("Conv2d" in node.name for node in graph.node)
    assert file.stat().st_size < 200_000


def test_fifty_epochs_stay_under_two_megabytes(lab: Lab) -> None:
    arguments = [argument for argument in TINY if not argument.startswith(("epochs", "data.num_train"))]
    (run,) = lab(*arguments, "data.num_train=20", "epochs=50", "logger.log_graph=true").runs
    assert len(_curve(_events(run), "val/acc")) == 50
    (file,) = run.tensorboard.iterdir()
    assert file.stat().st_size < 1_000_000  # half of the limit: other figures have other sizes


def test_other_loggers_need_no_tensorboard(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorboard'] = None; sys.modules['torch.utils.tensorboard'] = None\n"
        "sys.argv = ['train', *sys.argv[1:]]\n"
        "from cifar_lab.train import main\nmain()"
    )
    line = [sys.executable, "-c", code, *TINY, "epochs=1", "logger=csv"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
