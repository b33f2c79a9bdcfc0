"""Evaluate a trained network and write the files of the evaluation."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from cifar_lab.config import build
from cifar_lab.data.images import LabelledImages
from cifar_lab.data.loader import BatchLoader
from cifar_lab.evaluate import corruptions, figures, measures
from cifar_lab.evaluate.measures import Calibration, Scaled
from cifar_lab.figures import Figure
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import replacing
from cifar_lab.runs.files import write_arrays, write_figure, write_table
from cifar_lab.runs.labels import NO_PROBABILITIES, data_words
from cifar_lab.terminal.progress import with_progress
from cifar_lab.trained import Answers, Trained, answer, confident_mistakes

_MISTAKES = 24
_TTA = {"flip": "image and mirror image averaged", "flip_translate": "mirror images and translations averaged"}


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation."""

    split: str = "test"  # `test`, or `val` for the images held out of training
    # `flip` averages the logits of an image and its mirror image, `flip_translate` also those of translations (see
    # `cifar_lab.data.views.over_views`); None for no test-time augmentation
    tta: str | None = None
    reestimate_bn: bool = False  # first estimate the BatchNorm statistics again on the training images
    test_set: str | None = None  # replaces CIFAR-10's test set: `cifar10_1`
    corruptions: Path | None = None  # folder of CIFAR-10-C, which is evaluated too

    @property
    def name(self) -> str:
        """Folder name of the evaluation."""
        return "-".join([self.split, *filter(None, [self.test_set, self.tta]), *(["bn"] if self.reestimate_bn else [])])


@dataclass(frozen=True)
class Evaluation:
    """Results of a network on a split."""

    trained: Trained
    answers: Answers  # predictions on the split
    images: LabelledImages  # of the split, in the same order
    scaled: Scaled | None  # after temperature scaling; None without held-out images to fit the temperature on
    result: dict[str, Any]  # plain values, as listed in `docs/after_training.md`


def evaluate(trained: Trained, settings: Settings) -> Evaluation:
    """Evaluate a network on a split.

    Args:
        trained: The network; `reestimate_bn` changes its BatchNorm statistics in place.
        settings: Settings of the evaluation.

    Raises:
        ValueError: The images are missing or have more classes than the network, no images were held out for `val`, or
            there is no BatchNorm.
    """
    if settings.split == "val" and not trained.holds_out:
        raise UsageError(f"--split val: no images were held out when {trained.label} was trained; leave it out")
    if trained.run is None and trained.trained_on not in (None, "cifar10"):
        raise UsageError(f"{trained.label} was trained on data={trained.trained_on}; name the run's folder")
    if (settings.test_set or settings.corruptions) and not trained.is_of_cifar10:
        raise UsageError(f"--test-set and --corruptions: {trained.label} was not trained on CIFAR-10; leave them out")
    datamodule = trained.datamodule(test_set=settings.test_set)
    if settings.reestimate_bn:
        training = trained.datamodule(augment=True).train_dataloader()
        training.set_epoch(math.ceil(trained.facts.get("epochs", 0)))  # an order that training has not used
        trained.reestimate_batch_norm(with_progress(training, f"{trained.label}: BatchNorm"))
    loader = datamodule.test_dataloader() if settings.split == "test" else datamodule.val_dataloader()
    answers = _answers(trained, loader, settings, settings.split)
    num_classes = answers.logits.shape[1]
    if num_classes <= int(answers.labels.max()):
        raise UsageError(f"{trained.label} has {num_classes} classes, and the images have more")
    scaled = None
    if settings.split == "test" and trained.holds_out:
        scaled = measures.scaled(answers, _answers(trained, datamodule.val_dataloader(), settings, "val"))
    result = _result(trained, settings, answers, scaled)
    if settings.corruptions is not None:
        result["corruptions"] = corruptions.measure(trained, settings.corruptions, settings.tta)
    return Evaluation(trained, answers, loader.data, scaled, result)


def _answers(trained: Trained, loader: BatchLoader, settings: Settings, split: str) -> Answers:
    return answer(trained, with_progress(loader, f"{trained.label}: {split}"), settings.tta)


