import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifar_lab.runs import Record, Run, job_key, locked
from cifar_lab.table import output, text
from cifar_lab.table.comparison import Comparison, Row, as_text, compare
from cifar_lab.table.records import collect
from tests.conftest import holds
from tests.kinds_of_runs import RESULT

LOSSES = {
    "ce": {"_target_": "torch.nn.CrossEntropyLoss"},
    "focal": {"_target_": "cifar_lab.losses.FocalLoss", "alpha": 1, "gamma": 2},
}
Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a run's folder: `make("loss=focal seed=1", accuracy=0.5)`; without an accuracy, it is still running."""

    def run(line: str = "", accuracy: float | None = None, **changes: Any) -> Run:
        words = dict(word.split("=") for word in line.split())
        loss, seed = words.get("loss", "ce"), int(words.get("seed", 0))
        config = {
            "name": "test",
            "seed": seed,
            "epochs": 50,
            "loss": {**LOSSES[loss], **({"gamma": float(words["loss.gamma"])} if "loss.gamma" in words else {})},
            "optimizer": {"lr": float(words.get("optimizer.lr", 1e-3)), "fused": None},
            "scheduler": {"T_max": 50},
            "data": {"root": f"/data{seed}", "seed": seed},
            "protocol": {"name": "holdout"},
            **changes,
        }
        config["scheduler"]["T_max"] = config["epochs"]
        made = Run(tmp_path / f"{len(list(tmp_path.iterdir())):03d}")
        options = {"loss": loss, "data": "cifar10", "protocol": "holdout", "experiment": None}
        made.start(config, line.split(), options, {"scheduler.T_max": "${epochs}", "data.seed": "${seed}"})
        if accuracy is not None:
            made.append_metrics({"epoch": 1, "train/loss": 2.0, "train/acc": 0.5, "val/acc": accuracy})
            accuracies = {"test/acc": accuracy, "test/acc_final": accuracy - 0.01, "val/acc": accuracy}
            made.finish({**RESULT, **accuracies, "options": options, "seed": seed})
        return made

    return run


def _compare(runs: list[Run], jobs: list[list[str]] | None = None) -> Comparison:
    return compare(collect([(runs, _with_runs(runs, jobs or []))]))


def _with_runs(runs: list[Run], jobs: list[list[str]]) -> list[tuple[list[str], Run | None]]:
    by_words = {job_key(run.overrides()): run for run in runs}
    return [(job, by_words.get(job_key(job))) for job in jobs]


def test_a_row_holds_mean_deviation_and_number_of_seeds(make: Make) -> None:
    accuracies = {"ce": [0.50, 0.52, 0.57], "focal": [0.40]}
    runs = [make(f"loss={loss} seed={seed}", value) for loss, of in accuracies.items() for seed, value in enumerate(of)]
    comparison = _compare(runs)
    assert comparison.columns == ("loss",)
    frame = comparison.frame().set_index("loss")
    assert frame.loc["ce", "test/acc_mean"] == pytest.approx(0.53)
    assert frame.loc["ce", "test/acc_sd"] == pytest.approx(((0.03**2 + 0.01**2 + 0.04**2) / 2) ** 0.5)
    assert frame.loc["ce", "test/acc_final_mean"] == pytest.approx(0.52)
    assert np.isnan(frame.loc["focal", "test/acc_sd"])
    assert frame.loc["ce", "seeds"] == "0 1 2"
    words = text.table(comparison).set_index("loss")
    assert words.loc["ce", text.CHOSEN] == "53.00 ± 3.61 (3)"
    assert words.loc["focal", text.CHOSEN] == "40.00 (1)"
    assert words.loc["focal", text.LAST] == "39.00 (1)"
    assert words.loc["ce", "state"] == "finished"


def test_only_what_varies_is_a_column(make: Make) -> None:
    runs = [make(epochs=epochs) for epochs in (10, 20)]  # the schedule's length follows the epochs and is not a column
    assert _compare(runs).columns == ("epochs",)
    runs = [make("optimizer.lr=0.1"), make("optimizer.lr=0.01 seed=1")]  # no folder, nothing that follows the seed
    assert _compare(runs).columns == ("optimizer.lr",)
    assert _compare(runs[:1]).columns == ()
    runs = [make("optimizer.lr=0.1 loss=ce"), make("optimizer.lr=0.2 loss=focal")]  # in typed order
    assert _compare(runs).columns == ("optimizer.lr", "loss")


def test_settings_of_different_options_are_not_columns_but_those_of_one_option_are(make: Make) -> None:
    runs = [make("loss=ce"), make("loss=focal")]
    assert _compare(runs).columns == ("loss",)
    comparison = _compare([*runs, make("loss=focal loss.gamma=1")])
    assert comparison.columns == ("loss", "loss.gamma")
    assert [tuple(row.cells.values()) for row in comparison.rows] == [("ce", ""), ("focal", "2"), ("focal", "1")]


