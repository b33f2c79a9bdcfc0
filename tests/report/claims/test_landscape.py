import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cifar_lab.report.claims.evidence import CONTRADICTED, INCONCLUSIVE, NOT_MEASURED, SUPPORTED, UNTESTED, Claim
from cifar_lab.report.claims.evidence import judged as decided
from cifar_lab.report.claims.landscape import Landscape, claims, landscape
from cifar_lab.runs import Run, find_runs
from cifar_lab.table.records import gather
from tests.claim_runs import LANDSCAPE, LIPSCHITZ
from tests.conftest import holds
from tests.landscape_runs import RATES, diverge, leave, leave_band, leave_probed

ENDS = (RATES[0], RATES[-1])  # half of the runs, with a band as wide


def landscape_of(folder: Path) -> Landscape:
    return landscape(gather(find_runs(folder)))


def judge(folder: Path) -> dict[str, Claim]:
    return dict(zip(LANDSCAPE, decided(claims(landscape_of(folder))), strict=True))


def test_without_runs_nothing_is_tested_and_no_number_is_printed() -> None:
    assert {(claim.verdict, claim.numbers) for claim in decided(claims(Landscape()))} == {(UNTESTED, NOT_MEASURED)}


@pytest.mark.parametrize(("sharper", "verdict"), [(4.0, SUPPORTED), (0.25, CONTRADICTED)])
def test_three_seeds_decide_according_to_the_hessians(tmp_path: Path, sharper: float, verdict: str) -> None:
    leave_probed(tmp_path, seeds=(0, 1, 2), sharper=sharper, noise=0.03)
    claims = judge(tmp_path)
    assert (claims["gradient_at_the_point"].verdict, claims["predictive"].verdict) == (verdict, verdict)


def test_two_seeds_give_numbers_but_decide_nothing(tmp_path: Path) -> None:
    leave_probed(tmp_path, seeds=(0, 1))
    claims = judge(tmp_path)
    claim = claims["gradient_at_the_point"]
    assert (claim.verdict, claim.note) == (INCONCLUSIVE, "at least 3 seeds needed")
    holds(claim.numbers, "Xavier 4 (2 seeds)", "He 4 (2 seeds)")
    holds(claim.decides, "||Hg||/||g||")
    holds(claims["gradient_over_a_step"].numbers, "1/eta_min")


def test_loss_and_gradient_at_the_point_and_over_a_step_are_separate_claims(tmp_path: Path) -> None:
    leave_probed(tmp_path, seeds=(0, 1, 2), inits=("xavier",), noise=0.1)
    for run in find_runs(tmp_path):  # without BatchNorm: less steep at the point, steeper over a step
        probes = dict(np.load(run.probes_file))
        factor = 1 if run.folder.name.startswith("True") else 0.5 * (1 + 0.01 * (run.result()["seed"] or 0))
        probes["grad_norm"] *= factor
        probes["moved_grad_norm"] = np.tile(probes["grad_norm"][:, None] / factor**3, probes["eta"].shape[1])
        run.write_probes(probes)
    claims = judge(tmp_path)
    verdicts = [claims[name].verdict for name in LIPSCHITZ]
    assert verdicts == [CONTRADICTED, SUPPORTED, SUPPORTED, SUPPORTED]
    holds(claims["loss_at_the_point"].numbers, "Xavier 0.505")
    holds(claims["loss_over_a_step"].numbers, "Xavier 3.92")
    leave_probed(tmp_path, seeds=(0, 1, 2), inits=("he",), sharper=0.5)
    assert judge(tmp_path)["gradient_at_the_point"].verdict == CONTRADICTED  # still contradicted with Xavier alone


def test_an_initialisation_whose_runs_diverged_is_named(tmp_path: Path) -> None:
    leave_probed(tmp_path, seeds=(0, 1, 2), noise=0.1)
    for seed in range(3):
        diverge(Run(tmp_path / f"False_he_{seed}"))
    for name, claim in judge(tmp_path).items():
        if name != "shift":  # nothing was measured for it
            holds(claim.numbers, "not compared: He without BatchNorm (3 of 3 diverged)")


def test_the_band_is_reported_with_the_loss_variation(tmp_path: Path) -> None:
    leave_band(tmp_path, rates=ENDS, seeds=(0, 1, 2), widen=0.1)
    claim = judge(tmp_path)["smoother"]
    holds(claim.numbers, "1 to 40", "3.29 [3, 3.6]")
    assert claim.verdict == UNTESTED  # no run has probes


def test_the_longest_of_several_lengths_decides(tmp_path: Path) -> None:
    leave_band(tmp_path / "short", rates=ENDS, epochs=2)
    leave_band(tmp_path / "long", rates=ENDS, epochs=6)
    leave_band(tmp_path / "other images", rates=ENDS, epochs=6, changes={"data.train_size": 1000})
    group = landscape_of(tmp_path).band_group
    assert group is not None
    assert group.length == (float("inf"), 6)


@pytest.mark.parametrize(
    "changes",
    [
        {"data._target_": "cifar_lab.data.datamodule.SyntheticDataModule"},
        {"model.stages": [[4], [4], [4], [4], [4]]},
        {"model._target_": "my_lab.VGG"},
    ],
)
def test_other_images_and_other_networks_decide_nothing(tmp_path: Path, changes: dict[str, object]) -> None:
    for number, bn in enumerate((True, True, False, False)):
        run = leave(tmp_path / str(number), bn=bn, lr=(1e-3, 2e-3)[number % 2], changes=changes)
        run.write_steps({"loss": np.ones(40)})
    assert landscape_of(tmp_path) == Landscape()


def write_shift(path: Path, folders: Iterable[str], cosine: dict[bool, float]) -> None:
    places = itertools.product(folders, (0, 4), (1, 2, 3))
    lines = [(name, epoch, layer, "", 1.0 if layer == 1 else cosine["bn_" in name]) for name, epoch, layer in places]
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(lines, columns=["run", "epoch", "layer", "name", "cosine"]).to_csv(path, index=False)


@pytest.mark.parametrize("place", ["covariate_shift.csv", "landscape/covariate_shift.csv"])
def test_covariate_shift_of_both_networks_is_read_from_files_next_to_the_runs(tmp_path: Path, place: str) -> None:
    leave_band(tmp_path, rates=ENDS, seeds=(0, 1, 2))
    names = [run.folder.name for run in find_runs(tmp_path)]
    for without, verdict in ((0.5, SUPPORTED), (0.95, CONTRADICTED)):
        write_shift(tmp_path / place, names, {True: 0.9, False: without})
        claim = judge(tmp_path)["shift"]
        assert claim.verdict == verdict
        holds(claim.numbers, "Xavier 0.9", f" {without}")
    write_shift(tmp_path / place, [name for name in names if "bn_" in name], {True: 0.9})
    assert judge(tmp_path)["shift"].verdict == UNTESTED
    (tmp_path / place).write_bytes(b"\xff\x00")
    assert judge(tmp_path)["shift"].verdict == UNTESTED
