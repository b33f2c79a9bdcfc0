import pytest
import torch

from cifar_lab.runs import float32_digits, weights_name


@pytest.mark.parametrize(
    ("classes", "accuracy", "name"),
    [
        (
            ("LeakyReLU", "CrossEntropyLoss", "Adam", "CosineAnnealingLR"),
            0.8945,
            "best_model_LeakyReLU_CrossEntropy_Adam_CosineAnnealingLR_8945.pth",
        ),
        (("ELU", "MSELoss", "SignSGD", "StepLR"), 0.09996, "best_model_eLU_MSELoss_CustomSignSGD_StepLR_1000.pth"),
        (
            ("SiLU", "LabelSmoothingCrossEntropy", "AdamW", "CosineAnnealingWarmRestarts"),
            0.05,
            "best_model_SiLU_LabelSmoothingCrossEntropy_AdamW_CosineAnnealingWarmRestarts_0500.pth",
        ),
    ],
)
def test_weights_are_named_as_in_the_report(classes: tuple[str, ...], accuracy: float, name: str) -> None:
    parts = ("activation", "loss", "optimizer", "scheduler")
    assert weights_name(dict(zip(parts, classes, strict=True)), accuracy) == name


def test_float32_digits_drop_what_the_conversion_added() -> None:
    assert float32_digits(torch.tensor(0.08).item()) == 0.08
