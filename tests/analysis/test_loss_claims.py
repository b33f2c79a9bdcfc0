import re
from pathlib import Path

import pytest

from tests.judged_runs import judged, leave_loss, leave_seeds, row
from tests.landscape_runs import diverge

CALMER = "Cross-entropy was more stable than focal loss"
FAST = "Focal loss is fast but less stable"


@pytest.mark.parametrize(("noise", "verdict"), [(0.02, "supported"), (0.001, "not supported")])
def test_stability_of_the_losses_is_that_of_their_study(tmp_path: Path, noise: float, verdict: str) -> None:
    for name, of_row in (("ce", noise), ("focal", 0.005)):  # the rows are the other way round, and beside it
        leave_seeds(tmp_path, row(f"loss_{name}"), 0.88, noise=of_row)
    claim = judged(tmp_path)[CALMER]
    assert claim.verdict == "untested"
    assert claim.numbers.startswith(
        "study=loss, no finished run of full length; the report's rows, which vary more than the loss"
    )
    leave_loss(tmp_path, "ce", 0.88, noise=0.005)
    leave_loss(tmp_path, "focal", 0.88, noise=noise)
    found = judged(tmp_path)
    assert found[CALMER].verdict == verdict
    for words in (CALMER, FAST):
        assert "final test accuracy: cross-entropy 87.00 ± 0.08 % (5), focal 87.00 ± 0.08 % (5)" in found[words].numbers


def test_four_losses_in_their_study(tmp_path: Path) -> None:
    for loss, mean, noise in (
        ("ce", 0.88, 0.004),
        ("focal", 0.87, 0.03),
        ("mse", 0.88, 0.001),
        ("label_smoothing", 0.9, 0.01),
    ):
        leave_loss(tmp_path, loss, mean, noise=noise)
    found = judged(tmp_path)
    assert found["Label smoothing is of median stability and high performance"].verdict == "supported"
    assert found["MSE is stable, of normal performance"].verdict == "supported"


def test_a_loss_that_diverges_is_told_to_be_less_stable_and_its_other_seeds_decide_nothing(tmp_path: Path) -> None:
    leave_loss(tmp_path, "ce", 0.88, noise=0.005)
    runs = leave_loss(tmp_path, "focal", 0.88, noise=0.02, number=6)
    assert judged(tmp_path)[CALMER].verdict == "supported"
    diverge(runs[3])
    found = judged(tmp_path)
    for words in (CALMER, FAST, "MSE is stable, of normal performance"):
        assert found[words].verdict == "untested"
        assert "not compared: focal (1 of 6 diverged)" in found[words].numbers
        assert "the less stable for having diverged: focal" in found[words].numbers


def test_who_never_comes_to_80_percent_is_told(tmp_path: Path) -> None:
    leave_loss(tmp_path, "ce", 0.88)
    leave_loss(tmp_path, "focal", 0.801, spread=0.0006)
    claim = judged(tmp_path)[FAST]
    assert claim.verdict == "untested"
    assert re.search(r"focal \d+\.\d ± \d\.\d epochs \(4, never in 1\)", claim.numbers)
    assert "not compared: focal (1 of 5 never came so far)" in claim.numbers


@pytest.mark.parametrize(("mse", "verdict"), [(0.03, "supported"), (0.0, "not supported")])
def test_many_epochs_in_the_study_of_the_losses(tmp_path: Path, mse: float, verdict: str) -> None:
    words = "Label smoothing and MSE show great potential after many epochs"
    for loss, gain in (("ce", 0.01), ("label_smoothing", 0.03), ("mse", mse)):
        leave_loss(tmp_path, loss, 0.88)
        runs = leave_loss(tmp_path, loss, 0.88 + gain, epochs=100, spread=0.0008)
    claim = judged(tmp_path)[words]
    assert claim.verdict == verdict
    assert "cross-entropy +1.00 ± 0.05 % (5)" in claim.numbers
    diverge(runs[0])
    claim = judged(tmp_path)[words]
    assert claim.verdict == "untested"
    assert claim.numbers.endswith("not compared: MSE (1 of 5 diverged)")
