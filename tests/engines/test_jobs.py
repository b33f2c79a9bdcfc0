import re

import pytest

from cifar_lab.engines.handover import Turn, clock


@pytest.mark.parametrize(
    ("turn", "own", "seconds"),
    [
        (Turn(3, 5, 2, each=15.0), {}, 45.0),  # this job and those after it
        (Turn(3, 5, 2, each=15.0), {"own": 100.0, "own_left": 4.0}, 34.0),
        (Turn(1, 5, 4), {}, None),
        (Turn(1, 5, 4), {"own": 10.0, "own_left": 4.0}, 44.0),  # the first stands for the others
        (Turn(1, 5, 1, each=10.0), {}, 20.0),  # those that have finished before take no time
        (Turn(1, 9, later=7, each=10.0, beside=3), {}, 10 + 10 * 3),
    ],
)
def test_the_time_left_is_that_of_the_jobs_to_come(turn: Turn, own: dict[str, float], seconds: float | None) -> None:
    assert turn.seconds_left(**own) == seconds
    assert re.findall(r"\d+", str(turn)) == [str(turn.number), str(turn.total)]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_a_clock_has_hours_only_where_there_are_some(seconds: float, text: str) -> None:
    assert clock(seconds) == text
