"""Batched RandAugment equals torchvision's on each image, with operations drawn per image."""

import itertools

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms import functional as tvf
from torchvision.transforms.autoaugment import _apply_op

from cifar_lab.data.augment import flip_crop
from cifar_lab.data.randaugment import (
    MAX_MAGNITUDE,
    OPERATIONS,
    apply_operation,
    draw_operations,
    randaugment,
    strength,
)
from tests.data.pictures import random_images, seeded

NAMES = list(OPERATIONS)
SIGNED_NAMES = [(name, negated) for name in NAMES for negated in (False, True)[: 1 + OPERATIONS[name].signed]]


def sample_images() -> Tensor:
    """Noise, smooth pictures with high and low contrast, and flat ones, edge cases of contrast and histograms."""
    noise, coarse = random_images(6), torch.rand(8, 3, 5, 5, generator=seeded(1))
    smooth = F.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1) * 255
    faint = 90 + smooth[:4] / 10
    flat = torch.tensor([0, 1, 254, 255]).view(4, 1, 1, 1).expand(4, 32, 32, 3)
    two_levels = torch.where(noise[:2] < 250, 17, 200)
    one_flat_channel = noise[2:4].clone()
    one_flat_channel[..., 1] = 77
    groups = (noise, smooth, faint, flat, two_levels, one_flat_channel)
    return torch.cat([group.to(torch.uint8) for group in groups])


def torchvision_strength(name: str, magnitude: int, negated: bool, height: int = 32, width: int = 32) -> float:
    strengths, signed = RandAugment()._augmentation_space(MAX_MAGNITUDE + 1, (height, width))[name]
    value = float(strengths[magnitude]) if strengths.ndim else 0.0
    return -value if negated and signed else value


def by_torchvision(image: Tensor, name: str, magnitude: int, negated: bool) -> Tensor:
    """Apply one operation to one image `(H, W, 3)`."""
    value = torchvision_strength(name, magnitude, negated, *image.shape[:2])
    return _apply_op(image.permute(2, 0, 1), name, value, InterpolationMode.NEAREST, None).permute(1, 2, 0)


def test_the_operations_have_torchvisions_order_and_signs() -> None:
    space = RandAugment()._augmentation_space(MAX_MAGNITUDE + 1, (32, 32))
    assert [(name, signed) for name, (_, signed) in space.items()] == [
        (name, operation.signed) for name, operation in OPERATIONS.items()
    ]


@pytest.mark.parametrize(("name", "negated"), SIGNED_NAMES)
def test_strengths_equal_torchvisions_at_every_magnitude(name: str, negated: bool) -> None:
    for magnitude in range(MAX_MAGNITUDE + 1):
        ours = strength(OPERATIONS[name], magnitude, negated)
        if name == "Posterize":
            ours = round(ours)
        if name in ("TranslateX", "TranslateY"):
            ours *= 32
        assert ours == torchvision_strength(name, magnitude, negated)


MANY = [sample_images(), random_images(2, 20, 27)]
OFTEN = {(0, 0), (0, 9), (0, 30), (1, 9)}


@pytest.mark.parametrize(
    ("sample", "magnitude"),
    [
        pytest.param(sample, magnitude, marks=() if (sample, magnitude) in OFTEN else pytest.mark.slow)
        for sample, magnitude in itertools.product((0, 1), (0, 1, 4, 9, 17, 30))
    ],
)
@pytest.mark.parametrize(("name", "negated"), SIGNED_NAMES)
def test_an_operation_equals_torchvisions_on_each_image(name: str, negated: bool, sample: int, magnitude: int) -> None:
    images, operation = MANY[sample], OPERATIONS[name]
    expected = torch.stack([by_torchvision(image, name, magnitude, negated) for image in images])
    result = apply_operation(images, operation, strength(operation, magnitude, negated))
    assert result.dtype == torch.uint8 and torch.equal(result, expected)


@pytest.mark.parametrize(("name", "negated"), SIGNED_NAMES)
def test_pil_images_would_differ_by_one_level_at_most_at_magnitude_nine(name: str, negated: bool) -> None:
    images, operation = sample_images(), OPERATIONS[name]
    value = torchvision_strength(name, 9, negated)
    expected = [
        tvf.pil_to_tensor(
            _apply_op(tvf.to_pil_image(image.permute(2, 0, 1)), name, value, InterpolationMode.NEAREST, None)
        )
        for image in images
    ]
    result = apply_operation(images, operation, strength(operation, 9, negated)).permute(0, 3, 1, 2)
    levels = 1 if name in ("Color", "Contrast", "Sharpness", "AutoContrast") else 0
    torch.testing.assert_close(result, torch.stack(expected), atol=levels, rtol=0)


@pytest.mark.parametrize("options", [(), (0, 9, 4), (1, 9, 4), (3, 20, 2)])
def test_a_batch_is_cropped_and_flipped_and_then_changed_by_the_drawn_operations(
    options: tuple[int, ...],
) -> None:
    num_ops, magnitude, padding = options or (2, 9, 4)  # the report's settings
    images, generator, own = random_images(100), seeded(3), seeded(3)
    expected = flip_crop(images, generator, padding)
    for operations, negated in zip(*draw_operations(num_ops, len(images), generator), strict=True):
        draws = zip(expected, operations.tolist(), negated.tolist(), strict=True)
        expected = torch.stack([by_torchvision(image, NAMES[index], magnitude, sign) for image, index, sign in draws])
    assert torch.equal(randaugment(images, own, *options), expected)
    assert torch.equal(generator.get_state(), own.get_state())


def test_draws_are_uniform_and_independent_and_only_signed_operations_are_negated() -> None:
    rounds, signs = draw_operations(2, 20_000, seeded())
    operations, negated = rounds.flatten(), signs.flatten()
    counts = torch.stack([operations[~negated].bincount(minlength=14), operations[negated].bincount(minlength=14)])
    assert scipy.stats.chisquare(counts.sum(0).numpy()).pvalue > 1e-4
    signed = torch.tensor([operation.signed for operation in OPERATIONS.values()])
    assert scipy.stats.chisquare(counts[:, signed].flatten().numpy()).pvalue > 1e-4
    assert counts[1, ~signed].sum() == 0
    for first, second in (rounds, (rounds[0, ::2], rounds[0, 1::2])):  # two rounds; neighbouring images
        pairs = (first * 14 + second).bincount(minlength=14**2)
        assert scipy.stats.chisquare(pairs.numpy()).pvalue > 1e-4


@pytest.mark.parametrize(("name", "value"), [("num_ops", -1), ("magnitude", -1), ("magnitude", 31)])
def test_numbers_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name} .*\b{'0' if name == 'num_ops' else '30'}\b.*{value}$"):
        randaugment(random_images(1), seeded(), **{name: value})


@pytest.mark.gpu
@pytest.mark.parametrize("magnitude", [9, 30])
def test_a_gpu_makes_the_same_batch_without_synchronising(magnitude: int) -> None:
    images = random_images(512)
    expected = randaugment(images, seeded(), magnitude=magnitude)
    on_gpu = images.cuda()
    # The first call creates the maps of the geometric operations.
    randaugment(on_gpu, seeded(), magnitude=magnitude)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augmented = randaugment(on_gpu, seeded(), magnitude=magnitude)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(augmented.cpu(), expected)
