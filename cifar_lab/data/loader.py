"""Batches of images in memory."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from cifar_lab.data.augment import Visit, to_device
from cifar_lab.data.images import LabelledImages, keyed_generator
from cifar_lab.data.selection import Selection
from cifar_lab.machine.ranks import joined, share

Augmentation = Callable[..., Tensor]  # of images and a generator, and a Visit with `by_visit = True`

# First number of a generator's key: the purpose of the draws.
_ORDER, _AUGMENTATION = 0, 1


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise uint8 images `(B, H, W, 3)` to float32 `(B, 3, H, W)`, in channels_last memory format.

    `mean` and `std` are float32 `(3,)`, in the units of [0, 1] images.
    """
    width, channels = images.shape[2:]
    shift = (-mean / std).repeat(width)
    scale = (1 / (255 * std)).repeat(width)
    # Rows instead of pixels: this inner loop is three times as fast as one over three channels.
    rows = torch.addcmul(shift, images.flatten(2).to(torch.float32), scale)
    return rows.unflatten(2, (width, channels)).permute(0, 3, 1, 2)


class BatchLoader:
    """Iterates over images in memory, in batches of normalised images and labels.

    The order depends only on (seed, epoch), and a batch's augmentation only on (seed, epoch, batch index). Lightning
    sets the epoch through `sampler.set_epoch`; it is read at an iteration's first batch.

    Args:
        data: The images; batches are built on their device.
        batch_size: Images per batch; the last batch may be smaller, unless `drop_last`.
        mean: Per channel, in the units of [0, 1] images.
        std: Per channel, in the same units.
        augment: Augments each batch; None for no augmentation. If it has a method `mix`, such as
            `cifar_lab.data.mixing.MixUp`, it also mixes the normalised images and their labels. If it has
            `by_visit = True`, such as `cifar_lab.data.augment.AlternatingFlip`, it also gets the batch's `Visit`.
        shuffle: Visit the images in a new order each epoch.
        seed: Seed of order and augmentation, non-negative.
        part: Index of the part of each batch to yield, and the number of parts, one per training process. Their sizes
            differ by at most one image, and together they equal the batch bit for bit.
        num_classes: Number of classes, the width of mixed labels.
        drop_last: Drop an epoch's last batch if it is incomplete.
        selection: Chooses the images of an epoch; the training loop passes each batch's losses to `note`. None for
            all images.
    """

    def __init__(
        self,
        data: LabelledImages,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augmentation | None = None,
        shuffle: bool = False,
        seed: int = 0,
        part: tuple[int, int] = (0, 1),
        num_classes: int = 10,
        drop_last: bool = False,
        selection: Selection | None = None,
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.augment = augment
        self.shuffle = shuffle
        self.seed = seed
        self.part = part
        self.num_classes = num_classes
        self.drop_last = drop_last
        self.selection = selection
        self._batch = torch.empty(0, dtype=torch.int64)  # indices of the last yielded batch, on the device
        self.epoch = 0
        self._yielded = (0, 0)  # epoch of the last iteration, and number of its batches yielded
        self._resumes = (0, 0)
        self._mean, self._std = (torch.tensor(values, device=data.images.device) for values in (mean, std))
        self.sampler = self  # Lightning calls its set_epoch
        self.batch_sampler = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        whole, rest = divmod(len(self.data.labels), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float32 images `(B, 3, 32, 32)` and int64 labels `(B,)`, or this process's part of them.

        Mixed labels are float32 probabilities `(B, num_classes)`.
        """
        epoch = self.epoch
        first = self._resumes[1] if self._resumes[0] == epoch else 0
        self._resumes = (0, 0)
        if self.selection is not None and not first:
            self.selection.begin()
        order = self.order(epoch)
        placed = to_device(order, self.data.images.device).split(self.batch_size)
        for index, chosen in enumerate(order.split(self.batch_size)[: len(self)]):
            if index < first:
                continue
            self._yielded, self._batch = (epoch, index + 1), placed[index]
            times = torch.full_like(chosen, epoch) if self.selection is None else self.selection.visited(chosen)
            images, labels = self.data.take(placed[index])
            mine = share(len(chosen), *self.part)
            if self.augment is not None:  # the whole batch: an image's draws must not depend on the process
                generator = keyed_generator(_AUGMENTATION, self.seed, epoch, index)
                visit = Visit(self.seed, epoch, chosen, len(order), times)
                images = self.augment(images, generator, *([visit] if getattr(self.augment, "by_visit", False) else []))
                if mix := getattr(self.augment, "mix", None):
                    whole = normalise(images, self._mean, self._std)
                    images, labels = mix(whole, labels, self.num_classes, generator)
                    yield images[mine], labels[mine]
                    continue
            yield normalise(images[mine], self._mean, self._std), labels[mine]

    def note(self, losses: Tensor) -> None:
        """Record the losses `(B,)` of the images in the last yielded batch, or in this process's part of it."""
        if self.selection is not None:
            self.selection.note(self._batch, joined(losses, len(self._batch)))

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches yielded; the rest follows from seed and selection."""
        return {"epoch": self._yielded[0], "batches": self._yielded[1]}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Start the next iteration after those batches if it is of the same epoch."""
        self._resumes = state_dict["epoch"], state_dict["batches"]

    def order(self, epoch: int) -> Tensor:
        """Return the int64 indices of an epoch's images, in the order of the visits."""
        count = len(self.data.labels)
        if not self.shuffle:
            return torch.arange(count)
        if self.selection is not None:
            return self.selection.order(_ORDER, self.seed, epoch)
        return torch.randperm(count, generator=keyed_generator(_ORDER, self.seed, epoch))

    def to(self, device: torch.device) -> "BatchLoader":
        """Return a loader of the same batches, built on `device`."""
        return self._with(LabelledImages(*(part.to(device) for part in self.data)), self.part)

    def whole(self) -> "BatchLoader":
        """Return a loader of whole batches instead of parts."""
        return self._with(self.data, (0, 1))

    def _with(self, data: LabelledImages, part: tuple[int, int]) -> "BatchLoader":
        mean, std = self._mean.tolist(), self._std.tolist()
        rest = self.augment, self.shuffle, self.seed, part, self.num_classes, self.drop_last, self.selection
        return BatchLoader(data, self.batch_size, mean, std, *rest)
