from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cifar_lab.analysis import curves
from cifar_lab.analysis.claims import Claim, claims
from cifar_lab.analysis.measured import gather
from cifar_lab.analysis.published import Row, Table
from cifar_lab.analysis.reproduction import reproduce
from cifar_lab.config.published import tables
from cifar_lab.runs import Run, find_runs
from tests.landscape_runs import diverge, leave_band, leave_probed
from tests.published_runs import leave_run

COMPACT = {"best_cnn": 5_809_418}
LARGER_RATES = "BatchNorm allows larger learning rates without divergence"


@pytest.fixture(scope="module")
def published() -> tuple[Table, ...]:
    return tables()


@pytest.fixture(scope="module")
def rows(published: tuple[Table, ...]) -> dict[str, Row]:
    return {row.name: row for table in published for row in table.rows}


def judged(folder: Path, published: tuple[Table, ...]) -> dict[str, Claim]:
    return {claim.words: claim for claim in claims(reproduce(published, gather(find_runs(folder))), COMPACT)}


def leave_seeds(folder: Path, row: Row, mean: float, number: int = 5, noise: float = 0.002) -> None:
    for seed in range(number):
        leave_run(folder / f"{row.name}{seed}", row, mean + 0.0005 * (seed - 2), seed=seed, noise=noise)


def test_without_runs_only_the_parameters_decide(tmp_path: Path, published: tuple[Table, ...]) -> None:
    found = judged(tmp_path, published)
    decided = {words: claim.verdict for words, claim in found.items() if claim.verdict != "untested"}
    assert decided == {"The best model is a compact network of 2.6 M parameters": "not supported"}
    assert len(found) == 20


def test_activations_that_are_alike_and_one_that_is_weaker(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]
) -> None:
    for name, mean in (("leaky_relu", 0.894), ("relu", 0.8935), ("elu", 0.874)):
        leave_seeds(tmp_path, rows[f"activation_{name}"], mean)
    found = judged(tmp_path, published)
    assert found["LeakyReLU and ReLU have similar performance"].verdict == "supported"
    assert found["ELU is significantly weaker"].verdict == "supported"
    assert "LeakyReLU 89.40 ± 0.08 % (5)" in found["ELU is significantly weaker"].numbers


def test_activations_the_other_way_round(tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]) -> None:
    for name, mean in (("leaky_relu", 0.89), ("relu", 0.87), ("elu", 0.894)):
        leave_seeds(tmp_path, rows[f"activation_{name}"], mean)
    found = judged(tmp_path, published)
    assert found["LeakyReLU and ReLU have similar performance"].verdict == "not supported"
    assert found["ELU is significantly weaker"].verdict == "not supported"


def test_four_seeds_decide_nothing(tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row]) -> None:
    for name, mean in (("leaky_relu", 0.894), ("relu", 0.8935), ("elu", 0.874)):
        leave_seeds(tmp_path, rows[f"activation_{name}"], mean, number=4)
    claim = judged(tmp_path, published)["ELU is significantly weaker"]
    assert claim.verdict == "untested"
    assert "ELU 87.38 ± 0.06 % (4)" in claim.numbers


