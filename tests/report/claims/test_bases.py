"""The report's conclusions on a fast experiment, decided by studies of it."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind

from cifar_lab.report.claims.bases import Base, bases, pflop
from cifar_lab.runs import Record

MEANS = {"ce": 0.915, "focal": 0.905, "mse": 0.916, "label_smoothing": 0.920}
AROUND = np.array([-0.002, -0.001, 0.0, 0.001, 0.002])


def _run(accuracy: float, seed: int, *words: str, study: str | None = "loss", **options: str) -> Record:
    typed = (*([f"study={study}"] if study else []), "experiment=fast_91", f"seed={seed}", *words)
    settings = {"epochs": 6.0, "bn": True, "protocol.name": "last", "protocol.val_fraction": 0.0, "optimizer.sgd_lr": 1}
    return Record(
        "finished",
        options={
            "experiment": "fast_91",
            "study": study,
            "data": "cifar10",
            "loss": "ce",
            "optimizer": "muon",
            **options,
        },
        settings=settings,
        overrides=typed,
        identity=" ".join(typed),
        seed=seed,
        result={"test/acc": accuracy, "flops_per_image": 1e8, "train_size": 50_000, "epochs": 6},
    )


def _of_losses(means: dict[str, float], *words: str) -> list[Record]:
    return [
        _run(mean + off, seed, f"loss={loss}", *words, loss=loss)
        for loss, mean in means.items()
        for seed, off in enumerate(AROUND)
    ]


def _only(runs: list[Record]) -> Base:
    (base,) = bases(runs)
    return base


def _verdicts(base: Base) -> dict[str, str]:
    return {claim.words: claim.verdict for claim in base.claims}


def test_a_conclusion_is_decided_by_its_arms_over_seeds() -> None:
    verdicts = _verdicts(_only(_of_losses(MEANS)))
    assert (
        verdicts["Label smoothing is above cross-entropy"]
        == verdicts["Cross-entropy is above focal loss"]
        == "supported"
    )
    assert verdicts["MSE is above cross-entropy"] == "inconclusive"
    assert verdicts["Adam is above SGD"] == verdicts["BatchNorm raises the accuracy"] == "untested"
    turned = _verdicts(_only(_of_losses({**MEANS, "label_smoothing": 0.905})))
    assert turned["Label smoothing is above cross-entropy"] == "contradicted"


def test_the_experiments_own_runs_replace_a_missing_arm_of_a_study() -> None:
    others = _of_losses({loss: mean for loss, mean in MEANS.items() if loss != "ce"})
    own = [_run(MEANS["ce"] + off, seed, study=None) for seed, off in enumerate(AROUND)]
    apart = [_run(0.5, seed, "augment=none", study=None, augment="none") for seed in range(5)]
    whole = _verdicts(_only(_of_losses(MEANS)))
    assert _verdicts(_only([*others, *own, *apart])) == _verdicts(_only([*_of_losses(MEANS), *own])) == whole
    unstudied = [_run(mean, 0, f"loss={loss}", study=None, loss=loss) for loss, mean in MEANS.items()]
    assert _verdicts(_only(unstudied))["MSE is above cross-entropy"] == "inconclusive"
    assert not _only(own).claims


def test_the_interval_is_welchs_and_the_effect_size_is_cohens() -> None:
    first, second = MEANS["label_smoothing"] + AROUND, MEANS["ce"] + AROUND
    low, high = (100 * bound for bound in ttest_ind(first, second, equal_var=False).confidence_interval())
    told = {claim.words: claim.numbers for claim in _only(_of_losses(MEANS)).claims}
    words = told["Label smoothing is above cross-entropy"]
    assert f"({low:+.2f} to {high:+.2f})" in words
    assert f"d = {0.005 / AROUND.std(ddof=1):+.1f}" in words


def test_an_arm_counts_at_its_most_frequent_rate_not_at_its_best() -> None:
    runs = _of_losses(MEANS, "optimizer.sgd_lr=1")
    better = [_run(0.99, 0, "loss=ce", "optimizer.sgd_lr=9", loss="ce")]
    assert _verdicts(_only(runs + better)) == _verdicts(_only(runs))
    told = {claim.words: claim.numbers for claim in _only(runs + better).claims}
    assert "ce: optimizer.sgd_lr=1" in told["MSE is above cross-entropy"]


@pytest.mark.parametrize("word", ["epochs=2", "protocol=holdout", "model.widths=[8,8,8]", "data.train_size=100"])
def test_runs_that_differ_in_more_than_arm_and_rates_do_not_count(word: str) -> None:
    key = word.partition("=")[0]
    others = _of_losses({"label_smoothing": 0.5, "ce": 0.9}, word)
    for run in others:
        run.settings[key] = 1  # type: ignore[index]
    with_others = _of_losses(MEANS) + others
    assert set(_verdicts(_only(others)).values()) == {"untested"}
    assert _verdicts(_only(with_others)) == _verdicts(_only(_of_losses(MEANS)))


def test_batch_norm_is_an_arm_although_it_is_not_an_option() -> None:
    def arm(bn: bool, mean: float) -> list[Record]:
        runs = [_run(mean + off, seed, f"bn={str(bn).lower()}", study="batch_norm") for seed, off in enumerate(AROUND)]
        for run in runs:
            run.settings["bn"] = bn  # type: ignore[index]
        return runs

    base = _only(arm(True, 0.92) + arm(False, 0.85))
    assert _verdicts(base)["BatchNorm raises the accuracy"] == "supported"


def test_a_row_with_a_diverged_run_is_reported_but_not_compared() -> None:
    runs = _of_losses(MEANS)
    lost = Record(**{**vars(runs[0]), "state": "diverged", "result": {}})
    base = _only([lost, *runs[1:]])
    told: dict[str, Any] = {claim.words: claim for claim in base.claims}
    claim = told["Label smoothing is above cross-entropy"]
    assert (claim.verdict, "1 of 5 diverged" in claim.numbers) == ("inconclusive", True)


def test_the_runs_of_a_base_are_those_of_the_unchanged_experiment() -> None:
    own = [_run(0.92, seed, "data.root=/data", study=None) for seed in (1, 0)]
    for run in own:
        run.settings["data.root"] = "/data"  # type: ignore[index]
    changed = [_run(0.93, 0, "epochs=9", study=None)]
    base = _only(own + changed + _of_losses(MEANS))
    assert [run.seed for run in base.own] == [0, 1]
    assert len(base.of_studies) == 20
    assert pflop(own[0]) == pytest.approx(3 * 1e8 * 50_000 * 6 / 1e15)
    assert not _only(own).claims
