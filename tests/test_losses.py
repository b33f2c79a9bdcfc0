import pytest
import torch
from torch.nn import functional as F

from cifar_lab.losses import FocalLoss, LabelSmoothingCrossEntropy, MSELoss

LABELS = torch.tensor([3, 0, 9, 3, 5])


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_focal_loss_is_the_papers_formula_and_cross_entropy_for_gamma_0_and_alpha_1(logits: torch.Tensor) -> None:
    p = logits.softmax(1)[torch.arange(5), LABELS]
    torch.testing.assert_close(FocalLoss(0.25, 2)(logits, LABELS), (-0.25 * (1 - p) ** 2 * p.log()).mean())
    torch.testing.assert_close(FocalLoss(1, 0)(logits, LABELS), F.cross_entropy(logits, LABELS))


@pytest.mark.parametrize("labels", [torch.tensor([0, 0]), torch.tensor([[1.0, 0.0], [0.25, 0.75]])])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_a_certain_prediction_has_a_finite_gradient(gamma: float, labels: torch.Tensor) -> None:
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    loss = FocalLoss(1, gamma)(logits, labels)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


def test_label_smoothing_equals_the_formula_worked_by_hand() -> None:
    # Two classes with logits ln 3 and 0 have probabilities 3/4 and 1/4. Smoothing 0.2 makes the targets 0.9 and 0.1.
    logits = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    expected = -(0.9 * torch.tensor(0.75).log() + 0.1 * torch.tensor(0.25).log())
    loss = LabelSmoothingCrossEntropy(0.2)(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_mse_is_the_mean_over_batch_and_classes_against_one_hot_labels() -> None:
    # The differences (1, 1) and (0, 2) have squares 1, 1, 0 and 4.
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    assert MSELoss()(logits, torch.tensor([0, 1])).item() == pytest.approx(6 / 4)


@pytest.mark.parametrize("loss", [FocalLoss(0.5, 2), FocalLoss(1, 0.5), LabelSmoothingCrossEntropy(0.1), MSELoss()])
def test_gradients_equal_finite_differences(loss: torch.nn.Module, logits: torch.Tensor) -> None:
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS), logits.requires_grad_())


@pytest.mark.parametrize(
    "loss",
    [FocalLoss(0.5, 2), FocalLoss(1, 0), LabelSmoothingCrossEntropy(0.1), MSELoss(), torch.nn.CrossEntropyLoss()],
)
def test_mixed_labels_have_the_gradient_of_the_mean_over_both_labels(
    loss: torch.nn.Module, logits: torch.Tensor
) -> None:
    # The papers' own code: weight * loss(first) + (1 - weight) * loss(second); mse differs from it by a constant.
    logits.requires_grad_()
    first, second = F.one_hot(LABELS, 10).double(), F.one_hot(LABELS.roll(1), 10).double()
    torch.testing.assert_close(loss(logits, first), loss(logits, LABELS))
    (mixed,) = torch.autograd.grad(loss(logits, 0.3 * first + 0.7 * second), logits)
    (expected,) = torch.autograd.grad(0.3 * loss(logits, LABELS) + 0.7 * loss(logits, LABELS.roll(1)), logits)
    torch.testing.assert_close(mixed, expected)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="smoothing=2"):
        LabelSmoothingCrossEntropy(2)
    with pytest.raises(ValueError, match="gamma=-1"):
        FocalLoss(1, -1)
