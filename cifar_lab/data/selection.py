"""Selection of the images that an epoch visits, by the losses of their last visits."""

import torch
from torch import Tensor

from cifar_lab.data.images import keyed_generator


class Selection:
    """Skips easy images at random, and visits the others more often.

    An epoch has as many visits as there are images, in passes. A pass visits each image once, but with probability
    `skip_easy` skips an image whose loss at its last visit was below the mean. When a pass ends within an epoch, the
    next one begins. The first epoch is one pass over all images. Losses and means are those at the start of the epoch.
    Source: InfoBatch (arXiv:2303.04947), section 3. Departures: an epoch of InfoBatch is one shorter pass, gradients of
    the remaining easy images are multiplied by 1 / (1 - `skip_easy`), and the last epochs visit all images.

    Args:
        count: Number of images.
        skip_easy: Probability, below 1.
    """

    def __init__(self, count: int, skip_easy: float) -> None:
        self.skip_easy = skip_easy
        self.losses = torch.full((count,), torch.nan)  # loss of each image's last visit, on the training device
        self.known = self.losses.clone()  # the losses at the start of the epoch
        self.times = torch.zeros(count, dtype=torch.int64)  # number of visits of each image

    def begin(self) -> None:
        """Begin an epoch."""
        self.known = self.losses.to("cpu", copy=True)

    def order(self, *key: int) -> Tensor:
        """Return the int64 indices of the epoch's images, drawn with `key`, in the order of the visits."""
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
        """Count a visit of images, int64 `(B,)` on the CPU, and return the number of earlier visits of each."""
        ordered, places = indices.sort(stable=True)
        before = self.times[indices]
        # Where two passes meet in a batch, an image may occur twice; each occurrence counts.
        before[places] += torch.arange(len(indices)) - torch.searchsorted(ordered, ordered)
        self.times += torch.bincount(indices, minlength=len(self.times))
        return before

    def note(self, indices: Tensor, losses: Tensor) -> None:
        """Record the losses of images, both `(B,)` and on the same device."""
        self.losses = self.losses.to(losses.device)
        self.losses[indices] = losses.float()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the losses and numbers of visits."""
        return {"losses": self.losses.to("cpu", copy=True), "known": self.known.clone(), "times": self.times.clone()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Restore the state returned by `state_dict`."""
        self.losses, self.known, self.times = (state_dict[name].clone() for name in ("losses", "known", "times"))
