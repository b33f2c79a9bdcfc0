import re
from pathlib import Path

import pytest

from cifar_lab.report.claims.evidence import CONTRADICTED, INCONCLUSIVE, SUPPORTED, UNTESTED
from tests.claim_runs import judge, leave_loss, leave_seeds, row
from tests.conftest import holds
from tests.landscape_runs import diverge


@pytest.mark.parametrize(("noise", "verdict"), [(0.02, SUPPORTED), (0.001, CONTRADICTED)])
def test_stability_of_the_losses_is_decided_by_their_study(tmp_path: Path, noise: float, verdict: str) -> None:
    for name, of_row in (("ce", noise), ("focal", 0.005)):  # these rows rank the other way round, and do not count
        leave_seeds(tmp_path, row(f"loss_{name}"), 0.88, noise=of_row)
    claim = judge(tmp_path)["ce_calmer"]
    assert claim.verdict == UNTESTED
    holds(claim.numbers, "study=loss")
    leave_loss(tmp_path, "ce", 0.88, noise=0.005)
    leave_loss(tmp_path, "focal", 0.88, noise=noise)
    found = judge(tmp_path)
    assert found["ce_calmer"].verdict == verdict
    for name in ("ce_calmer", "focal_fast"):
        holds(found[name].numbers, "cross-entropy 87.00 ± 0.08 % (5)", "focal 87.00 ± 0.08 % (5)")


def test_claims_on_four_losses_are_decided_by_their_study(tmp_path: Path) -> None:
    made = {"ce": (0.88, 0.004), "focal": (0.87, 0.03), "mse": (0.88, 0.001), "label_smoothing": (0.9, 0.01)}
    for loss, (mean, noise) in made.items():
        leave_loss(tmp_path, loss, mean, noise=noise)
    found = judge(tmp_path)
    assert found["smoothing_median"].verdict == SUPPORTED
    assert found["mse_stable"].verdict == SUPPORTED


def test_a_diverging_loss_is_reported_as_less_stable_and_its_other_seeds_decide_nothing(tmp_path: Path) -> None:
    leave_loss(tmp_path, "ce", 0.88, noise=0.005)
    runs = leave_loss(tmp_path, "focal", 0.88, noise=0.02, number=6)
    assert judge(tmp_path)["ce_calmer"].verdict == SUPPORTED
    diverge(runs[3])
    found = judge(tmp_path)
    for name in ("ce_calmer", "focal_fast", "mse_stable"):
        assert found[name].verdict == INCONCLUSIVE
        holds(found[name].numbers, "focal (1 of 6 diverged)")


def test_losses_that_never_reach_80_percent_are_reported(tmp_path: Path) -> None:
    leave_loss(tmp_path, "ce", 0.88)
    leave_loss(tmp_path, "focal", 0.801, spread=0.0006)
    claim = judge(tmp_path)["focal_fast"]
    assert claim.verdict == INCONCLUSIVE
    assert re.search(r"focal \d+\.\d ± \d\.\d epochs \(4, .*1\)", claim.numbers)
    holds(claim.numbers, "focal (1 of 5 ")


@pytest.mark.parametrize(("mse", "verdict"), [(0.03, SUPPORTED), (0.0, CONTRADICTED)])
def test_long_runs_of_the_loss_study_decide(tmp_path: Path, mse: float, verdict: str) -> None:
    for loss, gain in (("ce", 0.01), ("label_smoothing", 0.03), ("mse", mse)):
        leave_loss(tmp_path, loss, 0.88)
        runs = leave_loss(tmp_path, loss, 0.88 + gain, epochs=100, spread=0.0008)
    claim = judge(tmp_path)["many_epochs"]
    assert claim.verdict == verdict
    holds(claim.numbers, "cross-entropy +1.00 ± 0.05 % (5)")
    diverge(runs[0])
    claim = judge(tmp_path)["many_epochs"]
    assert claim.verdict == INCONCLUSIVE
    holds(claim.numbers, "MSE (1 of 5 ")
