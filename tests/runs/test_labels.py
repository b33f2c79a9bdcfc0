import json
from pathlib import Path

import pytest
import torch

from cifar_lab import evaluate, export, table
from cifar_lab.landscape.maps.measured_run import Settings, load
from cifar_lab.report.reproduction import Reproduction
from cifar_lab.runs import Archive, Record, float32_digits, read_run, weights_name
from cifar_lab.runs.labels import data_words, holds_out, protocol_name
from cifar_lab.train.summary import summary
from tests.conftest import Called, Train, refusal
from tests.kinds_of_runs import FINISHED, change


@pytest.mark.parametrize(
    ("classes", "accuracy", "name"),
    [
        (
            "LeakyReLU CrossEntropyLoss Adam CosineAnnealingLR",
            0.8945,
            "LeakyReLU_CrossEntropy_Adam_CosineAnnealingLR_8945",
        ),
        ("ELU MSELoss SignSGD StepLR", 0.09996, "eLU_MSELoss_CustomSignSGD_StepLR_1000"),
        ("SiLU LabelSmoothingCrossEntropy AdamW StepLR", 0.05, "SiLU_LabelSmoothingCrossEntropy_AdamW_StepLR_0500"),
    ],
)
def test_weights_are_named_as_in_the_report(classes: str, accuracy: float, name: str) -> None:
    parts = ("activation", "loss", "optimizer", "scheduler")
    assert weights_name(dict(zip(parts, classes.split(), strict=True)), accuracy) == f"best_model_{name}.pth"


def test_float32_numbers_are_printed_without_the_digits_of_the_conversion() -> None:
    assert float32_digits(torch.tensor(0.08).item()) == 0.08


@pytest.mark.parametrize(
    ("name", "of_protocol", "of_data", "held_out", "called"),
    [
        ("holdout", 0.1, 0.1, True, "holdout"),
        ("report", 0.0, 0.0, False, "report"),
        ("holdout", 0.1, 0.0, False, "report"),
        ("report", 0.0, 0.2, True, "holdout"),
        ("last", 0.0, 0.0, False, "last"),
        ("mine", 0.0, 0.2, True, "mine"),
        ("mine", 0.1, 0.0, False, "mine"),
        ("mine", 0.0, None, False, "mine"),  # a user's data module
    ],
)
def test_the_data_that_was_held_out_decides_what_chose_the_epoch(
    name: str, of_protocol: float, of_data: float | None, held_out: bool, called: str
) -> None:
    data = {} if of_data is None else {"val_fraction": of_data}
    config = {"protocol": {"name": name, "val_fraction": of_protocol}, "data": data}
    dotted = {"protocol.name": name, "protocol.val_fraction": of_protocol}
    dotted |= {f"data.{key}": share for key, share in data.items()}
    for settings in (config, dotted):
        assert (holds_out(settings), protocol_name(settings)) == (held_out, called)


def test_every_command_labels_a_run_of_version_0_1_that_held_nothing_out(
    trained: Train, called: Called, tmp_path: Path
) -> None:
    run, chosen = trained(*FINISHED), "the epoch chosen on the test set"
    assert "the epoch chosen on held-out training images" in summary(run)
    change(run, data={"val_fraction": 0.0})
    assert run.result()["protocol"] == "holdout"

    assert f"report: {chosen}" in summary(run)
    assert f"report: {chosen}" in called(table.main, run.folder)[1]
    (row,) = json.loads(called(table.main, run.folder, "--json")[1])
    assert row["protocol"] == "report"
    archive = Archive(tmp_path / "kept")
    archive.add([read_run(run)])
    (kept,) = archive.read()
    assert (kept.protocol, kept.result["protocol"], kept.holds_out) == ("report", "report", False)

    (evaluation,) = json.loads(called(evaluate.main, run.folder, "--json")[1])
    assert evaluation["temperature"] is evaluation["temperature_fitted_on"] is evaluation["nll_scaled"] is None
    assert "no temperature" in called(evaluate.main, run.folder)[1]
    refusal(called(evaluate.main, run.folder, "--split", "val"), "--split val")
    called(export.main, run.folder, "--format", "safetensors")
    card = (run.folder / "export" / "model_card.md").read_text()
    assert f"| report: {chosen}" in card and "The test set chose the epoch" in card
    (measured,) = load([run.folder], Settings(tmp_path, images=20))
    assert measured.held_out_name == "test images"


@pytest.mark.parametrize("change", [{"label_noise": 0.2}, {"imbalance": 0.01}, {"test_set": "cifar10_1"}])
def test_changed_data_of_an_option_is_named_and_is_not_a_run_of_the_report(change: dict[str, object]) -> None:
    neutral = {"label_noise": 0, "imbalance": 1, "test_set": "cifar10"}
    (named,) = (f"{name}={value}" for name, value in change.items())
    assert data_words("cifar10", {"data": neutral}) == data_words("cifar10", {}) == "CIFAR-10"
    assert data_words("cifar10", {"data": neutral | change}) == f"CIFAR-10 ({named})"
    of_study = {"data": "cifar10", "study": "loss"}
    changed, plain = (
        Record("finished", options=of_study, settings={f"data.{name}": value for name, value in settings.items()})
        for settings in (change, {})
    )
    assert Reproduction((), measured=(changed, plain)).of_studies == [plain]