@pytest.mark.parametrize(("of_leaky_relu", "verdict"), [(0.05, "supported"), (0.25, "not supported")])
def test_dead_units_of_relu_beside_those_of_leaky_relu(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row], of_leaky_relu: float, verdict: str
) -> None:
    words = "LeakyReLU revives dying units"
    for name, share in (("relu", 0.25), ("leaky_relu", of_leaky_relu)):
        leave_seeds(tmp_path, rows[f"activation_{name}"], 0.89)
        assert judged(tmp_path, published)[words].verdict == "untested"
        for seed in range(5):
            folder = tmp_path / f"activation_{name}{seed}" / "explanation"
            folder.mkdir()
            told = {"fingerprint": Run(folder.parent).result()["fingerprint"], "images": 2_000}
            shares = [{**told, "negative_only": share + 0.001 * seed}, {**told, "negative_only": 0.9}]
            pd.DataFrame(shares).to_csv(folder / "dead_units.csv", index=False)
    claim = judged(tmp_path, published)[words]
    assert claim.verdict == verdict
    assert claim.numbers.startswith("ReLU 25.20 ± 0.16 % (5), LeakyReLU ")
    (tmp_path / "activation_relu0" / "explanation" / "dead_units.csv").write_text("no table")
    assert judged(tmp_path, published)[words].numbers.startswith("ReLU 25.25 ± 0.13 % (4)")
    for seed, change in enumerate(({"images": 10}, {"fingerprint": "another"}, {"negative_only": -1.0}), start=1):
        path = tmp_path / f"activation_relu{seed}" / "explanation" / "dead_units.csv"
        pd.read_csv(path).assign(**change).to_csv(path, index=False)
    assert judged(tmp_path, published)[words].numbers.startswith("ReLU 25.40 % (1)")


@pytest.mark.parametrize(("noise", "verdict"), [(0.02, "supported"), (0.001, "not supported")])
def test_stability_of_the_losses(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row], noise: float, verdict: str
) -> None:
    leave_seeds(tmp_path, rows["loss_ce"], 0.88, noise=0.005)
    leave_seeds(tmp_path, rows["loss_focal"], 0.88, noise=noise)
    for name in ("loss_label_smoothing", "loss_mse"):
        leave_seeds(tmp_path, rows[name], 0.88)
    assert judged(tmp_path, published)["Cross-entropy was more stable than focal loss"].verdict == verdict


@pytest.mark.parametrize(("reached", "verdict"), [(0.9, "supported"), (0.4, "not supported")])
def test_half_of_the_images_by_epoch_10(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row], reached: float, verdict: str
) -> None:
    leave_run(tmp_path / "bn", rows["vgg_a_bn,optimizer.lr=1e-3"], reached)
    leave_run(tmp_path / "none", rows["vgg_a,optimizer.lr=1e-3"], 0.9)
    assert judged(tmp_path, published)["With BatchNorm 50 % validation accuracy by epoch 10"].verdict == verdict


@pytest.mark.parametrize(("reached", "verdict"), [(0.9, "not supported"), (0.4, "untested")])
def test_epoch_25_lies_beyond_the_published_runs(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row], reached: float, verdict: str
) -> None:
    leave_run(tmp_path / "none", rows["vgg_a,optimizer.lr=1e-3"], reached)
    assert judged(tmp_path, published)["Without BatchNorm 50 % only by epoch 25"].verdict == verdict


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.10, "supported"), (0.7, "not supported")])
def test_larger_rates_with_batch_norm(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row], accuracy: float, verdict: str
) -> None:
    for seed in range(3):
        for rate in ("1e-4", "2e-3"):
            leave_run(tmp_path / f"bn{rate}{seed}", rows[f"vgg_a_bn,optimizer.lr={rate}"], 0.8, seed=seed)
            without = rows[f"vgg_a,optimizer.lr={rate}"]
            leave_run(tmp_path / f"none{rate}{seed}", without, accuracy if rate == "2e-3" else 0.7, seed=seed)
    claim = judged(tmp_path, published)[LARGER_RATES]
    assert claim.verdict == verdict


def test_a_start_from_which_only_batch_norm_trains_decides_in_three_seeds(
    tmp_path: Path, published: tuple[Table, ...]
) -> None:
    leave_probed(tmp_path, seeds=(0, 1, 2))
    for run in find_runs(tmp_path):
        if run.folder.name.startswith("False_he"):
            diverge(run)
    claim = judged(tmp_path, published)[LARGER_RATES]
    assert claim.verdict == "supported"
    assert "He, Adam 0.1: 3 of 3 train with it, 0 of 3 without" in claim.numbers
    (tmp_path / "False_he_2" / "status.json").unlink()
    assert judged(tmp_path, published)[LARGER_RATES].verdict == "not supported"  # two seeds of it decide nothing


