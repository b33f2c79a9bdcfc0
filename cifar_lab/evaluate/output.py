"""Files of an evaluation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cifar_lab.evaluate import figures
from cifar_lab.evaluate.calibration import reliability
from cifar_lab.evaluate.evaluating import Evaluation
from cifar_lab.evaluate.figures import confusion_matrix
from cifar_lab.figures import Figure
from cifar_lab.runs.files import replacing, write_arrays, write_figure, write_table
from cifar_lab.trained import confident_mistakes

_MISTAKES = 24


def write(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write numbers and figures into a folder, which is made if it does not exist; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    result, answers = evaluation.result, evaluation.answers
    with replacing(folder / "evaluation.json") as file:
        json.dump(result, file, indent=2)
    write_table(result["per_class"], folder / "per_class.csv")
    write_arrays(folder / "answers.npz", {"logits": answers.logits.numpy(), "labels": answers.labels.numpy()})
    title = f"{result['network']}\n{result['data']}, {_described(result)}: {result['acc']:.2%}"
    classes = evaluation.trained.class_names(answers.logits.shape[1])
    drawn = {
        "confusion_matrix.png": confusion_matrix(np.array(result["confusion_matrix"]), classes, title),
        "reliability.png": _reliability(evaluation, title),
    }
    if (chosen := confident_mistakes(answers, _MISTAKES)).numel():
        probability, predicted = answers.logits.double().softmax(1).max(1)
        drawn["mistakes.png"] = figures.mistakes(
            evaluation.images.images[chosen.to(evaluation.images.images.device)].cpu().numpy(),
            [classes[label] for label in answers.labels[chosen].tolist()],
            [classes[label] for label in predicted[chosen].tolist()],
            probability[chosen].numpy(),
            f"{title}\nthe wrong answers with the highest probability",
        )
    else:
        (folder / "mistakes.png").unlink(missing_ok=True)
    for name, figure in drawn.items():
        write_figure(figure, folder / name, dpi=120)
    return [folder / name for name in ("evaluation.json", "per_class.csv", "answers.npz", *drawn)]


def _described(result: Mapping[str, Any]) -> str:
    words = [f"{result['images']:,} {'test' if result['split'] == 'test' else 'validation'} images"]
    words += ["image and mirror image averaged"] if result["tta"] else []
    words += ["BatchNorm's statistics estimated again"] if result["reestimate_bn"] else []
    return ", ".join(words)


def _reliability(evaluation: Evaluation, title: str) -> Figure:
    result, labels = evaluation.result, evaluation.answers.labels
    words = " and ".join(f"{value:.3f}" for value in result["temperature"])
    panels = {
        f"as it is: ECE {result['ece']:.2%}": reliability(evaluation.answers.logits, labels),
        f"temperature {words}: ECE {result['ece_scaled']:.2%}": reliability(evaluation.scaled.logits, labels),
    }
    note = f"temperature fitted on {result['temperature_fitted_on']}"
    note += f"; {result['calibration_note']}" if result["calibration_note"] else ""
    return figures.reliability(
        {name: (bins.confidence, bins.accuracy, bins.images) for name, bins in panels.items()}, f"{title}\n{note}"
    )
