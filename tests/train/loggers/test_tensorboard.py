import copy
import gc
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups
from tensorboard.util import tensor_util

import cifar_lab.train.callbacks
from cifar_lab import train
from cifar_lab.config import build, conf_folder
from cifar_lab.runs import DivergedError, Run
from cifar_lab.train.classifier import Classifier
from cifar_lab.train.loggers.description import Description
from cifar_lab.train.loggers.tensorboard import TensorBoard
from tests.comparison import equal
from tests.conftest import TINY, Compose, Outcome, Train

Lab = Callable[..., Outcome]
ALL = {"size_guidance": {"tensors": 0, "images": 0}}
TAGS = {
    *("accuracy/train", "accuracy/val"),
    *("train/loss", "train/acc", "train/objective", "train/lr", "val/loss", "val/acc"),
    *("val/acc_chosen", "val/loss_chosen", "test/acc", "test/loss", "test/acc_final", "test/loss_final"),
    *("whole_run/best_epoch", "whole_run/seconds", "whole_run/images_per_second"),
}
SHORT = (*TINY, "epochs=1", "data.num_train=20")
ALONE = (*TINY, "model.dropout=0.2", "protocol=report", "trainer.precision=32-true")
PICTURE = (7, 5)  # width and height in pixels


class Outputs(NamedTuple):
    """A folder with a single run and a sweep over learning rates."""

    folder: Path
    alone: Run
    swept: list[Run]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outputs]:
    """Runs whose figures are small pictures of noise; no test changes them."""
    folder = tmp_path_factory.mktemp("outputs")

    def save(figure: Figure, file: Any, *, format: str = "png", **_: object) -> None:  # noqa: A002
        Image.effect_noise(PICTURE, 100).save(file, format)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Figure, "savefig", save)
        alone = Run(folder / train.run([*ALONE, "name=mine"])["folder"])
        swept = train.sweep([*TINY, "optimizer.lr=1e-3,1e-2"])
        yield Outputs(folder / "outputs", alone, [Run(folder / one["folder"]) for one in swept])


def _events(run: Run) -> EventAccumulator:
    """Read the run's only event file."""
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


