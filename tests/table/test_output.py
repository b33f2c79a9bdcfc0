import pytest

from cifar_lab.runs import Record
from cifar_lab.table.comparison import Comparison, Row
from cifar_lab.table.output import accuracies, drawn_rows


def _comparison(rows: int) -> Comparison:
    """Compositions of one run each, better and better."""
    records = [Record("finished", result={"test/acc": 0.5 + row / 100, "test_size": 100}) for row in range(rows)]
    return Comparison(("lr",), tuple(Row({"lr": str(row)}, (record,)) for row, record in enumerate(records)))


@pytest.mark.parametrize(("rows", "shown"), [(20, range(20)), (21, range(11, 21))])
def test_figures_show_every_row_or_of_many_the_best_in_the_tables_order(rows: int, shown: range) -> None:
    drawn = drawn_rows(_comparison(rows))
    assert [row.cells["lr"] for row in drawn.rows] == [str(row) for row in shown]
    figure = accuracies(drawn, "learning rates")
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [str(row) for row in shown]