def _result(trained: Trained, settings: Settings, answers: Answers, scaled: Scaled | None) -> dict[str, Any]:
    criterion = nn.CrossEntropyLoss() if trained.config is None else build(trained.config.loss)
    is_own = replace(settings, corruptions=None) == Settings()  # the settings of a run's own test
    own = trained.facts.get("test/acc") if is_own else None
    return {
        "network": trained.label,
        "architecture": trained.architecture,
        "weights": trained.weights.name,
        "data": _data_words(trained, settings),
        "split": settings.split,
        "tta": settings.tta,
        "reestimate_bn": settings.reestimate_bn,
        "precision": trained.native.precision,
        "images": len(answers.labels),
        **measures.accuracy(answers),
        "own_test_acc": own,
        "loss": measures.mean_loss(answers, criterion),
        **measures.calibration(answers.logits, answers.labels)._asdict(),
        "calibration_note": None if trained.gives_probabilities else NO_PROBABILITIES,
        "temperature": scaled and scaled.temperature,
        "temperature_fitted_on": scaled and scaled.fitted_on,
        **{f"{name}_scaled": scaled and getattr(scaled.measured, name) for name in Calibration._fields},
        "per_class": measures.per_class(answers, trained.class_names(answers.logits.shape[1])),
        "confusion_matrix": measures.confusion_matrix(answers),
        "assumed": list(trained.assumed),
    }


def _data_words(trained: Trained, settings: Settings) -> str:
    data = {} if trained.config is None else dict(trained.config.data)
    data |= {} if settings.test_set is None else {"test_set": settings.test_set}
    return data_words(trained.trained_on or "cifar10", {"data": data})


def write(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write numbers and figures into a folder, which is created if it does not exist; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    result, answers = evaluation.result, evaluation.answers
    with replacing(folder / "evaluation.json") as file:
        json.dump(result, file, indent=2)
    write_table(result["per_class"], folder / "per_class.csv")
    names = ["evaluation.json", "per_class.csv", "answers.npz"]
    if "corruptions" in result:
        names.append(write_table(result["corruptions"], folder / "corruptions.csv").name)
    write_arrays(folder / "answers.npz", {"logits": answers.logits.numpy(), "labels": answers.labels.numpy()})
    title = f"{result['network']}\n{result['data']}, {_described(result)}: {result['acc']:.2%}"
    classes = evaluation.trained.class_names(answers.logits.shape[1])
    drawn = {
        "confusion_matrix.png": lambda: figures.confusion_matrix(np.array(result["confusion_matrix"]), classes, title),
        "reliability.png": lambda: _reliability(evaluation, title),
        "mistakes.png": lambda: _mistakes(evaluation, classes, title),
    }
    pictures = [file for name, draw in drawn.items() for file in write_figure(draw, folder / name, dpi=120)]
    return [*(folder / name for name in names), *pictures]


def _mistakes(evaluation: Evaluation, classes: Sequence[str], title: str) -> Figure | None:
    answers, images = evaluation.answers, evaluation.images.images
    chosen = confident_mistakes(answers, _MISTAKES)
    if not chosen.numel():
        return None
    probability, predicted = answers.logits.double().softmax(1).max(1)
    return figures.mistakes(
        images[chosen.to(images.device)].cpu().numpy(),
        [classes[label] for label in answers.labels[chosen].tolist()],
        [classes[label] for label in predicted[chosen].tolist()],
        probability[chosen].numpy(),
        f"{title}\nwrong predictions with the highest probability",
    )


def _described(result: Mapping[str, Any]) -> str:
    words = [f"{result['images']:,} {'test' if result['split'] == 'test' else 'validation'} images"]
    words += [_TTA[result["tta"]]] if result["tta"] else []
    words += ["BatchNorm statistics estimated again"] if result["reestimate_bn"] else []
    return ", ".join(words)


def _reliability(evaluation: Evaluation, title: str) -> Figure:
    result, labels = evaluation.result, evaluation.answers.labels
    panels = {f"unscaled: ECE {result['ece']:.2%}": measures.reliability(evaluation.answers.logits, labels)}
    notes = [title]
    if evaluation.scaled is not None:
        name = f"temperature {result['temperature']:.3f}: ECE {result['ece_scaled']:.2%}"
        panels[name] = measures.reliability(evaluation.scaled.logits, labels)
        notes.append(f"temperature fitted on {result['temperature_fitted_on']}")
    return figures.reliability(panels, "\n".join([*notes, *filter(None, [result["calibration_note"]])]))
