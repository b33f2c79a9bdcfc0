import itertools
from pathlib import Path
from typing import Any

import pytest

from cifar_lab.report.claims.evidence import CONTRADICTED, INCONCLUSIVE, SUPPORTED, UNTESTED
from cifar_lab.runs import Run
from tests.claim_runs import judge, row
from tests.conftest import holds
from tests.landscape_runs import diverge, leave_band, leave_probed
from tests.published_runs import leave_run


@pytest.mark.parametrize(
    ("reached", "early", "late"), [(0.9, SUPPORTED, CONTRADICTED), (0.4, CONTRADICTED, INCONCLUSIVE)]
)
def test_half_of_the_images_by_epoch_10_and_by_epoch_25_beyond_the_published_runs(
    tmp_path: Path, reached: float, early: str, late: str
) -> None:
    for seed, name in itertools.product(range(3), ("vgg_a_bn", "vgg_a")):
        leave_run(tmp_path / f"{name}{seed}", row(f"{name},optimizer.lr=1e-3"), reached, seed=seed)
    found = judge(tmp_path)
    assert (found["half_by_epoch_10"].verdict, found["half_by_epoch_25"].verdict) == (early, late)


def test_half_of_the_images_must_hold_for_every_run_and_is_unknown_for_a_diverged_one(tmp_path: Path) -> None:
    of_row = row("vgg_a_bn,optimizer.lr=1e-3")
    leave_run(tmp_path / "never" / "0", of_row, 0.4)
    claim = judge(tmp_path / "never")["half_by_epoch_10"]
    assert (claim.verdict, claim.note) == (INCONCLUSIVE, "at least 3 seeds needed")
    holds(claim.numbers, "(1)", "protocol=report")
    leave_run(tmp_path / "diverged" / "0", of_row, 0.9)
    diverge(leave_run(tmp_path / "diverged" / "1", of_row, 0.9, seed=1))
    claim = judge(tmp_path / "diverged")["half_by_epoch_10"]
    assert (claim.verdict, claim.note) == (INCONCLUSIVE, "")
    holds(claim.numbers, "protocol=report", "1 of 2", "diverged")


@pytest.mark.parametrize(
    ("accuracy", "number", "verdict", "note"),
    [
        (0.10, 5, SUPPORTED, "p 0.0079 by Holm"),
        (0.10, 3, INCONCLUSIVE, "at least 5 seeds needed"),  # three seeds against three have an exact p of 0.1
        (0.7, 5, INCONCLUSIVE, ""),
    ],
)
def test_batch_norm_trains_at_larger_rates(
    tmp_path: Path, accuracy: float, number: int, verdict: str, note: str
) -> None:
    for seed in range(number):
        for rate in ("1e-4", "2e-3"):
            leave_run(tmp_path / f"bn{rate}{seed}", row(f"vgg_a_bn,optimizer.lr={rate}"), 0.8, seed=seed)
            without = row(f"vgg_a,optimizer.lr={rate}")
            leave_run(tmp_path / f"none{rate}{seed}", without, accuracy if rate == "2e-3" else 0.7, seed=seed)
    claim = judge(tmp_path)["larger_rates"]
    assert (claim.verdict, claim.note) == (verdict, note)


def test_a_seed_under_both_protocols_counts_once(tmp_path: Path) -> None:
    for protocol in ("report", "holdout"):
        for seed in range(2):
            for name, accuracy in (("vgg_a_bn", 0.8), ("vgg_a", 0.1)):
                of_row = row(f"{name},optimizer.lr=2e-3")
                leave_run(tmp_path / f"{name}{protocol}{seed}", of_row, accuracy, seed=seed, protocol=protocol)
    claim = judge(tmp_path)["larger_rates"]
    assert claim.verdict == INCONCLUSIVE
    holds(claim.numbers, "Adam 2e-3: 2 of 2 seeds", "0 of 2")


def test_an_initialisation_from_which_only_batch_norm_trains_decides_with_five_seeds(tmp_path: Path) -> None:
    leave_probed(tmp_path, seeds=range(5))
    for seed in range(5):
        diverge(Run(tmp_path / f"False_he_{seed}"))
    claim = judge(tmp_path)["larger_rates"]
    assert claim.verdict == SUPPORTED
    holds(claim.numbers, "He, Adam 0.1", "5 of 5", "0 of 5")
    (tmp_path / "False_he_2" / "status.json").unlink()
    assert judge(tmp_path)["larger_rates"].verdict == INCONCLUSIVE  # four seeds without BatchNorm decide nothing


@pytest.mark.parametrize(("reached", "verdict"), [(0.9, SUPPORTED), (0.4, INCONCLUSIVE)])
def test_shorter_runs_show_which_reached_half_but_not_which_never_will(
    tmp_path: Path, reached: float, verdict: str
) -> None:
    leave_band(tmp_path, rates=(1e-3, 2e-3), seeds=(0, 1, 2), accuracy=reached)
    claim = judge(tmp_path)["half_by_epoch_10"]
    assert claim.verdict == verdict
    holds(claim.numbers, "4 epochs")


@pytest.mark.parametrize(
    "changes", [{"data.train_size": 1000}, {"scheduler._target_": "torch.optim.lr_scheduler.CosineAnnealingLR"}]
)
def test_runs_that_do_not_begin_as_the_reports_do_not_show_when_half_is_reached(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    leave_band(tmp_path, rates=(1e-3, 2e-3), accuracy=0.9, changes=changes)
    assert judge(tmp_path)["half_by_epoch_10"].verdict == UNTESTED
