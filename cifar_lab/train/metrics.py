"""What a split is measured by: accuracy, and means over images."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from cifar_lab.machine import ranks


class Mean(Metric):
    """The mean over images of what is given as the means of batches.

    torchmetrics' own MeanMetric either looks for NaN, and so waits for the GPU at every step, or, told not to
    (`nan_strategy="disable"`, version 1.9), forgets the weights.
    """

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, mean: Tensor, count: int) -> None:
        """Take in a batch of `count` images whose mean is `mean`, a scalar."""
        self.total += mean * count
        self.count += count

    def compute(self) -> Tensor:
        """The mean over all images so far, a scalar."""
        return self.total / self.count


class SplitMetrics(nn.Module):
    """A split's accuracy, and the means over images of what else is given to `update` by name.

    Args:
        num_classes: Number of logits.
        means: What is measured beside `loss` and `acc`.
    """

    def __init__(self, num_classes: int, **means: Mean) -> None:
        super().__init__()
        self.loss = Mean()
        self.acc = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        for name, metric in means.items():
            self.add_module(name, metric)

    def update(self, logits: Tensor, labels: Tensor, **means: Tensor) -> None:
        """Take in a batch: logits `(N, num_classes)`, labels `(N,)`, and by name scalars that are means over it.

        A batch of no images, as a process's part of a small one may be, counts for nothing.
        """
        if not len(labels):
            return
        self.acc.update(logits, labels)
        for name, value in means.items():
            getattr(self, name).update(value, len(labels))

    def compute(self, split: str) -> dict[str, Tensor]:
        """Each metric so far, a scalar, by the name that it is logged under, `split/loss`."""
        return {f"{split}/{name}": metric.compute() for name, metric in self._metrics()}

    def sums(self) -> dict[str, dict[str, Any]]:
        """What the metrics are made from, to go on with later; of several processes stacked, a row for each."""
        own: dict[str, dict[str, Any]] = {name: dict(metric.metric_state) for name, metric in self._metrics()}
        if ranks.count() == 1:
            return own
        on_cpu = {name: {part: sums[part].cpu() for part in sums} for name, sums in own.items()}
        everybody = ranks.gathered(on_cpu)
        return {
            name: {part: torch.stack([each[name][part] for each in everybody]) for part in sums}
            for name, sums in own.items()
        }

    def load_sums(self, sums: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from what `sums` gave, in as many processes or in others."""
        for name, metric in self._metrics():
            for part, value in sums[name].items():
                own = getattr(metric, part)
                rows = value if value.ndim > own.ndim else value[None]
                if len(rows) != ranks.count():  # the first process keeps what all of them had
                    rest = torch.zeros_like(rows[:1]).expand(ranks.count() - 1, *rows.shape[1:])
                    rows = torch.cat([rows.sum(0, keepdim=True), rest])
                setattr(metric, part, rows[ranks.rank()].to(metric.device, own.dtype))

    def reset(self) -> None:
        """Begin anew."""
        for _, metric in self._metrics():
            metric.reset()

    def _metrics(self) -> Iterator[tuple[str, Metric]]:
        return ((name, module) for name, module in self.named_children() if isinstance(module, Metric))
