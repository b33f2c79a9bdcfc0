"""Test accuracy with test-time augmentation."""

from typing import Any

import lightning as L
from torchmetrics.classification import MulticlassAccuracy

from cifar_lab.data.views import over_views
from cifar_lab.machine.compilation import uncompiled


class AugmentedTest(L.Callback):
    """Logs `test/acc_tta`, from 0 to 1, for the same weights as `test/acc`; nothing else changes.

    Args:
        kind: Kind of augmentation, see `cifar_lab.data.views.over_views`.
        below: Augment only images whose highest probability without augmentation is below this.
        num_classes: Number of logits.
    """

    def __init__(self, kind: str, below: float, num_classes: int) -> None:
        self.kind, self.below = kind, below
        self.acc = MulticlassAccuracy(num_classes, average="micro", validate_args=False)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the metric on the network's device."""
        self.acc.to(pl_module.device).reset()

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Evaluate a batch, whose logits without augmentation are `outputs`."""
        images, labels = batch
        # A CUDA graph would overwrite its earlier logits, and with a threshold the batch size varies.
        with uncompiled(), trainer.precision_plugin.forward_context():
            logits = over_views(pl_module, images, outputs, self.kind, self.below)
        if len(labels):
            self.acc.update(logits, labels)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Log the accuracy over the images of all processes."""
        pl_module.log("test/acc_tta", self.acc.compute())
