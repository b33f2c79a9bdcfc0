"""Losses that torch lacks or names differently; each is called `(logits, labels)`.

Labels are int64 `(N,)`, or class probabilities `(N, C)` for mixed images.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LabelSmoothingCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy against labels smoothed towards the uniform distribution (arXiv:1512.00567, section 7).

    Args:
        smoothing: Probability mass spread evenly over all classes, including the true one; 0 gives cross-entropy.

    Raises:
        ValueError: `smoothing` lies outside [0, 1].
    """

    def __init__(self, smoothing: float = 0.1) -> None:
        if not 0 <= smoothing <= 1:
            raise ValueError(f"smoothing={smoothing} is a probability mass; it must be in [0, 1]")
        super().__init__(label_smoothing=smoothing)


class FocalLoss(nn.Module):
    """Focal loss, `-alpha * (1 - p)**gamma * ln p` of the true class's probability p (arXiv:1708.02002, equation 5).

    Averaged over the batch, in nats. `alpha` is one weight for all classes, as in the report; the paper has one per
    class. With gamma 0 and alpha 1 the loss is cross-entropy.

    Args:
        alpha: Weight of the loss.
        gamma: Focusing exponent; larger values down-weight well-classified samples more.

    Raises:
        ValueError: `alpha` or `gamma` is negative.
    """

    def __init__(self, alpha: float = 1.0, gamma: float = 2.0) -> None:
        super().__init__()
        if alpha < 0 or gamma < 0:
            raise ValueError(f"alpha={alpha} and gamma={gamma} must not be negative")
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean loss of logits `(N, C)`, a scalar; label probabilities weight the losses of the classes."""
        is_mixed = labels.ndim == 2
        cross_entropy = -logits.log_softmax(1) if is_mixed else F.cross_entropy(logits, labels, reduction="none")
        # expm1 keeps 1 - p accurate for p near 1; the clamp keeps the power's gradient finite at p = 1.
        miss = -torch.expm1(-cross_entropy)
        if self.gamma != 0:
            cross_entropy = miss.clamp_min(torch.finfo(miss.dtype).tiny) ** self.gamma * cross_entropy
        return self.alpha * ((labels * cross_entropy).sum(1) if is_mixed else cross_entropy).mean()


class MSELoss(nn.Module):
    """Squared error between raw logits and one-hot labels or probabilities, averaged over batch and classes."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean loss of logits `(N, C)`, a scalar."""
        if labels.ndim == 1:
            labels = F.one_hot(labels, logits.shape[1])
        return F.mse_loss(logits, labels.to(logits.dtype))
