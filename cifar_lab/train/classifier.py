"""The LightningModule that trains and evaluates any network."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Self

import lightning as L
import torch
from lightning.pytorch.utilities.types import LRSchedulerTypeUnion, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics.classification import MulticlassConfusionMatrix

from cifar_lab.data.images import key_seed
from cifar_lab.machine import hardware, ranks
from cifar_lab.machine.compilation import uncompiled
from cifar_lab.models.flops import flops
from cifar_lab.optimizers import make_optimizer, make_scheduler
from cifar_lab.train.freezing import keep_frozen
from cifar_lab.train.metrics import Mean, SplitMetrics

Batch = tuple[Tensor, Tensor]

# First part of a generator's key, which keeps its random numbers apart from those drawn for other purposes.
_DRAWS = 2


class Classifier(L.LightningModule):
    """Trains and evaluates a network on `(images, labels)` batches.

    Logs once per epoch: `train/loss` (mean over images, in nats for cross-entropies), `train/objective` (loss plus L1
    penalty), `train/acc`, `val/loss`, `val/acc`, `test/loss`, `test/acc` (accuracies from 0 to 1) and `train/lr` (at
    the epoch's last step). After each optimizer step, `step_loss`, `grad_norm`, `first_conv_grad_norm` (of the first
    trainable convolution) and `step_lr` (of the first parameter group) hold its values; the first three are scalars on
    the device. `validated` is False in epochs without validation, whose `val/*` metrics come from an earlier epoch.
    Setting `follows_schedule` to False stops the scheduler.

    If several processes train together, each on its part of every batch, these values cover the whole batch, and a step
    follows the mean over all its images even if the parts differ in size. Each process draws its own dropout masks.

    Args:
        model: Maps images `(N, 3, H, W)` to logits `(N, num_classes)`.
        loss: Called with `(logits, labels)`, returns the batch mean.
        optimizer: Called with the parameters, returns their optimizer; or a `Grouped`.
        scheduler: Lightning's scheduler dictionary, in which `scheduler` is a callable that maps the optimizer to the
            scheduler. None keeps the learning rate constant.
        num_classes: Number of logits.
        l1: Weight of the L1 norm of all trainable parameters in the objective.
        grad_clip: Maximum global L2 norm of the gradients; 0 or None disables clipping.
        memory_format: Layout of weights and images; a network with a `hardware.misgraded_layer` is always contiguous.
        seed: Seed of the random numbers in training steps, which depend only on it, the epoch and the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Callable[..., Optimizer],
        scheduler: Mapping[str, Any] | None = None,
        *,
        num_classes: int = 10,
        l1: float = 0.0,
        grad_clip: float | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.memory_format = hardware.safe_memory_format(model, memory_format)
        self.model = model.to(memory_format=self.memory_format)
        self.loss = loss
        self.optimizer_factory = optimizer
        self.scheduler_options = scheduler
        self.l1 = l1
        self.grad_clip = grad_clip
        self.train_metrics = SplitMetrics(num_classes, objective=Mean())
        self.val_metrics = SplitMetrics(num_classes)
        self.test_metrics = SplitMetrics(num_classes)
        self.test_confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.optimizer_implementation: str | None = None
        self._weight = 1.0
        self._note_losses: Callable[[Tensor], None] | None = None
        self.validated, self.follows_schedule = False, True
        self.epoch_batches: int | None = None  # batches in a fractional epoch
        self.total_steps: int | None = None  # of the run; Lightning's estimate assumes whole epochs
        self.step_lr = float("nan")
        self.step_loss = self.grad_norm = self.first_conv_grad_norm = torch.tensor(float("nan"))
        convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.requires_grad)
        self._first_conv = next(convolutions, None)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images `(N, 3, H, W)` to logits `(N, num_classes)`, in float32 or better."""
        logits = self.model(images.to(memory_format=self.memory_format))
        # bf16 has 8 significant bits, too few to compute a loss.
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen BatchNorm stays in evaluation mode, see `freezing.freeze`."""
        super().train(mode)
        keep_frozen(self.model)
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the objective of one batch; with several processes, a value whose mean over them is the objective."""
        images, labels = batch
        logits = self(images)
        loss = self.loss(logits, labels)
        if self._note_losses is not None:
            self._note_losses(nn.functional.cross_entropy(logits.detach(), labels, reduction="none"))
        penalty = None
        if self.l1:
            norms = [weight.abs().sum() for weight in self.model.parameters() if weight.requires_grad]
            penalty = self.l1 * torch.stack(norms).sum()
        objective, self.step_loss = loss if penalty is None else loss + penalty, loss.detach()
        self.train_metrics.update(logits.detach(), labels, loss=self.step_loss, objective=objective.detach())
        if ranks.count() == 1:
            return objective if self._weight == 1 else objective * self._weight
        # DDP averages gradients over processes, so each loss is weighted by its share of the batch's images.
        own = loss.new_tensor(len(labels))
        summed, count = ranks.total(torch.stack([self.step_loss * own, own]))
        self.step_loss = summed / count
        weighted = loss * (ranks.count() * own / count)
        return (weighted if penalty is None else weighted + penalty) * self._weight

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate one batch of the split that selects the epoch."""
        self._measure(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Evaluate one batch of the test set; return its logits."""
        logits, labels = self._measure(batch, self.test_metrics), batch[1]
        if len(labels):
            self.test_confusion.update(logits, labels)
        return logits

    def _measure(self, batch: Batch, metrics: SplitMetrics) -> Tensor:
        logits: Tensor = self(batch[0])
        metrics.update(logits, batch[1], loss=self.loss(logits, batch[1]))
        return logits

    def on_train_start(self) -> None:
        """Check whether the training data is selected by per-image losses, which the loader then needs."""
        loader: Any = self.trainer.train_dataloader
        self._note_losses = None if getattr(loader, "selection", None) is None else loader.note

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed this batch's random numbers, such as dropout's, and set its weight in the optimizer step.

        A step takes the mean over the batches that it accumulates. Lightning divides by `accumulate_grad_batches` even
        if an epoch's last step accumulates fewer (issue 19987); the weight corrects this.
        """
        self.seed_draws(batch_idx)
        usual = self.trainer.accumulate_grad_batches
        batches = self.epoch_batches or int(self.trainer.num_training_batches)
        left = batches % usual
        self._weight = usual / left if left and batch_idx >= batches - left else 1.0

    def seed_draws(self, batch_idx: int) -> None:
        """Seed this process's random numbers for a batch of the current epoch."""
        # The rank is part of the key; otherwise all parts of a batch would get the same dropout masks.
        rank = ranks.rank() if ranks.count() > 1 else None
        seed_draws(self.seed, self.current_epoch, batch_idx, self.device, rank)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the current epoch's metric sums."""
        checkpoint["train_metrics"] = self.train_metrics.sums()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the current epoch's metric sums."""
        if "train_metrics" in checkpoint:
            self.train_metrics.load_sums(checkpoint["train_metrics"])

    def on_train_epoch_start(self) -> None:
        """Mark the epoch as not validated."""
        self.validated = False

    def on_train_epoch_end(self) -> None:
        """Log the epoch's metrics, and step a plateau scheduler with the validation metric."""
        self.log_dict(self.train_metrics.compute("train"))
        self.log("train/lr", self.step_lr)
        self.train_metrics.reset()
        scheduler = self.lr_schedulers()
        if self.validated and isinstance(scheduler, ReduceLROnPlateau) and self.scheduler_options is not None:
            metric = self.trainer.callback_metrics[self.scheduler_options.get("monitor", "val/loss")]
            self.lr_scheduler_step(scheduler, metric)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self.log_dict(self.val_metrics.compute("val"))
        self.val_metrics.reset()
        self.validated = True

    def on_test_epoch_start(self) -> None:
        """Reset the confusion matrix, which stays readable until the next test."""
        self.test_confusion.reset()

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self.log_dict(self.test_metrics.compute("test"))
        self.test_metrics.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer, in its fastest implementation, and the scheduler."""
        is_scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        optimizer, self.optimizer_implementation = make_optimizer(
            self.optimizer_factory, self.model, allow_fused=not is_scaled
        )
        if self.scheduler_options is None:
            return optimizer
        scheduler = make_scheduler(self.scheduler_options["scheduler"], optimizer)
        options = {**self.scheduler_options, "scheduler": scheduler}
        if isinstance(scheduler, ReduceLROnPlateau):
            # Lightning skips a plateau scheduler's step when it resumes. So Lightning only saves its state, and
            # `on_train_epoch_end` steps it.
            options["frequency"] = sys.maxsize
        return {"optimizer": optimizer, "lr_scheduler": options}  # type: ignore[return-value]

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: Any) -> None:
        """Step the scheduler, unless `follows_schedule` is False."""
        if self.follows_schedule:
            super().lr_scheduler_step(scheduler, metric)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Record the gradient norms, then clip the gradients by their global norm."""
        parameters = [weight for weight in self.model.parameters() if weight.grad is not None]
        self.grad_norm = nn.utils.get_total_norm([weight.grad for weight in parameters if weight.grad is not None])
        first = None if self._first_conv is None else self._first_conv.weight.grad
        self.first_conv_grad_norm = torch.full_like(self.grad_norm, torch.nan) if first is None else first.norm()
        self.step_lr = optimizer.param_groups[0]["lr"]
        if self.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.grad_clip, self.grad_norm)
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    @torch.no_grad()
    def flops_per_image(self, height: int = 32, width: int = 32) -> int:
        """Return the FLOPs of one image's forward pass: matrix products and convolutions, 2 per multiply-add."""
        image = torch.zeros(1, 3, height, width, device=self.device, dtype=self.dtype)  # type: ignore[arg-type]
        with uncompiled():
            return flops(self, image)


def seed_draws(run_seed: int, epoch: int, batch_idx: int, device: torch.device, rank: int | None = None) -> None:
    """Seed the random numbers of one training batch, on the CPU and on the device.

    Epoch and batch are counted from 0; `rank` is the rank of the process if several train together.
    """
    seed = key_seed(_DRAWS, run_seed, epoch, batch_idx, *(() if rank is None else (rank,)))
    # Takes 1 us; `torch.manual_seed` takes up to 1 ms without a GPU.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)
