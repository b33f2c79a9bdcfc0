"""Imbalance and label noise change only training images, follow their formulas, and depend only on the split's seed."""

from typing import Any

import pytest
import torch

from cifar_lab.data.datamodule import SyntheticDataModule
from cifar_lab.data.division import long_tailed, mislabelled
from cifar_lab.data.images import LabelledImages
from cifar_lab.machine.exit_codes import UsageError


def parts(**options: Any) -> dict[str, LabelledImages]:
    data = SyntheticDataModule(2_000, 100, **{"val_fraction": 0.1, "split_seed": 1, **options})
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    return {split: loader.data for split, loader in loaders.items()}


def test_class_sizes_fall_exponentially_to_the_share_of_the_last() -> None:
    labels = torch.arange(50_000) % 10
    kept = long_tailed(labels, 0.01, 10, torch.Generator().manual_seed(0))
    # The published counts of long-tailed CIFAR-10 with an imbalance of 100 (the code of arXiv:1906.07413).
    assert labels[kept].bincount().tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert torch.equal(kept, kept.unique())
    few = long_tailed(torch.tensor([0, 1, 1, 2]), 0.01, 3, torch.Generator())
    assert few.tolist() in ([0, 1, 3], [0, 2, 3]), "no class is lost"


def test_an_exact_share_of_labels_is_wrong_with_all_other_classes_equally_likely() -> None:
    labels = torch.arange(30_000) % 3
    noisy = mislabelled(labels, 0.2, 3, torch.Generator().manual_seed(0))
    wrong = noisy != labels
    assert wrong.sum() == 6_000
    for label in range(3):
        given = noisy[wrong & (labels == label)].bincount(minlength=3)
        assert given[label] == 0 and given.sum() == pytest.approx(2_000, abs=150)
        assert given.max() - given[given > 0].min() < 200


def test_imbalance_and_noise_affect_only_training_images_and_depend_only_on_the_split_seed() -> None:
    plain, changed = parts(), parts(imbalance=0.1, label_noise=0.3)
    for split in ("val", "test"):
        assert all(torch.equal(one, other) for one, other in zip(plain[split], changed[split], strict=True))
    assert len(changed["train"].labels) < len(plain["train"].labels)
    clean = parts(imbalance=0.1)["train"]
    assert torch.equal(clean.images, changed["train"].images)
    assert (clean.labels != changed["train"].labels).sum() == round(0.3 * len(clean.labels))
    again, other = (parts(imbalance=0.1, label_noise=0.3, **more)["train"] for more in ({"seed": 5}, {"split_seed": 2}))
    assert torch.equal(again.labels, changed["train"].labels)
    assert not torch.equal(other.images[:50], changed["train"].images[:50])


def test_a_part_of_imbalanced_images_keeps_their_profile_and_the_exact_share_of_noise() -> None:
    data = SyntheticDataModule(2_000, 100, val_fraction=0, imbalance=0.1, train_size=300, label_noise=0.5)
    noisy = data.train_dataloader().data.labels
    data.label_noise, data._splits = 0.0, {}
    clean = data.train_dataloader().data.labels
    assert (noisy != clean).sum() == 150
    counts = clean.bincount().tolist()
    assert counts == sorted(counts, reverse=True) and counts[0] == pytest.approx(10 * counts[-1], rel=0.15)
    assert data.train_available == sum(int(200 * 0.1 ** (label / 9)) for label in range(10))


@pytest.mark.parametrize("options", [{"label_noise": 1.0}, {"label_noise": -0.1}, {"imbalance": 0}, {"imbalance": 1.5}])
def test_shares_outside_their_range_are_refused(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=f"{name}={options[name]}"):
        SyntheticDataModule(**options)
