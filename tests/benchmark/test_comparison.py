"""The results of loops that have taken their turns."""

from dataclasses import replace

import pytest

from cifar_lab.benchmark import comparison as module
from cifar_lab.benchmark.budget import Budget
from cifar_lab.benchmark.comparison import Comparison
from cifar_lab.benchmark.race import VARIANTS, Contest, Measured


@pytest.fixture
def comparison() -> Comparison:
    report = Measured("report", "32-true", "contiguous", [1.0, 2.0, 4.0], {}, [2.0, 1.0])
    plain = Measured("plain", "32-true", "contiguous", [1.0, 1.0, 1.0], {}, [2.0, 1.0])
    best = Measured("best", "bf16-mixed", "channels_last", [0.5, 0.5, 1.0], {}, [2.02, 1.0])
    train = Measured("train", "bf16-mixed", "channels_last", [0.5, 1.0, 0.8], {}, [2.0, 1.02])
    contest = Contest(("model=cnn",), batch_size=100)
    return Comparison("cnn", contest, (report, plain, best, train), 10, {"32-true": 1e4, "bf16-mixed": 2e4})


def _astray(comparison: Comparison) -> list[str]:
    """Return the names of the loops that the lines report, the plain one excluded."""
    return [name for line in comparison.astray for name in ("report", "best", "train") if name in line.split()]


def test_a_ratio_is_the_median_over_rounds_and_a_step_counts_as_three_forward_passes(comparison: Comparison) -> None:
    rows = {row["name"]: row for row in comparison.plain()["loops"]}
    assert rows["train"]["ratio_to_best"] == 1.0  # the median of 1, 0.5 and 1.25
    assert rows["train"]["ratio_to_report"] == 2.0  # the median of 2, 2 and 5
    assert rows["report"]["ratio_to_report"] == 1.0
    speeds = {"images_per_second": 125.0, "images_per_second_low": 100.0, "images_per_second_high": 200.0}
    assert speeds.items() <= rows["train"].items()
    assert rows["plain"]["flops_per_second"] == 3 * 10 * 100
    assert rows["plain"]["share_of_matmul"] == pytest.approx(0.3)
    assert rows["best"]["share_of_matmul"] == pytest.approx(0.3)  # relative to the matmul of its own precision


def test_a_loop_is_astray_if_it_differs_beyond_the_rounding_of_its_precision(comparison: Comparison) -> None:
    assert comparison.apart() == pytest.approx({"report": 0, "plain": 0, "best": 0.01, "train": 0.02})
    assert comparison.astray == []
    comparison.measured[3].losses[1] = 1.06
    assert _astray(comparison) == ["train"]
    small = replace(comparison, contest=Contest(("model=cnn",), batch_size=50))
    assert small.astray == []  # smaller batches average out less rounding
    comparison.measured[0].losses[1] = 1.02
    comparison.measured[3].losses[1] = float("nan")
    assert _astray(comparison) == ["report", "train"]


def test_a_network_is_compared_by_its_operations_and_the_hosts_peak_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MATMUL_SIZES", (8,))
    monkeypatch.setattr(module, "_MATMUL_SECONDS", 0.01)
    monkeypatch.setattr(module, "race", lambda contest, budget: [Measured(name, "32-true") for name in contest.loops])
    host = module.describe_host()
    assert min(host["matmul_flops"].values()) > 0
    contest = module.contest_of("vgg_a", ["model.stages=[[2],[2]]", "model.hidden=2"], 8, 1, 0.01, variants=True)
    compared = module.compare(contest, host, Budget(60, 1))
    assert compared.title == "model=vgg_a bn=true model.stages=[[2],[2]] model.hidden=2 batch_size=8"
    assert [one.name for one in compared.measured] == ["best", *VARIANTS]
    # Convolutions of 3 and 2 channels at 32x32 and 16x16, then three linear layers; a multiply-add is two operations.
    assert compared.flops_per_image == 2 * (27 * 2 * 1024 + 18 * 2 * 256 + 128 * 2 + 2 * 2 + 2 * 10)


def test_typed_overrides_take_precedence_over_the_networks_own() -> None:
    assert module.contest_of("speed_cnn", ["optimizer=adam"], 8, 1, 0.01).command == (
        "model=speed_cnn",
        "optimizer=adam",
    )


def test_an_augmentation_without_pil_transforms_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match=r"augment=MixUp: .*identity"):
        module.contest_of("cnn", ["augment=mixup"], 8, 1, 0.01)
    module.contest_of("cnn", ["augment=mixup"], 8, 1, 0.01, variants=True)  # leaves out the report's loop
