"""The processes that train one run together: their number, the rank of this one, and their communication.

Without torch.distributed there is one process, of rank 0, and no function here waits.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = TypeVar("Value")


def _dist() -> Any:
    """`torch.distributed`, which the check of a command line does not wait for."""
    from torch import distributed

    return distributed


def count() -> int:
    """Number of processes that train together."""
    dist = _dist()
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, from 0."""
    return _dist().get_rank() if count() > 1 else 0


def share(of: int, number: int, among: int) -> slice:
    """The slice of `of` items for process `number`, from 0, of `among`; sizes differ by at most one, larger first."""
    each, rest = divmod(of, among)
    first = number * each + min(number, rest)
    return slice(first, first + each + (number < rest))


def total(values: "Tensor") -> "Tensor":
    """The sum of all processes' `values`, which have one shape."""
    if count() == 1:
        return values
    values = values.clone()
    _dist().all_reduce(values)
    return values


def joined(part: "Tensor", of: int) -> "Tensor":
    """The `of` items whose `share` each process has in `part`, `(n,)`."""
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
    """The elementwise maximum of all processes' `values`."""
    if count() == 1:
        return list(values)
    from torch import tensor

    # On the CPU, even if gradients are summed on GPUs, so as not to wait for them.
    together = tensor(values)
    _dist().all_reduce(together, _dist().ReduceOp.MAX)
    return together.tolist()


def gathered(value: Value) -> list[Value]:
    """All processes' values, in the order of their ranks."""
    if count() == 1:
        return [value]
    values: list[Value] = [value] * count()
    _dist().all_gather_object(values, value)
    return values


def first_of(value: Value) -> Value:
    """The value of the process of rank 0."""
    if count() == 1:
        return value
    values = [value]
    _dist().broadcast_object_list(values)
    return values[0]


def share_buffers(module: "nn.Module") -> None:
    """Copy the buffers of rank 0, such as BatchNorm's averages, to every process."""
    if count() > 1:
        for buffer in module.buffers():
            _dist().broadcast(buffer, 0)


class RankLostError(RuntimeError):
    """One of the processes that train together has ended."""


def has_lost(error: BaseException) -> bool:
    """Whether an exception says that another process, which has ended for its own reason, cannot be reached."""
    return isinstance(error, RankLostError | _dist().DistError) or "gloo" in str(error)
