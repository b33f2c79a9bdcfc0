"""Learning-rate schedules."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class LinearDecay(LambdaLR):
    """Linear decay of each group's learning rate to `final` times it, after a linear warm-up.

    Step t, from 0, has the factor `(t + 1) / (w + 1)` while t < w, then `1 - (1 - final) (t - w) / (T - w)`. The first
    step after the warm-up has the full rate. The line ends after the last step, so that no step has a rate of 0. This
    is the schedule of github.com/KellerJordan/cifar10-airbench.

    Args:
        optimizer: The optimizer whose rates decay.
        total_steps: T, steps of the scheduler: optimizer steps or epochs.
        warmup_epochs: w, in the same unit.
        final: Share of the rate at the end of the line.

    Raises:
        ValueError: The warm-up leaves no step.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: float, warmup_epochs: float = 0.0, final: float = 0.0
    ) -> None:
        if warmup_epochs >= total_steps:
            raise ValueError(f"warmup_epochs={warmup_epochs} leave no steps of total_steps={total_steps}")

        def share(step: int) -> float:
            if step < warmup_epochs:
                return (step + 1) / (warmup_epochs + 1)
            return 1 - (1 - final) * min(1.0, (step - warmup_epochs) / (total_steps - warmup_epochs))

        super().__init__(optimizer, share)