@pytest.mark.parametrize(("reached", "verdict"), [(0.9, "supported"), (0.4, "untested")])
def test_shorter_runs_tell_who_has_reached_half_and_not_who_never_will(
    tmp_path: Path, published: tuple[Table, ...], reached: float, verdict: str
) -> None:
    leave_band(tmp_path, rates=(1e-3, 2e-3), accuracy=reached)
    claim = judged(tmp_path, published)["With BatchNorm 50 % validation accuracy by epoch 10"]
    assert claim.verdict == verdict
    assert claim.numbers.endswith("of runs of 4 epochs")


@pytest.mark.parametrize(("mse", "verdict"), [(0.03, "supported"), (0.0, "not supported")])
def test_many_epochs_in_the_study_of_the_losses(
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row], mse: float, verdict: str
) -> None:
    for loss, gain in (("ce", 0.01), ("label_smoothing", 0.03), ("mse", mse)):
        for seed in range(5):
            for epochs in (50, 100):
                folder = tmp_path / f"{loss}{seed}{epochs}"
                options = {"study": "loss", "loss": loss, "experiment": None}
                mean = 0.88 + 0.0003 * seed * (epochs == 100) + gain * (epochs == 100)
                run = leave_run(
                    folder, rows["loss_ce"], mean, seed=seed, protocol="holdout", epochs=epochs, options=options
                )
                # Each loss is a composition of its own, here by its dropout.
                text = run.composition_file.read_text()
                run.composition_file.write_text(text.replace('"dropout": 0.5', f'"dropout": 0.{len(loss)}'))
    claim = judged(tmp_path, published)["Label smoothing and MSE show great potential after many epochs"]
    assert claim.verdict == verdict


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
    tmp_path: Path, published: tuple[Table, ...], rows: dict[str, Row], data: str, typed: list[str], verdict: str
) -> None:
    for optimizer, mean in (("adam", 0.89), ("sgd", 0.88), ("sign_sgd", 0.87)):
        for seed in range(5):
            options = {"study": "optimizer", "optimizer": optimizer, "experiment": None, "data": data}
            leave_run(
                tmp_path / f"{optimizer}{seed}",
                rows[f"optimizer_{optimizer}"],
                mean + 0.0003 * seed,
                seed=seed,
                protocol="holdout",
                options=options,
                overrides=[f"optimizer={optimizer}", *typed],
            )
    claim = judged(tmp_path, published)["Adam outperformed SGD due to adaptive rates"]
    assert claim.verdict == verdict
    assert ("Adam − SGD +1.00 points" in claim.numbers) == (verdict == "supported")


def metrics(accuracies: list[float]) -> pd.DataFrame:
    epochs = np.arange(1, len(accuracies) + 1)
    return pd.DataFrame({"epoch": epochs, "val/acc": accuracies, "val/loss": [1 - value for value in accuracies]})


def test_instability_is_of_the_changes() -> None:
    assert curves.instability(metrics([0.1, 0.2, 0.3, 0.4])) == pytest.approx(0)
    assert curves.instability(metrics([0.0, 0.5, 0.5, 0.6, 0.5]), epochs=2) == pytest.approx(
        np.std([0.1, -0.1], ddof=1)
    )
    assert np.isnan(curves.instability(metrics([0.1, 0.2])))


def test_epochs_to_an_accuracy_and_jumps() -> None:
    assert curves.epochs_to(metrics([0.1, 0.8, 0.7]), 0.8) == 2
    assert np.isnan(curves.epochs_to(metrics([0.1, 0.2]), 0.8))
    assert curves.mean_jump(metrics([0.1, float("nan"), 0.3, 0.2])) == pytest.approx(0.15)
