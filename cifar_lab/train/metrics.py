"""Metrics of a split: accuracy and means over images."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from cifar_lab.machine import ranks


class Mean(Metric):
    """Mean over images, accumulated from batch means.

    Replaces torchmetrics' MeanMetric, which either checks for NaN, and so waits for the GPU at every step, or ignores
    the weights (`nan_strategy="disable"`, version 1.9).
    """

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, mean: Tensor, count: int) -> None:
        """Add a batch of `count` images with the scalar mean `mean`."""
        self.total += mean * count
        self.count += count

    def compute(self) -> Tensor:
        """Return the mean over all images so far, a scalar."""
        return self.total / self.count


class SplitMetrics(nn.Module):
    """Accuracy of a split, and means over images of `loss` and of the quantities named in `means`."""

    def __init__(self, num_classes: int, **means: Mean) -> None:
        super().__init__()
        self.loss = Mean()
        self.acc = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        for name, metric in means.items():
            self.add_module(name, metric)

    def update(self, logits: Tensor, labels: Tensor, **means: Tensor) -> None:
        """Add a batch: logits `(N, num_classes)`, labels `(N,)`, and named scalars, each a mean over the batch.

        Labels of mixed images are probabilities `(N, num_classes)`; the accuracy uses the most probable class. N may be
        0, because a process's part of a small batch may be empty.
        """
        if not len(labels):
            return
        self.acc.update(logits, labels.argmax(1) if labels.ndim == 2 else labels)
        for name, value in means.items():
            getattr(self, name).update(value, len(labels))

    def compute(self, split: str) -> dict[str, Tensor]:
        """Return the metrics so far, scalars by their logged names such as `val/loss`."""
        return {f"{split}/{name}": metric.compute() for name, metric in self._metrics()}

    def sums(self) -> dict[str, dict[str, Any]]:
        """Return the states of the metrics for `load_sums`; those of several processes are stacked."""
        own: dict[str, dict[str, Any]] = {name: dict(metric.metric_state) for name, metric in self._metrics()}
        if ranks.count() == 1:
            return own
        on_cpu = {name: {part: sums[part].cpu() for part in sums} for name, sums in own.items()}
        all_sums = ranks.gathered(on_cpu)
        return {
            name: {part: torch.stack([each[name][part] for each in all_sums]) for part in sums}
            for name, sums in own.items()
        }

    def load_sums(self, sums: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore the states that `sums` returned, also if the number of processes has changed."""
        for name, metric in self._metrics():
            for part, value in sums[name].items():
                own = getattr(metric, part)
                rows = value if value.ndim > own.ndim else value[None]
                if len(rows) != ranks.count():  # rank 0 gets the sum over all processes
                    rest = torch.zeros_like(rows[:1]).expand(ranks.count() - 1, *rows.shape[1:])
                    rows = torch.cat([rows.sum(0, keepdim=True), rest])
                setattr(metric, part, rows[ranks.rank()].to(metric.device, own.dtype))

    def reset(self) -> None:
        """Reset all metrics."""
        for _, metric in self._metrics():
            metric.reset()

    def _metrics(self) -> Iterator[tuple[str, Metric]]:
        return ((name, module) for name, module in self.named_children() if isinstance(module, Metric))
