import numpy as np
import pytest
import torch

from cifar_lab.landscape.maps.points import Points, digest


def test_points_are_there_in_the_next_process(tmp_path):
    points = Points(tmp_path, "line", "key", 3)
    assert points.pending() == [0, 1, 2]
    points.keep(1, {"loss": 2.5, "both": [1.0, np.inf]})
    again = Points(tmp_path, "line", "key", 3)
    assert again.pending() == [0, 2]
    np.testing.assert_array_equal(again.values()["loss"], [np.nan, 2.5, np.nan])
    assert again.values()["both"].shape == (3, 2)
    for index in (0, 2):
        again.keep(index, {"loss": np.nan, "both": [0.0, 0.0]})
    assert Points(tmp_path, "line", "key", 3).pending() == []  # a loss that is no number has been computed too


def test_another_computation_has_other_points(tmp_path):
    Points(tmp_path, "line", "key", 2).keep(0, {"loss": 1.0})
    assert Points(tmp_path, "line", "other", 2).pending() == [0, 1]


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_a_damaged_file_is_computed_again(tmp_path, content):
    points = Points(tmp_path, "line", "key", 2)
    points.keep(0, {"loss": 1.0})
    points.path.write_bytes(content)
    assert Points(tmp_path, "line", "key", 2).pending() == [0, 1]


def test_a_file_of_another_number_of_points_is_computed_again(tmp_path):
    Points(tmp_path, "line", "key", 2).keep(0, {"loss": 1.0})
    assert Points(tmp_path, "line", "key", 3).pending() == [0, 1, 2]


def test_a_digest_changes_with_each_setting_and_each_bit():
    weights = {"w": torch.tensor([1.0, 2.0])}
    nearly = {"w": torch.tensor([1.0, 2.0]).nextafter(torch.tensor(9.0))}
    renamed = {"v": weights["w"]}
    shaped = {"w": weights["w"].view(2, 1)}
    told = [digest({"count": 5}, one) for one in (weights, nearly, renamed, shaped)] + [digest({"count": 6}, weights)]
    assert len(set(told)) == 5
    assert digest({"count": 5}, {"w": weights["w"].clone()}) == told[0]
