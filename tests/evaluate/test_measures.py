"""What a network's answers are worth, against counts worked by hand."""

import pytest
import torch

from cifar_lab.evaluate.measures import accuracy, confusion_matrix, mean_loss, per_class, scaled
from cifar_lab.losses import FocalLoss
from cifar_lab.trained import Answers, confident_mistakes


def answers(predicted: list[int], labels: list[int], classes: int = 3) -> Answers:
    return Answers(torch.eye(classes)[predicted] * 4, torch.tensor(labels))


def test_each_class_has_its_precision_recall_and_f1() -> None:
    found = answers([0, 0, 1, 1, 2], [0, 1, 1, 1, 0])
    first, second, third = per_class(found, ["a", "b", "c"])
    assert first == {"class": "a", "precision": 0.5, "recall": 0.5, "f1": 0.5, "images": 2}
    assert second["precision"] == 1
    assert second["recall"] == pytest.approx(2 / 3)
    assert second["f1"] == pytest.approx(0.8)
    assert (third["images"], third["recall"]) == (0, 0)
    assert confusion_matrix(found) == [[1, 0, 1], [1, 2, 0], [0, 0, 0]]
    assert accuracy(found)["acc"] == pytest.approx(3 / 5)


def test_five_of_ten_classes_may_hold_the_right_one() -> None:
    logits = torch.arange(10.0).repeat(4, 1)
    told = accuracy(Answers(logits, torch.tensor([9, 5, 4, 0])))
    assert told["acc"] == 0.25
    assert told["acc_top5"] == 0.5
    assert "acc_top5" not in accuracy(answers([0], [0]))


def test_the_loss_is_the_mean_over_images_whatever_the_batches() -> None:
    found = Answers(torch.randn(10, 3), torch.randint(0, 3, (10,)))
    loss = FocalLoss()
    assert mean_loss(found, loss, batch_size=3) == pytest.approx(float(loss(*found)), rel=1e-6)


def test_the_surest_mistakes_come_first() -> None:
    logits = torch.tensor([[5.0, 0.0], [1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    assert confident_mistakes(Answers(logits, torch.tensor([0, 1, 1, 0])), 2).tolist() == [2, 3]
    assert confident_mistakes(Answers(logits, torch.tensor([0, 0, 0, 1])), 2).tolist() == []


def test_scaling_fits_on_what_was_held_out() -> None:
    found, held_out = answers([0, 1, 2, 0], [0, 1, 2, 1]), answers([0, 1, 2, 0, 1], [0, 1, 2, 1, 1])
    fitted = scaled(found, held_out)
    assert len(fitted.temperatures) == 1 and "5" in fitted.fitted_on
    assert len(scaled(found, None).temperatures) == 2
