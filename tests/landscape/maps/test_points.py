import re

import numpy as np
import pytest
import torch

from cifar_lab.landscape.maps.points import Job, Points, compute, digest
from cifar_lab.terminal import progress
from tests.conftest import on_a_terminal


@pytest.fixture
def points(tmp_path):
    def of(count, key="key"):
        return Points(tmp_path, "squares", key, count)

    return of


@pytest.fixture
def job(points):
    def of(count):
        def evaluate(index, tick):
            tick()
            return {"square": index**2}

        return Job("squares", points(count), evaluate, 10, lambda: 2.0)

    return of


def test_points_are_kept_for_the_next_process_of_the_same_computation_unless_their_file_is_damaged(points):
    first = points(3)
    assert first.pending() == [0, 1, 2]
    first.keep(1, {"loss": 2.5, "both": [1.0, np.inf]})
    again = points(3)
    assert again.pending() == [0, 2]
    np.testing.assert_array_equal(again.values()["loss"], [np.nan, 2.5, np.nan])
    assert again.values()["both"].shape == (3, 2)
    assert points(3, "other").pending() == [0, 1, 2]
    for index in (0, 2):
        again.keep(index, {"loss": np.nan, "both": [0.0, 0.0]})
    assert points(3).pending() == []  # a point with a NaN loss counts as computed
    assert points(2).pending() == [0, 1]
    for damage in (b"", b"not an archive"):
        first.path.write_bytes(damage)
        assert points(3).pending() == [0, 1, 2]


def test_a_digest_changes_with_each_setting_and_each_bit():
    weights = {"w": torch.tensor([1.0, 2.0])}
    nearly = {"w": torch.tensor([1.0, 2.0]).nextafter(torch.tensor(9.0))}
    renamed = {"v": weights["w"]}
    shaped = {"w": weights["w"].view(2, 1)}
    told = [digest({"count": 5}, one) for one in (weights, nearly, renamed, shaped)] + [digest({"count": 6}, weights)]
    assert len(set(told)) == 5
    assert digest({"count": 5}, {"w": weights["w"].clone()}) == told[0]


def test_only_missing_points_are_computed_after_a_forecast(job, capsys):
    first = job(3)
    first.points.keep(1, {"square": -1.0})
    compute("squares", [first])
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert (out, re.findall(r"\d[\d:]*", line)) == ("", ["2", "1", "0:40"])
    assert first.points.values()["square"].tolist() == [0, -1, 4]
    compute("squares", [job(3)])
    (line,) = capsys.readouterr().err.splitlines()
    assert not re.search(r"\d", line)


def test_progress_is_printed_in_lines_and_as_a_bar_on_a_terminal(job, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    compute("squares", [job(4)])
    _, *lines = capsys.readouterr().err.splitlines()
    assert {"25%", "50%", "75%", "100%"} <= {word for line in lines for word in line.split()}
    monkeypatch.setenv("FORCE_COLOR", "1")
    compute("squares", [job(3)])
    assert "\x1b[" not in capsys.readouterr().err
    on_a_terminal(monkeypatch)
    compute("squares", [job(2)])
    assert "\x1b[" in capsys.readouterr().err
