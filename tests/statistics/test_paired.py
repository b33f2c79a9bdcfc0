import numpy as np
import pytest
from scipy import stats

from cifar_lab.statistics.paired import holm, mcnemar, paired_t


def test_holms_correction_equals_rs_example_and_is_at_most_1() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])


def test_holms_correction_keeps_the_family_wise_error_rate() -> None:
    drawn = np.random.default_rng(1).uniform(size=(4000, 6))
    assert np.mean([holm(p).min() < 0.05 for p in drawn]) <= 0.06


def test_the_paired_t_test_equals_students_own_example() -> None:
    # Extra hours of sleep of ten patients (Student 1908; R's `sleep`): t = 4.0621, p = 0.002833.
    dextro = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    laevo = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    tested = paired_t(laevo, dextro)
    assert (tested.difference, tested.p) == pytest.approx((1.58, 0.002833), rel=1e-3)
    assert tested.interval == pytest.approx((0.7001142, 2.4598858))
    assert paired_t(dextro, laevo).p == tested.p


def test_a_paired_t_test_handles_zero_noise_and_a_single_pair() -> None:
    same = np.array([0.1, 0.3, 0.2])
    assert paired_t(same, same) == (0.0, (0.0, 0.0), 1.0)
    assert paired_t(same + 0.1, same).p == 0.0
    with pytest.raises(ValueError, match="two pairs"):
        paired_t(same[:1], same[:1])


def test_mcnemars_test_equals_a_textbook_example() -> None:
    # Approval of a prime minister by 1,600 voters (Agresti 2002, "Categorical Data Analysis", section 10.1): 150 and 86
    # changed their mind; z^2 = (86 - 150)^2 / 236 = 17.36 without the correction, 63^2 / 236 = 16.82 with it.
    tested = mcnemar(150, 86, 1600)
    assert tested.p == pytest.approx(stats.chi2.sf(63**2 / 236, 1))
    assert tested.difference == pytest.approx(0.04)
    assert tested.interval == pytest.approx((0.021, 0.059), abs=5e-4)


def test_mcnemars_test_is_exact_for_few_discordant_images() -> None:
    # By hand: 2 * (1 + 10 + 45) / 2^10.
    assert mcnemar(2, 8, 100).p == pytest.approx(112 / 1024)
    assert mcnemar(12, 12, 100).p == mcnemar(0, 0, 100).p == 1.0
    assert mcnemar(4, 20, 50).p == pytest.approx(stats.binomtest(4, 24).pvalue)
    assert mcnemar(5, 20, 50).p == pytest.approx(stats.chi2.sf(14**2 / 25, 1))
    for counts in ((-1, 0, 5), (3, 3, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="discordant"):
            mcnemar(*counts)


def test_the_interval_of_paired_shares_has_its_nominal_coverage() -> None:
    drawn = np.random.default_rng(0).multinomial(300, [0.08, 0.04, 0.88], size=4000)
    intervals = np.array([mcnemar(first, second, 300).interval for first, second, _ in drawn.tolist()])
    assert ((intervals[:, 0] <= 0.04) & (intervals[:, 1] >= 0.04)).mean() == pytest.approx(0.95, abs=0.012)
