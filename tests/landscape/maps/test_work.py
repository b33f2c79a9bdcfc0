import re

import pytest

from cifar_lab.landscape.maps import work
from cifar_lab.landscape.maps.points import Points
from cifar_lab.landscape.maps.work import Job, compute


@pytest.fixture
def job(tmp_path):
    def of(count, seconds=2.0):
        def evaluate(index, tick):
            tick()
            return {"square": index**2}

        return Job("squares", Points(tmp_path, "squares", "key", count), evaluate, 10, lambda: seconds)

    return of


def test_it_says_before_how_long_it_will_take(job, capsys):
    compute("squares", [job(3)])
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert (out, line.split()[:2]) == ("", ["squares:", "3"])
    assert line.endswith(" 1:00")


def test_it_computes_only_what_is_not_there(job, capsys):
    first = job(3)
    first.points.keep(1, {"square": -1.0})
    compute("squares", [first])
    (line,) = capsys.readouterr().err.splitlines()
    assert re.findall(r"\d[\d:]*", line) == ["2", "1", "0:40"]
    assert first.points.values()["square"].tolist() == [0, -1, 4]
    compute("squares", [job(3)])
    (line,) = capsys.readouterr().err.splitlines()
    assert not re.search(r"\d", line)


def test_away_from_a_terminal_it_says_how_far_it_is(job, capsys, monkeypatch):
    monkeypatch.setattr(work, "_LINE_SECONDS", 0.0)
    compute("squares", [job(4)])
    _, *lines = capsys.readouterr().err.splitlines()
    assert {"25%", "50%", "75%", "100%"} <= {word for line in lines for word in line.split()}


def test_what_is_done_is_kept_where_a_point_fails(job):
    broken = job(3)
    evaluate = broken.evaluate

    def failing(index, tick):
        if index == 2:
            raise KeyboardInterrupt
        return evaluate(index, tick)

    with pytest.raises(KeyboardInterrupt):
        compute("squares", [Job("squares", broken.points, failing, 1, lambda: 0.0)])
    assert job(3).points.pending() == [2]
