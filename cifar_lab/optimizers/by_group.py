"""Base class of this project's optimizers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ByGroup(Optimizer):
    """An optimizer that updates the parameters of a group together; subclasses implement `_step_group`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Take one step and return the value of `closure`, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group([weight for weight in group["params"] if weight.grad is not None], group)
        return loss

    def _step_group(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Update the parameters of a group that have a gradient."""
        raise NotImplementedError
