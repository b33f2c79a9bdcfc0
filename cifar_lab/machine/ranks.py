"""Processes that train one run together: their number, this one's rank, and their communication.

Without torch.distributed there is one process, of rank 0, and no function here waits.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = TypeVar("Value")


def _dist() -> Any:
    """Return `torch.distributed`, imported late because the check of a command line does not need it."""
    from torch import distributed

    return distributed


def count() -> int:
    """Return the number of processes that train together."""
    dist = _dist()
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this process, from 0."""
    return _dist().get_rank() if count() > 1 else 0


def share(of: int, number: int, among: int) -> slice:
    """Return the slice of `of` items for process `number` of `among`; sizes differ by at most one, larger first."""
    each, rest = divmod(of, among)
    first = number * each + min(number, rest)
    return slice(first, first + each + (number < rest))


def total(values: "Tensor") -> "Tensor":
    """Return the elementwise sum of all processes' `values`, which have the same shape."""
    if count() == 1:
        return values
    values = values.clone()
    _dist().all_reduce(values)
    return values


def joined(part: "Tensor", of: int) -> "Tensor":
    """Return all `of` items, gathered from each process's `share` of them, `part` `(n,)`."""
    if count() == 1:
        return part
    padded = part.new_zeros(-(-of // count()))
    padded[: len(part)] = part
    parts = [padded.new_empty(len(padded)) for _ in range(count())]
    _dist().all_gather(parts, padded)
    shares = [share(of, number, count()) for number in range(count())]
    from torch import cat

    return cat([each[: its.stop - its.start] for each, its in zip(parts, shares, strict=True)])


def largest(values: Sequence[int]) -> list[int]:
    """Return the elementwise maximum of all processes' `values`."""
    if count() == 1:
        return list(values)
    from torch import tensor

    # On the CPU, to avoid waiting for the GPUs on which gradients are summed.
    together = tensor(values)
    _dist().all_reduce(together, _dist().ReduceOp.MAX)
    return together.tolist()


def gathered(value: Value) -> list[Value]:
    """Return all processes' values, by rank."""
    if count() == 1:
        return [value]
    values: list[Value] = [value] * count()
    _dist().all_gather_object(values, value)
    return values


def first_of(value: Value) -> Value:
    """Return the value of rank 0."""
    if count() == 1:
        return value
    values = [value]
    _dist().broadcast_object_list(values)
    return values[0]


def share_buffers(module: "nn.Module") -> None:
    """Copy rank 0's buffers, such as BatchNorm's running statistics, to every process."""
    if count() > 1:
        for buffer in module.buffers():
            _dist().broadcast(buffer, 0)


class RankLostError(RuntimeError):
    """One of the processes that train together has ended."""


def has_lost(error: BaseException) -> bool:
    """Return whether an exception means that another process has ended and cannot be reached."""
    return isinstance(error, RankLostError | _dist().DistError) or "gloo" in str(error)
