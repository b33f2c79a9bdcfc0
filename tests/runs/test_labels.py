import pytest
import torch

from cifar_lab.runs import float32_digits, weights_name


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


def test_float32_digits_drop_what_the_conversion_added() -> None:
    assert float32_digits(torch.tensor(0.08).item()) == 0.08