def test_two_runs_of_one_composition_and_seed_count_once(make: Make) -> None:
    first = make("optimizer.lr=0.001 seed=0", 0.5)
    second = make("optimizer.lr=1e-3 seed=0", 0.5)
    unfinished = make("seed=0")
    comparison = _compare([first, second, unfinished])
    assert [[record.folder for record in row.records] for row in comparison.rows] == [[second.folder]]


def test_a_composition_without_a_result_is_a_row_that_says_so(make: Make) -> None:
    runs = [make("loss=ce seed=0", 0.5), make("loss=ce seed=1"), make("loss=focal seed=0"), make("loss=focal seed=1")]
    runs[1].fail("diverged", RuntimeError("train/loss is nan\nin epoch 1"))
    runs[2].fail("failed", RuntimeError("no memory"))
    runs[3].set_state("running", epoch=3, epochs=50)
    jobs = [[f"loss={loss}", f"seed={seed}"] for loss in ("ce", "focal") for seed in (0, 1, 2)]
    with locked(runs[3].lock_file):
        rows = text.table(_compare(runs, jobs)).set_index("loss")
    assert "seed 1 dead" in _compare(runs, jobs).rows[1].state
    assert list(rows.index) == ["ce", "focal"]
    assert rows.loc["ce", text.CHOSEN] == "50.00 (1)"
    holds(rows.loc["ce", "state"], "1 of 3", "seed 1 diverged", "train/loss is nan", "seed 2 missing")
    assert "\n" not in rows.loc["ce", "state"]
    assert rows.loc["focal", text.CHOSEN] == "-"
    facts = ("0 of 3", "seed 0 failed", "no memory", "seed 1 running", "3 of 50", "seed 2 missing")
    holds(rows.loc["focal", "state"], *facts)


def test_a_reason_that_several_runs_share_is_printed_once_and_its_bar_is_escaped(make: Make, tmp_path: Path) -> None:
    runs = [make(f"seed={seed}") for seed in (0, 1)]
    for run in runs:
        run.fail("failed", RuntimeError("no | memory"))
    (row,) = _compare(runs).rows
    holds(row.state, "0 of 2", "seeds 0 1 failed")
    assert row.state.count("no | memory") == 1
    assert r" no \| memory" in text.markdown(_compare(runs), "x", tmp_path)


def test_a_missing_composition_is_described_by_its_command_line(make: Make) -> None:
    jobs = [[f"loss={loss}", f"optimizer.lr={lr}"] for loss in ("ce", "focal") for lr in ("1e-3", "0.1")]
    comparison = _compare([make("loss=ce optimizer.lr=1e-3", 0.5)], jobs)
    cells = [("ce", "0.001"), ("ce", "0.1"), ("focal", "0.001"), ("focal", "0.1")]
    assert [tuple(row.cells.values()) for row in comparison.rows] == cells
    assert [row.state for row in comparison.rows] == ["finished", "missing", "missing", "missing"]
    comparison = _compare([], jobs)  # no run exists
    assert comparison.columns == ("loss", "optimizer.lr")
    assert {row.state for row in comparison.rows} == {"missing"}


@pytest.mark.parametrize(
    ("group", "options", "columns"),
    [("experiment", ("loss_ce", "optimizer_adam"), ["experiment"]), ("trainer", ("cpu", "auto"), [])],
)
def test_equal_experiments_have_a_row_each_and_options_that_change_no_numbers_share_one(
    make: Make, group: str, options: tuple[str, ...], columns: list[str]
) -> None:
    runs = [make(f"seed={seed}", 0.5) for seed in (0, 1)]
    for run, option in zip(runs, options, strict=True):
        told = run.composition()
        told["options"][group] = option
        run.composition_file.write_text(json.dumps(told))
    comparison = _compare(runs)
    assert list(comparison.columns) == columns
    assert [list(row.cells.values()) for row in comparison.rows] == (
        [[option] for option in options] if columns else [[]]
    )


def test_a_missing_composition_shows_no_settings_of_a_different_option(make: Make) -> None:
    runs = [make("loss=ce", 0.5, activation={"slope": 0.1}), make("loss=ce", 0.5, activation={"slope": 0.2})]
    comparison = _compare(runs, [["loss=focal"]])
    assert comparison.columns == ("loss", "activation.slope")
    (row,) = [row for row in comparison.rows if row.state == "missing"]
    assert tuple(row.cells.values()) == ("focal", "")


