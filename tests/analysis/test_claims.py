import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from cifar_lab.config import checked, preflight
from cifar_lab.runs import Run
from tests.judged_runs import judged, leave_seeds, row
from tests.landscape_runs import diverge
from tests.published_runs import leave_run

SIMILAR = "LeakyReLU and ReLU have similar performance"
WEAKER = "ELU is significantly weaker"


def test_without_runs_only_the_parameters_decide(tmp_path: Path) -> None:
    found = judged(tmp_path)
    decided = {words: claim.verdict for words, claim in found.items() if claim.verdict != "untested"}
    assert decided == {"The best model is a compact network of 2.6 M parameters": "not supported"}
    assert len(found) == 20


def test_every_claim_tells_a_command_line_that_trains_what_decides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "neighbours", lambda overrides: [])  # a composition of each job takes long
    found = judged(tmp_path)
    assert [claim.words for claim in found.values() if not claim.command] == [
        "The best model is a compact network of 2.6 M parameters"
    ]
    trained = {line for claim in found.values() for line in re.findall(r"cifar_lab\.train ([^;]*)", claim.command)}
    jobs = {line: len(checked(shlex.split(line)).jobs) for line in sorted(trained)}
    assert jobs["study=loss loss=ce,focal seed='range(0,5)'"] == 2 * 5
    assert jobs["study=loss loss=ce,label_smoothing,mse seed='range(0,5)' epochs=100"] == 3 * 5
    assert jobs["study=bn_landscape bn=false optimizer.lr=1e-3"] == 3
    rows = "activation_leaky_relu,activation_relu,activation_elu"
    assert jobs[f"-m experiment={rows} seed='range(0,5)' protocol=holdout"] == 3 * 5


def test_activations_that_are_alike_and_one_that_is_weaker(tmp_path: Path) -> None:
    for name, mean in (("leaky_relu", 0.894), ("relu", 0.8935), ("elu", 0.874)):
        leave_seeds(tmp_path, row(f"activation_{name}"), mean)
    found = judged(tmp_path)
    assert found[SIMILAR].verdict == "supported"
    assert found[WEAKER].verdict == "supported"
    assert "LeakyReLU 89.40 ± 0.08 % (5)" in found[WEAKER].numbers


def test_activations_the_other_way_round(tmp_path: Path) -> None:
    for name, mean in (("leaky_relu", 0.89), ("relu", 0.87), ("elu", 0.894)):
        leave_seeds(tmp_path, row(f"activation_{name}"), mean)
    found = judged(tmp_path)
    assert found[SIMILAR].verdict == "not supported"
    assert found[WEAKER].verdict == "not supported"


def test_four_seeds_decide_nothing(tmp_path: Path) -> None:
    for name, mean in (("leaky_relu", 0.894), ("relu", 0.8935), ("elu", 0.874)):
        leave_seeds(tmp_path, row(f"activation_{name}"), mean, number=4)
    claim = judged(tmp_path)[WEAKER]
    assert claim.verdict == "untested"
    assert "ELU 87.38 ± 0.06 % (4)" in claim.numbers


def test_a_claim_is_decided_under_the_protocol_that_can_decide_and_by_its_own_rows(tmp_path: Path) -> None:
    for name in ("leaky_relu", "relu", "elu"):
        leave_run(tmp_path / name, row(f"activation_{name}"), 0.7)
    for name in ("leaky_relu", "relu"):
        leave_seeds(tmp_path, row(f"activation_{name}"), 0.894, protocol="holdout")
    found = judged(tmp_path)
    assert found[SIMILAR].verdict == "supported"
    assert found[SIMILAR].numbers.startswith("LeakyReLU 89.40 ± 0.08 % (5), ReLU 89.40 ± 0.08 % (5), protocol=holdout")
    assert found[WEAKER].verdict == "untested"
    assert "protocol=holdout" in found[WEAKER].numbers


def test_alike_is_whose_difference_surely_does_not_count_even_where_it_is_surely_one(tmp_path: Path) -> None:
    for name, mean in (("leaky_relu", 0.893), ("relu", 0.89)):
        leave_seeds(tmp_path, row(f"activation_{name}"), mean, spread=0.0001)
    claim = judged(tmp_path)[SIMILAR]
    assert claim.verdict == "supported"
    assert "LeakyReLU − ReLU +0.30 points (+0.28 to +0.32" in claim.numbers
    assert "within ± 0.5 points, even where Welch's test, corrected by Holm, tells the two apart" in claim.decides


