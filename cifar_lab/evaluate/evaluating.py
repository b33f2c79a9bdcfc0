"""Evaluate one trained network."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from cifar_lab.config import build
from cifar_lab.data.images import LabelledImages
from cifar_lab.data.loader import BatchLoader
from cifar_lab.evaluate import measures
from cifar_lab.evaluate.calibration import calibration
from cifar_lab.evaluate.measures import Scaled
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.labels import NO_PROBABILITIES, data_name
from cifar_lab.terminal.printing import shown
from cifar_lab.trained import Answers, Trained, answer


@dataclass(frozen=True)
class Settings:
    """How a network is evaluated.

    Attributes:
        split: `test`, or `val`: the images held out of training.
        tta: `flip` averages the logits of an image and of its mirror image; None looks at the image alone.
        reestimate_bn: Estimate BatchNorm's statistics again over the training images first.
    """

    split: str = "test"
    tta: str | None = None
    reestimate_bn: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        return "-".join([self.split, *([self.tta] if self.tta else []), *(["bn"] if self.reestimate_bn else [])])


@dataclass(frozen=True)
class Evaluation:
    """Results of one network.

    Attributes:
        trained: The network.
        answers: On the split.
        images: Of the split, in the same order.
        scaled: Answers after temperature scaling.
        result: Plain values, by the names of `docs/evaluate.md`.
    """

    trained: Trained
    answers: Answers
    images: LabelledImages
    scaled: Scaled
    result: dict[str, Any]


def evaluate(trained: Trained, settings: Settings) -> Evaluation:
    """Measure a network on a split.

    Args:
        trained: The network; with `reestimate_bn` its BatchNorm's statistics change.
        settings: How.

    Raises:
        ValueError: Its images are not there, or of more classes than it knows; `val` was not held out; or there is no
            BatchNorm.
    """
    if settings.split == "val" and not trained.holds_out:
        raise UsageError(f"--split val: of the training of {trained.label} nothing was held out; leave it out")
    if trained.run is None and trained.trained_on not in (None, "cifar10"):
        raise UsageError(f"{trained.label} was trained on data={trained.trained_on}; name the run's folder")
    datamodule = trained.datamodule()
    if settings.reestimate_bn:
        training = trained.datamodule(augment=True).train_dataloader()
        training.set_epoch(int(trained.facts.get("epochs", 0)))  # an order that training has not seen
        trained.reestimate_batch_norm(shown(training, f"{trained.label}: BatchNorm"))
    loader = datamodule.test_dataloader() if settings.split == "test" else datamodule.val_dataloader()
    given = _answers(trained, loader, settings, settings.split)
    num_classes = given.logits.shape[1]
    if num_classes <= int(given.labels.max()):
        raise UsageError(f"{trained.label} knows {num_classes} classes, and the images are of more")
    held_out = None
    if settings.split == "test" and trained.holds_out:
        held_out = _answers(trained, datamodule.val_dataloader(), settings, "val")
    scaled = measures.scaled(given, held_out)
    return Evaluation(trained, given, loader.data, scaled, _result(trained, settings, given, scaled))


def _answers(trained: Trained, loader: BatchLoader, settings: Settings, split: str) -> Answers:
    """Logits on a split's images; on a CPU in the batches of the run's own test."""
    return answer(trained, shown(loader, f"{trained.label}: {split}"), flip=settings.tta == "flip")


def _result(trained: Trained, settings: Settings, given: Answers, scaled: Scaled) -> dict[str, Any]:
    criterion = nn.CrossEntropyLoss() if trained.config is None else build(trained.config.loss)
    own = trained.facts.get("test/acc") if settings == Settings() else None  # the settings of a run's own test
    return {
        "network": trained.label,
        "architecture": trained.architecture,
        "weights": trained.weights.name,
        "data": data_name(trained.trained_on or "cifar10"),
        "split": settings.split,
        "tta": settings.tta,
        "reestimate_bn": settings.reestimate_bn,
        "precision": trained.native.precision,
        "images": len(given.labels),
        **measures.accuracy(given),
        "own_test_acc": own,
        "loss": measures.mean_loss(given, criterion),
        **calibration(given.logits, given.labels)._asdict(),
        "calibration_note": None if trained.gives_probabilities else NO_PROBABILITIES,
        "temperature": scaled.temperatures,
        "temperature_fitted_on": scaled.fitted_on,
        **{f"{name}_scaled": value for name, value in scaled.measured._asdict().items()},
        "per_class": measures.per_class(given, trained.class_names(given.logits.shape[1])),
        "confusion_matrix": measures.confusion_matrix(given),
        "assumed": list(trained.assumed),
    }
