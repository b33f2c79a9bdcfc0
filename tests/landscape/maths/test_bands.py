import numpy as np
import pytest

from cifar_lab.landscape.maths.bands import SMALLEST_LOSS, band, epoch_means, finite_steps, share_wider

STEPS = np.arange(101.0)


def test_the_band_of_known_curves_has_the_known_area():
    triangle = band([1 + STEPS, np.ones(101), 1 + STEPS / 2])
    assert triangle.numbers()["area"] == pytest.approx(100**2 / 2)
    assert triangle.numbers()["mean_width"] == pytest.approx(50)
    np.testing.assert_array_equal(triangle.width, STEPS)
    fan = band([np.exp(-STEPS / 50), np.exp(-STEPS / 25)]).numbers()
    assert fan["log_area"] == pytest.approx(100**2 / 2 / 50)
    assert fan["mean_log_width"] == pytest.approx(1.0)
    thrice = band([3 * (1 + STEPS), np.full(101, 3.0)]).numbers()  # changes the unit of the loss
    assert thrice["mean_width"] == pytest.approx(3 * 50)
    assert thrice["mean_log_width"] == pytest.approx(triangle.numbers()["mean_log_width"])


def test_a_loss_that_is_rounded_to_zero_counts_as_the_smallest_resolution_of_float32():
    assert band([np.zeros(3), np.full(3, SMALLEST_LOSS)]).log_width.tolist() == [0, 0, 0]
    assert band([np.zeros(3), np.ones(3)]).log_width == pytest.approx(24 * np.log(2))


def test_a_band_ends_with_its_shortest_run_and_needs_two_runs_with_finite_losses():
    assert len(band([np.ones(5), np.ones(3), np.ones(4)]).low) == 3
    for losses, steps in (([1.0, 2.0, np.inf, 1.0], 2), ([np.nan], 0), (np.ones(4), 4)):
        assert finite_steps(np.array(losses)) == steps
    for curves, facts in (([np.ones(3), np.array([1.0, np.nan, 1.0])], "finite"), ([np.ones(3)], r"\b1$")):
        with pytest.raises(ValueError, match=facts):
            band(curves)


def test_which_band_is_wider_may_differ_in_logarithms():
    high, low = band([np.full(4, 10.0), np.full(4, 12.0)]), band([np.full(4, 0.1), np.full(4, 1.0)])
    assert (share_wider(high, low), share_wider(high, low, in_log=True)) == (1.0, 0.0)
    quarter = band([np.zeros(4), np.array([3.0, 1.0, 1.0, 1.0])])
    assert share_wider(quarter, high) == 0.25
    assert share_wider(high, high) == 0
    with pytest.raises(ValueError, match=r"\b4\b.*\b2\b"):
        share_wider(high, band([np.ones(2), np.ones(2)]))


def test_the_last_epoch_may_be_short():
    np.testing.assert_allclose(epoch_means(np.array([1.0, 3.0, 5.0, 7.0, 8.0]), 2), [2, 6, 8])
