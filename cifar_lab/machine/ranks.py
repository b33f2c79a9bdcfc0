"""The processes that train one run together: how many there are, which this one is, what they tell each other.

Outside of torch.distributed there is one process, of rank 0, and nothing here waits for anybody.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = TypeVar("Value")


def count() -> int:
    """How many processes train together."""
    from torch import distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    from torch import distributed as dist

    return dist.get_rank() if count() > 1 else 0


def share(of: int, number: int, among: int) -> slice:
    """The part of `of` things in a row that is the `number`th process's; the parts differ in size by one at most.

    Args:
        of: How many there are.
        number: From 0; the first processes have the larger parts.
        among: How many processes share them.
    """
    each, rest = divmod(of, among)
    first = number * each + min(number, rest)
    return slice(first, first + each + (number < rest))


def total(values: "Tensor") -> "Tensor":
    """The sum of all processes' `values`, which are of one shape."""
    if count() == 1:
        return values
    from torch import distributed as dist

    values = values.clone()
    dist.all_reduce(values)
    return values


def largest(values: Sequence[int]) -> list[int]:
    """Of each of `values` the largest that a process gives; every process gets the same."""
    if count() == 1:
        return list(values)
    import torch
    from torch import distributed as dist

    # On the CPU also where gradients are summed on GPUs, which nobody waits for here.
    together = torch.tensor(values)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return together.tolist()


def gathered(value: Value) -> list[Value]:
    """What each process gives, in the order of their ranks."""
    if count() == 1:
        return [value]
    from torch import distributed as dist

    values: list[Value] = [value] * count()
    dist.all_gather_object(values, value)
    return values


def first_of(value: Value) -> Value:
    """What the process of rank 0 gives, in every process."""
    if count() == 1:
        return value
    from torch import distributed as dist

    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def share_buffers(module: "nn.Module") -> None:
    """Give every process the buffers of rank 0, such as BatchNorm's averages, which each has of its own images."""
    if count() > 1:
        from torch import distributed as dist

        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


class RankLostError(RuntimeError):
    """One of the processes that train together has ended."""


def has_lost(error: BaseException) -> bool:
    """Whether an exception says that another process cannot be reached, which has ended for a reason of its own."""
    from torch import distributed as dist

    return isinstance(error, RankLostError | dist.DistError) or "gloo" in str(error)