def _hparams(folder: Path) -> tuple[api_pb2.Experiment, list[api_pb2.SessionGroup]]:
    """Return the columns and rows of the HParams tab."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    tabs = TBContext(logdir=str(folder), data_provider=MultiplexerDataProvider(multiplexer, str(folder)))
    context, request = backend_context.Context(tabs), RequestContext()
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
    gc.collect()  # finalizes the event file of a run that failed after training
    return {session.status for group in _hparams(folder)[1] for session in group.sessions}


def test_every_metric_of_every_epoch_and_of_the_result_is_logged(outputs: Outputs) -> None:
    run = outputs.alone
    events, metrics, result = _events(run), run.metrics(), run.result()
    assert _tags(events, "scalars") == TAGS
    for tag in TAGS:
        name = {"accuracy/train": "train/acc", "accuracy/val": "val/acc"}.get(tag, tag)
        own = name.removeprefix("whole_run/").removesuffix("_chosen")
        values = metrics[name].tolist() if name in metrics else [result[own]]
        assert _curve(events, tag) == pytest.approx(values, rel=1e-5), tag


def test_the_configuration_the_command_and_the_confusion_matrix_can_be_read(outputs: Outputs) -> None:
    run = outputs.alone
    events = _events(run)
    assert _tags(events, "text") == {"command", "config"}
    assert yaml.safe_load(_text(events, "config")) == run.config()
    assert shlex.split(_text(events, "command").replace("\\\n", " ")) == ["python", "-m", "cifar_lab.train", *ALONE]
    assert events.Tags()["images"] == ["test/confusion_matrix"]
    (image,) = events.Images("test/confusion_matrix")
    assert (image.width, image.height) == PICTURE


def test_the_first_group_of_tags_is_training_and_validation_accuracy(outputs: Outputs) -> None:
    tags = {*_tags(_events(outputs.alone), "scalars"), *_events(outputs.alone).Tags()["images"]}
    assert [tag for tag in sorted(tags) if tag.partition("/")[0] == min(tags).partition("/")[0]] == [
        "accuracy/train",
        "accuracy/val",
    ]


def test_a_sweep_has_one_run_per_job_with_axes_and_metrics_as_columns(outputs: Outputs) -> None:
    sweep = outputs.swept[0].folder.parent
    experiment, rows = _hparams(sweep)
    assert {info.name for info in experiment.hparam_infos} == {"optimizer.lr", "seed"}
    assert {info.name.tag for info in experiment.metric_infos} == TAGS
    by_name = {row.name: row for row in rows}
    assert len(rows) == len(outputs.swept)
    for run, lr in zip(outputs.swept, (0.001, 0.01), strict=True):
        row = by_name[f"{run.folder.name}/tensorboard"]
        assert row.hparams["optimizer.lr"].number_value == lr
        values = {value.name.tag: value.value for value in row.metric_values}
        assert values.keys() == TAGS
        assert values["test/acc"] == pytest.approx(run.result()["test/acc"])
    assert _statuses(sweep) == {api_pb2.STATUS_SUCCESS}

    # Single runs share a table with the sweep.
    experiment, rows = _hparams(outputs.folder)
    assert {"loss", "model", "optimizer", "model.dropout", "seed"} <= {info.name for info in experiment.hparam_infos}
    (alone,) = [row for row in rows if row.name.startswith(f"{outputs.alone.folder.relative_to(outputs.folder)}/")]
    assert alone.hparams["loss"].string_value == "ce"
    assert alone.hparams["model.dropout"].number_value == 0.2
    assert len(rows) == 3


def test_the_charts_are_the_same_for_all_runs(outputs: Outputs) -> None:
    events = [_events(run).Tensors("custom_scalars__config__") for run in (outputs.alone, *outputs.swept)]
    layouts = {tensor_util.make_ndarray(event.tensor_proto).item() for (event,) in events}
    (layout,) = map(Layout.FromString, layouts)  # TensorBoard merges equal layouts
    charts = [chart for category in layout.category for chart in category.chart]
    assert {tag.removesuffix("$") for chart in charts for tag in chart.multiline.tag} <= TAGS
    with_val = [chart.title for chart in charts if any(tag.startswith("val/") for tag in chart.multiline.tag)]
    assert len(with_val) == 4 and all("protocol=report" in title for title in with_val)
    for run, is_test in ((outputs.alone, True), (outputs.swept[0], False)):
        events = _events(run)
        for tag in ("val/acc", "val/loss", "val/acc_chosen", "val/loss_chosen"):
            assert ("the test set" in events.SummaryMetadata(tag).summary_description) == is_test


@pytest.mark.parametrize("protocol", ["report", "last"])
def test_a_chart_says_whether_the_test_set_chose_the_epoch(protocol: str, tmp_path: Path) -> None:
    logger = TensorBoard(tmp_path)
    logger.describe(
        Description(Run(tmp_path), "", None, (), (), {"protocol": {"name": protocol}}, {}, val_is_test=True)
    )
    logger.log_metrics({"val/acc": 0.5})
    logger.close(succeeded=True)
    written = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    text = written.SummaryMetadata("val/acc").summary_description
    assert "the test set" in text and ("chose" in text) == (protocol == "report")


@pytest.mark.parametrize(
    ("place", "error", "last"),
    [
        ("classifier.Classifier.training_step", RuntimeError("broken"), None),
        ("classifier.Classifier.training_step", DivergedError("nan"), None),
        ("classifier.Classifier.on_test_epoch_end", RuntimeError("broken"), "val/acc"),
        ("callbacks.Recorder.on_train_epoch_end", KeyboardInterrupt(), "val/acc"),
        ("fitting.describe", RuntimeError("broken"), "test/acc"),
    ],
)
def test_a_run_without_a_result_is_logged_as_far_as_it_got(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException, last: str | None
) -> None:
    def breaks(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"cifar_lab.train.{place}", breaks)
    outcome = lab(*SHORT)
    assert outcome.code != 0
    (run,) = outcome.runs
    assert not run.result_file.exists()
    events = _events(run)
    assert _tags(events, "text") == {"command", "config"}
    assert {"val/acc", "test/acc"} & _tags(events, "scalars") == {tag for tag in ("val/acc", last) if last}
    assert _statuses(Path("outputs")) == {api_pb2.STATUS_FAILURE}


@pytest.mark.parametrize(
    "words",
    [
        (),
        *(pytest.param((f"trainer.precision={name}",), marks=pytest.mark.slow) for name in ("32-true", "bf16-mixed")),
    ],
)
def test_drawing_the_graph_changes_no_bit_of_training(
    lab: Lab, trained: Train, outputs: Outputs, words: tuple[str, ...]
) -> None:
    assert not _events(outputs.alone).Tags()["graph"]
    outcome = lab(*TINY, *words, "hydra.run.dir=with", "logger.tensorboard.log_graph=true")
    assert outcome.stderr == ""
    without, drawn = trained(*TINY, *words, "logger=none"), Run("with")
    assert _events(drawn).Tags()["graph"]
    assert equal(*(torch.load(next(run.weights.iterdir()), weights_only=True) for run in (without, drawn)))
    quantities = ["train/loss", "train/acc", "train/objective", "train/lr", "val/loss", "val/acc"]
    assert without.metrics()[quantities].equals(drawn.metrics()[quantities])


OTHERS = [
    (path.stem, dtype, f"model={path.stem}")
    for path in sorted((conf_folder() / "model").glob("*.yaml"))
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.mark.parametrize(
    ("model", "dtype", "option"),
    [
        ("cnn", torch.bfloat16, "model.filters=[4,4,4]"),
        ("resnet14", torch.float32, "model.widths=[8,8,8]"),
        ("vgg_a", torch.float32, "model.stages=[[4],[4]]"),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in OTHERS),
    ],
)
def test_every_model_has_a_graph(
    composed: Compose, tmp_path: Path, model: str, dtype: torch.dtype, option: str
) -> None:
    config = composed(f"model={model}", option, "data=synthetic", "logger.tensorboard.log_graph=true")
    network = build(config.model).to(dtype)
    classifier = Classifier(network, torch.nn.CrossEntropyLoss(), torch.optim.Adam, memory_format=torch.channels_last)
    before = copy.deepcopy(network.state_dict())
    logger = build(config.logger.tensorboard, save_dir=tmp_path)
    logger.log_graph(classifier)
    logger.close(succeeded=False)
    assert network.training and all(torch.equal(network.state_dict()[key], before[key]) for key in before)
    (file,) = (tmp_path / "tensorboard").iterdir()
    graph = EventAccumulator(str(file)).Reload().Graph()
    assert any("Conv2d" in node.name for node in graph.node)
    assert file.stat().st_size < 200_000


@pytest.mark.slow
@pytest.mark.paints
def test_fifty_epochs_stay_under_two_megabytes(lab: Lab) -> None:
    arguments = [argument for argument in TINY if not argument.startswith(("epochs", "data.num_train"))]
    (run,) = lab(*arguments, "data.num_train=20", "epochs=50", "logger.log_graph=true").runs
    assert len(_curve(_events(run), "val/acc")) == 50
    (file,) = run.tensorboard.iterdir()
    assert file.stat().st_size < 1_000_000  # half of the limit, because figures vary in size


def test_other_loggers_need_no_tensorboard(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # closes loggers of other tests, which write when they end
    monkeypatch.delattr(cifar_lab.train.callbacks, "tensorboard", raising=False)  # our module
    monkeypatch.delitem(sys.modules, "cifar_lab.train.loggers.tensorboard", raising=False)
    for name in ("tensorboard", *sys.modules):
        if name.partition(".")[0] == "tensorboard" or name.startswith("torch.utils.tensorboard"):
            monkeypatch.setitem(sys.modules, name, None)
    outcome = lab(*SHORT, "logger=csv")
    assert (outcome.code, outcome.stderr) == (0, "")
