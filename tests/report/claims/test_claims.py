import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from cifar_lab.config import checked, preflight
from cifar_lab.report.claims.evidence import CONTRADICTED, INCONCLUSIVE, SUPPORTED, UNTESTED
from cifar_lab.runs import Run
from tests.claim_runs import CLAIMS, judge, leave_seeds, row
from tests.conftest import holds
from tests.landscape_runs import diverge
from tests.published_runs import leave_run


def test_without_runs_only_the_number_of_parameters_decides(tmp_path: Path) -> None:
    found = judge(tmp_path)
    decided = {name: claim.verdict for name, claim in found.items() if claim.verdict != UNTESTED}
    assert decided == {"compact": CONTRADICTED}
    assert len({claim.words for claim in found.values()}) == len(CLAIMS) == 23


JOBS = {
    "-m experiment=activation_leaky_relu,activation_relu seed='range(0,5)' protocol=holdout": 2 * 5,
    "study=loss loss=ce,label_smoothing,mse seed='range(0,5)'": 3 * 5,
    "study=loss loss=ce,label_smoothing,mse epochs=100 seed='range(0,5)'": 3 * 5,
    "study=bn_landscape bn=false optimizer.lr=1e-3 seed='range(0,3)'": 3,
}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_claim_names_command_lines_that_train_the_runs_that_decide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: bool
) -> None:
    # Composing each job takes long.
    monkeypatch.setattr(preflight, "around", lambda axes: [[axis[0] for axis in axes]])
    monkeypatch.setattr(preflight, "suspects", lambda *_: [])
    found = judge(tmp_path)
    commands = {name: re.findall(r"cifar_lab\.train ([^;]*)", claim.command) for name, claim in found.items()}
    assert [name for name, lines in commands.items() if not lines] == ["compact"]
    assert len(commands["many_epochs"]) == 2
    lines = {line for lines in commands.values() for line in lines}
    assert lines >= JOBS.keys()
    jobs = {line: len(checked(shlex.split(line)).jobs) for line in sorted(lines if every else JOBS)}
    assert jobs.items() >= JOBS.items()


@pytest.mark.parametrize(
    ("means", "number", "verdict", "numbers"),
    [
        ((0.894, 0.8935, 0.874), 5, SUPPORTED, "LeakyReLU 89.40 ± 0.08 % (5)"),
        ((0.89, 0.87, 0.894), 5, CONTRADICTED, "ELU 89.40 ± 0.08 % (5)"),
        ((0.894, 0.8935, 0.874), 4, INCONCLUSIVE, "ELU 87.38 ± 0.06 % (4)"),  # four seeds decide nothing
    ],
)
def test_two_activations_are_alike_and_one_is_weaker(
    tmp_path: Path, means: tuple[float, ...], number: int, verdict: str, numbers: str
) -> None:
    for name, mean in zip(("leaky_relu", "relu", "elu"), means, strict=True):
        leave_seeds(tmp_path, row(f"activation_{name}"), mean, number=number)
    found = judge(tmp_path)
    assert (found["alike"].verdict, found["elu_weaker"].verdict) == (verdict, verdict)
    holds(found["elu_weaker"].numbers, numbers)


def test_a_claim_is_decided_by_its_own_rows_under_a_protocol_that_can_decide(tmp_path: Path) -> None:
    for name in ("leaky_relu", "relu", "elu"):
        leave_run(tmp_path / name, row(f"activation_{name}"), 0.7)
    for name in ("leaky_relu", "relu"):
        leave_seeds(tmp_path, row(f"activation_{name}"), 0.894, protocol="holdout")
    found = judge(tmp_path)
    assert found["alike"].verdict == SUPPORTED
    holds(found["alike"].numbers, "LeakyReLU 89.40 ± 0.08 % (5)", " ReLU 89.40 ± 0.08 % (5)", "protocol=holdout")
    assert found["elu_weaker"].verdict == UNTESTED
    holds(found["elu_weaker"].numbers, "protocol=holdout")


def test_rows_are_alike_if_their_difference_is_surely_within_the_margin(tmp_path: Path) -> None:
    for name, mean in (("leaky_relu", 0.893), ("relu", 0.89)):
        leave_seeds(tmp_path, row(f"activation_{name}"), mean, spread=0.0001)
    claim = judge(tmp_path)["alike"]
    assert claim.verdict == SUPPORTED
    holds(claim.numbers, "LeakyReLU − ReLU +0.30", "+0.28", "+0.32")
    holds(claim.decides, "± 0.5", "Welch")


