"""Which images an epoch visits, by the losses of their last visits."""

import torch
from torch import Tensor

from cifar_lab.data.images import keyed_generator


class Selection:
    """Skips easy images at random, so that an epoch visits the others more often.

    An epoch visits as many images as there are, in passes. A pass visits each image once, but skips an image whose loss
    at its last visit was below the mean with probability `skip_easy`. When a pass ends within an epoch, the next one
    begins. The first epoch is one pass over all images. Losses and means are those at the start of the epoch. Source:
    InfoBatch (arXiv:2303.04947), section 3. Departures: an epoch of InfoBatch is one shorter pass, the gradients of the
    remaining easy images are multiplied by 1 / (1 - `skip_easy`), and the last epochs visit all images.

    Args:
        count: Number of images.
        skip_easy: Probability, below 1.
    """

    def __init__(self, count: int, skip_easy: float) -> None:
        self.skip_easy = skip_easy
        self.losses = torch.full((count,), torch.nan)  # of each image's last visit, on the device that trains
        self.known = self.losses.clone()  # those at the epoch's start
        self.times = torch.zeros(count, dtype=torch.int64)  # how often each image has been visited

    def begin(self) -> None:
        """Begin an epoch."""
        self.known = self.losses.to("cpu", copy=True)

    def order(self, *key: int) -> Tensor:
        """The int64 indices of the epoch's images, drawn with a key, in the order in which they are visited."""
        generator = keyed_generator(*key)
        count = len(self.known)
        if self.known.isnan().any():
            return torch.randperm(count, generator=generator)
        is_hard = self.known >= self.known.mean()
        passes: list[Tensor] = []
        while sum(map(len, passes)) < count:
            stays = is_hard | (torch.rand(count, generator=generator) >= self.skip_easy)
            visited = torch.randperm(count, generator=generator)
            passes.append(visited[stays[visited]])
        return torch.cat(passes)[:count]

    def visited(self, indices: Tensor) -> Tensor:
        """Count a visit of images, int64 `(B,)` on the CPU; returns how often each had been visited before."""
        ordered, places = indices.sort(stable=True)
        before = self.times[indices]
        # One that two passes meet in this batch is counted for each.
        before[places] += torch.arange(len(indices)) - torch.searchsorted(ordered, ordered)
        self.times += torch.bincount(indices, minlength=len(self.times))
        return before

    def note(self, indices: Tensor, losses: Tensor) -> None:
        """Note images' losses, both `(B,)`, on one device."""
        self.losses = self.losses.to(losses.device)
        self.losses[indices] = losses.float()

    def state_dict(self) -> dict[str, Tensor]:
        """Losses and numbers of visits."""
        return {"losses": self.losses.to("cpu", copy=True), "known": self.known.clone(), "times": self.times.clone()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was."""
        self.losses, self.known, self.times = (state_dict[name].clone() for name in ("losses", "known", "times"))
