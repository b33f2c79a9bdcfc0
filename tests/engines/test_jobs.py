import re

import pytest

from cifar_lab.engines.jobs import Turn, clock


def test_the_time_left_is_that_of_this_job_and_those_after_it() -> None:
    turn = Turn(3, 5, 2, each=15.0)
    assert turn.seconds_left() == 45.0  # three jobs of 15 s on average
    assert turn.seconds_left(own=100.0, own_left=4.0) == 34.0
    assert re.findall(r"\d+", str(turn)) == ["3", "5"]


def test_the_first_job_stands_for_the_others() -> None:
    assert Turn(1, 5, 4).seconds_left() is None
    assert Turn(1, 5, 4).seconds_left(own=10.0, own_left=4.0) == 44.0


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_a_clock_has_hours_only_where_there_are_some(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_jobs_that_have_finished_before_take_no_time() -> None:
    assert Turn(1, 5, 1, each=10.0).seconds_left() == 20.0
