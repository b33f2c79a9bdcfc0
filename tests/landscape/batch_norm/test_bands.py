from pathlib import Path

import numpy as np
import pytest

from cifar_lab.landscape.batch_norm.bands import compare, write_band
from cifar_lab.landscape.batch_norm.runs import groups, the_group
from cifar_lab.landscape.maths.bands import Band
from cifar_lab.runs import Run, find_runs
from cifar_lab.table.records import gather
from tests.conftest import holds
from tests.landscape_runs import RATES, check_written, leave, leave_band, losses
from tests.published_runs import STEPS_PER_EPOCH


def compare_folder(folder: Path):
    (group,) = groups(gather(find_runs(folder)))
    return compare(group, "xavier")


def test_the_ratio_of_the_bands_is_that_of_the_losses(tmp_path: Path) -> None:
    leave_band(tmp_path, seeds=(0, 1, 2), widen=0.1)
    found = compare_folder(tmp_path)
    np.testing.assert_allclose(found.frame["ratio/mean_width"], [3.0, 3.3, 3.6], rtol=1e-5)
    assert (found.seeds, found.rates, found.steps, found.steps_per_epoch) == ([0, 1, 2], [*RATES], 40, STEPS_PER_EPOCH)
    estimate = found.band_ratio()
    assert estimate.value == pytest.approx((3.0 * 3.3 * 3.6) ** (1 / 3), rel=1e-5)
    assert estimate.interval == pytest.approx((3.0, 3.6), rel=1e-5)
    assert not found.epochs["bn_wider"].any()


def test_a_loss_of_batch_norm_is_reported_and_a_single_seed_named_as_such(tmp_path: Path) -> None:
    leave_band(tmp_path)
    bn = Run(tmp_path / "bn_xavier_0.002_0")
    steps = bn.steps()
    steps["loss"][:5] = 100.0  # half of the first epoch
    bn.write_steps(steps)
    found = compare_folder(tmp_path)
    assert found.epochs["bn_wider"].tolist() == [True, False, False, False]
    assert found.frame["share_bn_wider"].tolist() == [5 / 40]
    assert any("12.5 %" in line and "1 of 4" in line for line in found.sentences)
    assert found.band_ratio().interval is None
    holds(found.sentences[0], "vgg_a", "CIFAR-10", "50,000", "4 epochs", "seed 0", "Xavier")


def test_runs_outside_both_bands_are_reported(tmp_path: Path) -> None:
    leave_band(tmp_path, seeds=(0, 1))
    gone = Run(tmp_path / "none_xavier_0.002_0")
    gone.write_steps({"loss": np.array([2.0, 3.0, np.inf], dtype=np.float32)})
    gone.fail("diverged", RuntimeError("the loss is inf in step 3"))
    leave(tmp_path / "extra", bn=True, lr=0.01).write_steps({"loss": np.ones(40)})
    (tmp_path / "bn_xavier_0.001_1" / "steps.npz").unlink()
    Run(tmp_path / "bn_xavier_0.001_0").write_steps({"loss": losses(True, 1e-3, 40)[:25].astype(np.float32)})
    found = compare_folder(tmp_path)
    assert (found.seeds, found.rates, found.steps) == ([0], [*RATES[:3]], 25)
    facts = (("lr 0.002", "seed 0", "step 3"), ("lr 0.01,",), ("seed 1",), ("lr 0.001", "seed 0", "25"))
    for line, told in zip(found.left_out, facts, strict=True):
        holds(line, *told)


def test_runs_that_form_no_band_are_refused_with_the_remedy(tmp_path: Path) -> None:
    leave(tmp_path / "a", bn=True, lr=1e-3).write_steps({"loss": np.ones(40)})
    with pytest.raises(ValueError, match=r"lr 0\.001 .*study=bn_landscape"):
        compare_folder(tmp_path)
    with pytest.raises(ValueError, match=r"\S"):
        the_group([])
    leave(tmp_path / "b", bn=False, lr=1e-3, epochs=2)
    with pytest.raises(ValueError, match=r"epochs \((2\.0 and 4\.0|4\.0 and 2\.0)\)"):
        the_group(gather(find_runs(tmp_path)))


@pytest.mark.paints
def test_the_figure_and_its_numbers_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_band(tmp_path / "runs", seeds=(0, 1))
    written = write_band(find_runs(tmp_path / "runs"), tmp_path / "out")
    names = {"band.png", "band.npz", "band.csv", "band_epochs.csv"}
    check_written(written, tmp_path / "out", names, capsys.readouterr().out)
    assert next(iter(written.tables)) == "band"
    with np.load(tmp_path / "out" / "band.npz") as arrays:
        band = Band(arrays["none_low"][1], arrays["none_high"][1])
    assert band.width.mean() == pytest.approx(written.tables["band"]["none/mean_width"][1])


def test_each_initialisation_has_its_own_figure(tmp_path: Path) -> None:
    for init in ("xavier", "he"):
        leave_band(tmp_path / init, init=init)
    written = write_band(find_runs(tmp_path), tmp_path / "out")
    assert [path.name for path in written.figures] == ["band_xavier.png", "band_he.png"]
