from pathlib import Path

import pandas as pd
import pytest

from cifar_lab.search.output import SearchReport, report
from cifar_lab.search.storage import SearchFolder
from cifar_lab.search.trials import TrialRecord
from tests.conftest import holds

TRIALS = (
    TrialRecord(0, {"optimizer.lr": "0.001", "loss": "ce"}, "finished", 0.5, {1: 0.4, 2: 0.5}, "a"),
    TrialRecord(1, {"optimizer.lr": "0.01", "loss": "mse"}, "pruned", None, {1: 0.9}, "b"),
    TrialRecord(2, {"optimizer.lr": "0.002", "loss": "ce"}, "finished", 0.75, {1: 0.4, 2: 0.75}, "c"),
    TrialRecord(3, {"optimizer.lr": "0.1", "loss": "ce"}, "diverged", None, {}, "d", "the loss is nan in step 3"),
    TrialRecord(4, {"optimizer.lr": "0.003", "loss": "ce"}, "failed", None, {}, None, "out of memory"),
)


def make_report(trials: tuple[TrialRecord, ...], importances: dict[str, float]) -> SearchReport:
    return SearchReport(
        "search-x", ["fixed: epochs=2"], trials, importances, frozenset(["optimizer.lr"]), "python -m x"
    )


def test_the_table_ranks_finished_trials_and_distinguishes_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = SearchFolder(tmp_path)
    report(make_report(TRIALS, {"optimizer.lr": 0.75, "loss": 0.25}), folder)
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[1:6]] == ["2", "0", "1", "3", "4"]
    pruned = printed.splitlines()[3]
    best, importances = (next(line for line in printed.splitlines() if fact in line) for fact in ("trial 2", "25%"))
    holds(pruned, "pruned", "epoch 1", "90.00%")
    holds(best, "75.00%", "optimizer.lr=0.002", "loss=ce")
    holds(importances, "optimizer.lr 75%", "loss 25%")
    frame = pd.read_csv(folder.table_csv).set_index("trial")
    assert frame["val/acc"].dropna().to_dict() == {0: 0.5, 2: 0.75}
    assert frame.loc[1, ["state", "epochs", "last val/acc"]].tolist() == ["pruned", 1, 0.9]
    page = folder.table_markdown.read_text()
    assert "```sh\npython -m x\n```" in page
    assert "[c](<c>)" in page
    for figure in (folder.history_figure, folder.importance_figure):
        assert figure.name in page
        assert figure.read_bytes().startswith(b"\x89PNG")


def test_before_a_trial_has_finished_there_is_a_table_and_no_figure(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path)
    report(make_report(TRIALS[1:2], {}), folder)
    assert "pruned" in folder.table_markdown.read_text()
    assert not folder.history_figure.exists()


@pytest.mark.paints
def test_the_figures_show_each_setting_before_importances_are_known(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path)
    report(make_report(TRIALS[:1], {}), folder)
    assert folder.importance_figure.stat().st_size > 5_000