def test_a_run_in_a_different_folder_is_not_missing(make: Make) -> None:
    jobs = [["loss=ce", "seed=0"], ["loss=ce", "seed=1"]]
    runs = [make("loss=ce seed=0", 0.5), make("loss=ce seed=1", 0.6)]
    (row,) = compare(collect([(some, _with_runs(some, jobs)) for some in (runs[:1], runs[1:])])).rows
    assert row.state == "finished"


@pytest.mark.parametrize("content", ["", "epoch,val/acc", "epoch,train/acc,val/acc\n1,0.5,0.5\n2,0.", "a,b\n1,2\n"])
def test_damaged_metrics_do_not_affect_the_other_curves(make: Make, content: str) -> None:
    good, bad = make("loss=focal", 0.5), make("loss=ce", 0.5)
    bad.metrics_file.write_text(content)
    figure = output.curves(_compare([good, bad]), "losses")
    assert figure is not None
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[1].lines}
    assert lines == {"focal": [0.5]} | ({"ce": [0.5]} if content.count("\n") == 2 and "train" in content else {})
    bad.fail("diverged", RuntimeError("train/loss is nan"))
    figure = output.curves(_compare([good, bad]), "losses")
    assert figure is not None
    assert [line.get_label() for line in figure.axes[1].lines] == ["focal"]


def test_settings_are_written_as_they_are_typed() -> None:
    values = [50.0, 1e-6, 0.1234567891, True, None, [4.0, 8.0]]
    assert list(map(as_text, values)) == ["50", "1e-06", "0.1234567891", "true", "null", "[4,8]"]


def test_the_page_states_data_protocol_and_caveats(make: Make, tmp_path: Path) -> None:
    runs = [make(f"loss={loss} seed={seed}", 0.5) for loss in ("ce", "focal") for seed in (0, 1)]
    runs[0].finish({**runs[0].result(), "train_size": 9_000})
    page = text.markdown(_compare(runs), "losses", tmp_path, ["accuracy.png"])
    (data,) = [line for line in page.splitlines() if line.startswith("- data")]
    assert not re.search(r"\d,000", data)
    assert re.findall(r"\d+,000", page) == ["27,000", "45,000"]  # the row means
    for run in runs:
        run.finish({**run.result(), "train_size": 9_000})
    page = text.markdown(_compare(runs), "losses", tmp_path, ["accuracy.png"])
    (data,) = [line for line in page.splitlines() if line.startswith("- data")]
    holds(data, "CIFAR-10", "9,000", "45,000")
    assert any("protocol" in line and "holdout" in line for line in page.splitlines() if line.startswith("- "))
    assert "![accuracy](accuracy.png)" in page
    assert f"[{runs[0].folder.name}](<{runs[0].folder.name}>)" in page


def test_files_and_figures_are_written_if_there_are_results(make: Make, tmp_path: Path) -> None:
    runs, folder = [make("loss=ce seed=0", 0.5), make("loss=focal")], tmp_path / "table"
    for shown, figures in ((runs, ["accuracy.png", "curves.png"]), (runs[1:], [])):
        output.write(_compare(shown), folder)
        assert sorted(path.name for path in folder.iterdir()) == [*figures, "table.csv", "table.md"]


def test_figures_hold_every_composition_and_its_spread(make: Make) -> None:
    values = {"ce": [0.5, 0.6, 0.55], "focal": [0.4]}
    runs = [make(f"loss={loss} seed={seed}", value) for loss, of in values.items() for seed, value in enumerate(of)]
    comparison = _compare(runs)
    curves = output.curves(comparison, "losses")
    assert curves is not None
    _, accuracy = curves.axes
    assert [line.get_label() for line in accuracy.lines] == ["ce", "focal"]
    assert [line.get_ydata()[0] for line in accuracy.lines] == pytest.approx([0.55, 0.4])
    (spread,) = [part for part in accuracy.collections if len(part.get_paths()[0].vertices) == 2]
    assert spread.get_paths()[0].vertices[:, 1].tolist() == pytest.approx([0.5, 0.6])
    bars = output.accuracies(comparison, "losses")
    assert bars is not None
    (axes,) = bars.axes
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == pytest.approx([0.55, 0.4])


@pytest.mark.parametrize(("number", "shown"), [(20, range(20)), (21, range(11, 21))])
def test_figures_show_every_row_or_the_best_of_many_in_the_tables_order(number: int, shown: range) -> None:
    records = [Record("finished", result={"test/acc": 0.5 + row / 100, "test_size": 100}) for row in range(number)]
    rows = tuple(Row({"lr": str(row)}, (record,)) for row, record in enumerate(records))
    drawn = output.drawn_rows(Comparison(("lr",), rows))
    assert [row.cells["lr"] for row in drawn.rows] == [str(row) for row in shown]
    figure = output.accuracies(drawn, "learning rates")
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [f"lr={row}" for row in shown]