def test_a_row_with_a_diverged_seed_is_reported_but_not_compared(tmp_path: Path) -> None:
    leave_seeds(tmp_path, row("activation_leaky_relu"), 0.894)
    leave_seeds(tmp_path, row("activation_relu"), 0.894)
    diverge(leave_seeds(tmp_path, row("activation_elu"), 0.874, number=7)[6])
    found = judge(tmp_path)
    assert found["alike"].verdict == SUPPORTED
    assert found["elu_weaker"].verdict == INCONCLUSIVE
    holds(found["elu_weaker"].numbers, "ELU 87.42 ± 0.09 % (6)", "ELU (1 of 7 ")


@pytest.mark.parametrize(("drop", "verdict"), [(0.5, SUPPORTED), (-0.04, INCONCLUSIVE)])
def test_the_smoothness_of_transitions_is_the_largest_jump_after_the_first_epochs(
    tmp_path: Path, drop: float, verdict: str
) -> None:
    for name in ("plateau", "cosine"):  # rougher first epochs, which say nothing about the schedule
        leave_seeds(tmp_path, row(f"scheduler_{name}"), 0.88, losses={1: 9.0, 3: 9.0})
    for seed in range(5):
        losses = {20: 1.0 + drop + 0.01 * seed}
        leave_run(tmp_path / f"step{seed}", row("scheduler_step"), 0.88, seed=seed, losses=losses)
    claim = judge(tmp_path)["step_rougher"]
    assert claim.verdict == verdict
    holds(claim.numbers, "step 0.")


@pytest.mark.parametrize(("of_leaky_relu", "verdict"), [(0.05, SUPPORTED), (0.25, INCONCLUSIVE), (0.35, CONTRADICTED)])
def test_dead_units_of_relu_are_compared_with_those_of_leaky_relu(
    tmp_path: Path, of_leaky_relu: float, verdict: str
) -> None:
    for name, share in (("relu", 0.25), ("leaky_relu", of_leaky_relu)):
        leave_seeds(tmp_path, row(f"activation_{name}"), 0.89)
        claim = judge(tmp_path)["units_revived"]
        assert claim.verdict == UNTESTED
        holds(claim.command, "protocol=report; for run in", "python -m cifar_lab.explain")
        for seed in range(5):
            folder = tmp_path / f"activation_{name}{seed}" / "explanation"
            folder.mkdir()
            told = {"fingerprint": Run(folder.parent).result()["fingerprint"], "images": 2_000}
            shares = [{**told, "negative_only": share + 0.001 * seed}, {**told, "negative_only": 0.9}]
            pd.DataFrame(shares).to_csv(folder / "dead_units.csv", index=False)
    claim = judge(tmp_path)["units_revived"]
    assert claim.verdict == verdict
    assert claim.numbers.startswith("ReLU 25.20 ± 0.16 % (5), LeakyReLU ")
    for name in ("relu", "leaky_relu"):  # more seeds under a different protocol, without counts of dead units
        leave_seeds(tmp_path, row(f"activation_{name}"), 0.89, number=6, protocol="holdout")
    assert judge(tmp_path)["units_revived"] == claim
    (tmp_path / "activation_relu0" / "explanation" / "dead_units.csv").write_text("no table")
    assert judge(tmp_path)["units_revived"].numbers.startswith("ReLU 25.25 ± 0.13 % (4)")
    for seed, change in enumerate(({"images": 10}, {"fingerprint": "another"}, {"negative_only": -1.0}), start=1):
        path = tmp_path / f"activation_relu{seed}" / "explanation" / "dead_units.csv"
        pd.read_csv(path).assign(**change).to_csv(path, index=False)
    assert judge(tmp_path)["units_revived"].numbers.startswith("ReLU 25.40 % (1)")


@pytest.mark.parametrize(
    ("data", "typed", "verdict"),
    [
        ("cifar10", [], SUPPORTED),
        ("synthetic", ["data=synthetic"], UNTESTED),
        ("cifar10", ["model.dropout=0"], UNTESTED),
        ("cifar10", ["data.train_size=10000"], UNTESTED),
    ],
)
def test_a_study_decides_as_written_and_on_its_own_images(
    tmp_path: Path, data: str, typed: list[str], verdict: str
) -> None:
    for optimizer, mean in (("adam", 0.89), ("sgd", 0.88), ("sign_sgd", 0.87)):
        options = {"study": "optimizer", "optimizer": optimizer, "experiment": None, "data": data}
        told = {"protocol": "holdout", "options": options, "overrides": [f"optimizer={optimizer}", *typed]}
        leave_seeds(tmp_path, row(f"optimizer_{optimizer}"), mean, **told)
    claim = judge(tmp_path)["adam_over_sgd"]
    assert claim.verdict == verdict
    assert ("Adam − SGD +1.00" in claim.numbers) == (verdict == SUPPORTED)
