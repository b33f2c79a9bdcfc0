import numpy as np
import pytest
from scipy import stats

from cifar_lab.runs import Record
from cifar_lab.statistics.paired import holm
from cifar_lab.statistics.power import seeds_needed
from cifar_lab.table import text
from cifar_lab.table.comparison import Comparison, Row
from cifar_lab.table.pairs import by_seed, check_comparable, described
from tests.conftest import holds
from tests.kinds_of_runs import RESULT

ROWS = {"ce": [0.90, 0.91, 0.905, 0.90], "mse": [0.88, 0.89, 0.87, 0.885], "focal": [0.901, 0.909, 0.903, 0.901]}


def _row(name: str, accuracies: list[float], first_seed: int = 0, **changes: object) -> Row:
    results = [{**RESULT, "test/acc": accuracy, **changes} for accuracy in accuracies]
    records = [
        Record("finished", settings={"protocol.name": result["protocol"]}, result=result, seed=seed)
        for seed, result in enumerate(results, first_seed)
    ]
    return Row({"loss": name}, tuple(records))


def test_the_best_row_is_tested_against_each_other_row_by_seed_and_corrected_over_these_pairs() -> None:
    pairs = by_seed({name: _row(name, values) for name, values in ROWS.items()})
    assert [(pair.first, pair.second) for pair in pairs] == [("ce", "focal"), ("ce", "mse")]
    for pair in pairs:
        first, second = np.array(ROWS["ce"]), np.array(ROWS[pair.second])
        assert pair.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
        assert pair.seeds_needed == seeds_needed((first - second).std(ddof=1), 0.005, paired=True)
    assert [pair.adjusted for pair in pairs] == pytest.approx(holm([pair.p for pair in pairs]).tolist())


def test_only_common_seeds_count() -> None:
    (pair,) = by_seed({"ce": _row("ce", ROWS["ce"]), "mse": _row("mse", ROWS["mse"], first_seed=2)})
    assert (pair.number, pair.accuracies) == (2, pytest.approx((0.9025, 0.885)))
    assert by_seed({"ce": _row("ce", ROWS["ce"]), "mse": _row("mse", ROWS["mse"], first_seed=3)}) == []


@pytest.mark.parametrize(
    ("changes", "fact"), [({"protocol": "report"}, "protocol=report"), ({"test_size": 500}, "500")]
)
def test_runs_of_other_test_sets_or_protocols_are_refused(changes: dict[str, object], fact: str) -> None:
    rows = [_row("ce", ROWS["ce"]), _row("mse", ROWS["mse"], **changes)]
    with pytest.raises(ValueError, match=fact):
        check_comparable([record for row in rows for record in row.finished])
    (line,) = described(rows)
    holds(line, "not tested", fact)


def test_a_page_ends_with_the_differences_in_words(tmp_path: object) -> None:
    rows = [_row(name, values) for name, values in ROWS.items()]
    lines = described([*rows, _row("hinge", [0.5])])
    assert len(lines) == 3
    holds(lines[0], "ce (90.38%) minus focal (90.35%)", "+0.03 points", "not significant", "4 seeds", "3 needed")
    holds(lines[1], "ce (90.38%) minus mse", "by Holm", ": significant")
    holds(lines[2], "1", "fewer than 2 common seeds")
    page = text.markdown(Comparison(("loss",), tuple(rows)), "title", tmp_path)  # type: ignore[arg-type]
    holds(page, "## Differences", *described(rows))
    assert described(rows[:1]) == []


def test_rows_with_the_same_label_are_not_lost() -> None:
    (line,) = described([_row("ce", ROWS["ce"]), _row("ce", ROWS["mse"])])
    holds(line, "ce (90.38%) minus ce (2)")


def test_only_a_few_of_many_pairs_are_written() -> None:
    lines = described([_row(f"{number}", [0.5, 0.5 + number / 1000]) for number in range(30)])
    assert len(lines) == 11
    holds(lines[-1], "19 more pairs")