def test_a_row_of_which_a_seed_has_diverged_is_told_and_not_compared(tmp_path: Path) -> None:
    leave_seeds(tmp_path, row("activation_leaky_relu"), 0.894)
    leave_seeds(tmp_path, row("activation_relu"), 0.894)
    diverge(leave_seeds(tmp_path, row("activation_elu"), 0.874, number=7)[6])
    found = judged(tmp_path)
    assert found[SIMILAR].verdict == "supported"
    assert found[WEAKER].verdict == "untested"
    assert "ELU 87.42 ± 0.09 % (6)" in found[WEAKER].numbers
    assert found[WEAKER].numbers.endswith("not compared: ELU (1 of 7 diverged)")


@pytest.mark.parametrize(("drop", "verdict"), [(0.5, "supported"), (0.0, "not supported")])
def test_transitions_are_as_smooth_as_their_largest_jump_after_the_first_epochs(
    tmp_path: Path, drop: float, verdict: str
) -> None:
    for name in ("plateau", "cosine"):  # their first epochs are rougher, which says nothing of the schedule
        leave_seeds(tmp_path, row(f"scheduler_{name}"), 0.88, losses={1: 9.0, 3: 9.0})
    for seed in range(5):
        leave_run(
            tmp_path / f"step{seed}", row("scheduler_step"), 0.88, seed=seed, losses={20: 1.0 + drop + 0.01 * seed}
        )
    claim = judged(tmp_path)["StepLR gave controlled decay, plateau and cosine smoother transitions"]
    assert claim.verdict == verdict
    assert "mean change: step 0." in claim.numbers


@pytest.mark.parametrize(("of_leaky_relu", "verdict"), [(0.05, "supported"), (0.25, "not supported")])
def test_dead_units_of_relu_beside_those_of_leaky_relu(tmp_path: Path, of_leaky_relu: float, verdict: str) -> None:
    words = "LeakyReLU revives dying units"
    for name, share in (("relu", 0.25), ("leaky_relu", of_leaky_relu)):
        leave_seeds(tmp_path, row(f"activation_{name}"), 0.89)
        claim = judged(tmp_path)[words]
        assert claim.verdict == "untested"
        assert "protocol=report; for run in" in claim.command
        for seed in range(5):
            folder = tmp_path / f"activation_{name}{seed}" / "explanation"
            folder.mkdir()
            told = {"fingerprint": Run(folder.parent).result()["fingerprint"], "images": 2_000}
            shares = [{**told, "negative_only": share + 0.001 * seed}, {**told, "negative_only": 0.9}]
            pd.DataFrame(shares).to_csv(folder / "dead_units.csv", index=False)
    claim = judged(tmp_path)[words]
    assert claim.verdict == verdict
    assert claim.numbers.startswith("ReLU 25.20 ± 0.16 % (5), LeakyReLU ")
    for name in ("relu", "leaky_relu"):  # more seeds of another protocol, whose units nobody has counted
        leave_seeds(tmp_path, row(f"activation_{name}"), 0.89, number=6, protocol="holdout")
    assert judged(tmp_path)[words] == claim
    (tmp_path / "activation_relu0" / "explanation" / "dead_units.csv").write_text("no table")
    assert judged(tmp_path)[words].numbers.startswith("ReLU 25.25 ± 0.13 % (4)")
    for seed, change in enumerate(({"images": 10}, {"fingerprint": "another"}, {"negative_only": -1.0}), start=1):
        path = tmp_path / f"activation_relu{seed}" / "explanation" / "dead_units.csv"
        pd.read_csv(path).assign(**change).to_csv(path, index=False)
    assert judged(tmp_path)[words].numbers.startswith("ReLU 25.40 % (1)")


@pytest.mark.parametrize(
    ("data", "typed", "verdict"),
    [
        ("cifar10", [], "supported"),
        ("synthetic", ["data=synthetic"], "untested"),
        ("cifar10", ["model.dropout=0"], "untested"),
        ("cifar10", ["data.train_size=10000"], "untested"),
    ],
)
def test_a_study_decides_as_it_is_told_and_on_the_images_that_it_is_about(
    tmp_path: Path, data: str, typed: list[str], verdict: str
) -> None:
    for optimizer, mean in (("adam", 0.89), ("sgd", 0.88), ("sign_sgd", 0.87)):
        for seed in range(5):
            options = {"study": "optimizer", "optimizer": optimizer, "experiment": None, "data": data}
            leave_run(
                tmp_path / f"{optimizer}{seed}",
                row(f"optimizer_{optimizer}"),
                mean + 0.0003 * seed,
                seed=seed,
                protocol="holdout",
                options=options,
                overrides=[f"optimizer={optimizer}", *typed],
            )
    claim = judged(tmp_path)["Adam outperformed SGD due to adaptive rates"]
    assert claim.verdict == verdict
    assert ("Adam − SGD +1.00 points" in claim.numbers) == (verdict == "supported")
    assert "that adaptive rates are the cause is not tested" in claim.decides
