from pathlib import Path

import numpy as np
import pytest

from cifar_lab.landscape.batch_norm.figures import smoothness
from cifar_lab.landscape.batch_norm.runs import groups
from cifar_lab.landscape.batch_norm.smoothness import SmoothnessComparison, compare, write_smoothness
from cifar_lab.runs import Run, find_runs
from cifar_lab.table.records import gather
from tests.conftest import holds
from tests.landscape_runs import check_written, diverge, leave, leave_probed


def compare_folder(folder: Path, lr: float = 0.1) -> SmoothnessComparison:
    (group,) = groups(gather(find_runs(folder)))
    return compare(group, lr)


def test_ratios_are_those_of_the_hessians_at_common_steps(tmp_path: Path) -> None:
    leave_probed(tmp_path, seeds=(0, 1, 2), noise=0.25)
    bn = Run(tmp_path / "True_he_0")
    bn.write_probes({name: one if name == "relative_distance" else one[2:] for name, one in bn.probes().items()})
    found = compare_folder(tmp_path)
    assert found.inits == ["xavier", "he"]
    for quantity in ("hessian_norm", "gradient_range", "beta", "change_at_0.01"):
        estimate = found.ratio("he", quantity)
        assert estimate.value == pytest.approx((4 * 5 * 6) ** (1 / 3))
        assert estimate.interval == pytest.approx((4, 6))
    lines = found.ratios.set_index(["init", "quantity"])
    assert lines.loc[("xavier", "hessian_norm"), "seeds"] == 3


def test_beta_is_always_shown_with_its_ceiling(tmp_path: Path) -> None:
    leave_probed(tmp_path, lr=0.6, inits=("xavier",))  # eta_min is 0.3, and the Hessian without BatchNorm reaches 4
    found = compare_folder(tmp_path, 0.6)
    shares = found.frame.set_index("bn")["share_at_ceiling"]
    assert (shares[True], shares[False] > 0) == (0, True)
    (told,) = [one for one in found.sentences if " beta" in one and " 0 %" in one]
    holds(told, " 0 %", f" {100 * shares[False]:.3g} %")


def test_a_larger_variation_with_batch_norm_is_reported(tmp_path: Path) -> None:
    leave_probed(tmp_path, inits=("xavier",), sharper=0.25)
    share, steps = compare_folder(tmp_path).lost("xavier")
    assert share == len(steps) / 6


def test_a_diverging_network_is_compared_at_finite_steps_and_diverged_runs_are_left_out(tmp_path: Path) -> None:
    leave_probed(tmp_path, seeds=(0, 1))
    for seed in (0, 1):
        diverge(Run(tmp_path / f"False_he_{seed}"))
    none = Run(tmp_path / "False_xavier_0")
    probes = none.probes()
    probes["loss"][-1] = np.nan
    probes["moved_loss"][-2, -1] = np.inf
    none.write_probes(probes)
    found = compare_folder(tmp_path)
    assert np.isfinite(found.ratio("xavier", "loss_range").value)
    assert found.frame.query("init == 'xavier'")["probes"].tolist() == [6, 6, 5, 6]
    assert found.inits == ["xavier"]
    assert any("He" in line and "2 of 2" in line for line in found.sentences)


def test_probes_of_only_one_network_are_refused_with_the_remedy(tmp_path: Path) -> None:
    leave_probed(tmp_path)
    for init in ("xavier", "he"):
        (tmp_path / f"True_{init}_0" / "probes.npz").unlink()
    with pytest.raises(ValueError, match=r"study=bn_smoothness.*probe=gradient"):
        compare_folder(tmp_path)
    with pytest.raises(ValueError, match="study=bn_smoothness"):
        write_smoothness([leave(tmp_path / "alone", bn=True, lr=1.0)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.paints
def test_the_figure_and_its_numbers_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_probed(tmp_path / "runs", seeds=(0, 1), probes=30)
    written = write_smoothness(find_runs(tmp_path / "runs"), tmp_path / "out")
    names = {"smoothness.png", "smoothness.npz", "smoothness.csv", "smoothness_ratios.csv"}
    check_written(written, tmp_path / "out", names, capsys.readouterr().out)
    assert [*written.tables] == ["smoothness", "smoothness_ratios"]
    assert written.tables["smoothness_ratios"]["low"].isna().all()  # two seeds have no interval
    with np.load(tmp_path / "out" / "smoothness.npz") as arrays:
        beta = arrays["none_he_seed_1_beta"]
    row = written.tables["smoothness"].query("init == 'he' and not bn and seed == 1")
    assert row["beta"].item() == pytest.approx(np.median(beta))


def test_each_arm_has_its_own_line_below_the_ceiling_and_panels_may_be_empty(tmp_path: Path) -> None:
    leave_probed(tmp_path)
    drawn = smoothness(compare_folder(tmp_path))
    (beta,) = [axes for axes in drawn.axes if "β-smoothness" in axes.get_title()]
    ceiling, arms = beta.lines[-1], beta.lines[:-1]
    assert ceiling.get_ydata()[0] == pytest.approx(1 / 0.05)
    assert len({(line.get_color(), line.get_linestyle()) for line in arms}) == 4
    holds(drawn.get_suptitle(), "vgg_a", "CIFAR-10", "50,000", "4 epochs", "seed 0")
    for run in find_runs(tmp_path):
        run.write_probes({name: one for name, one in run.probes().items() if not name.startswith("relative")})
    found = compare_folder(tmp_path)
    assert found.relative_quantities == []
    gone = [len(was.lines) - len(now.lines) for was, now in zip(drawn.axes, smoothness(found).axes, strict=True)]
    assert sorted(gone)[-3:] == [0, 4, 4]  # the lines of four arms, in two panels


def test_several_rates_have_a_figure_each(tmp_path: Path) -> None:
    for lr in (0.1, 0.01):
        leave_probed(tmp_path / str(lr), lr=lr, inits=("xavier",))
    written = write_smoothness(find_runs(tmp_path), tmp_path / "out")
    assert [path.name for path in written.figures] == ["smoothness_lr_0.01.png", "smoothness_lr_0.1.png"]
