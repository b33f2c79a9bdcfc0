"""A loss as a function of weights: value, gradient and Hessian-vector product."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cifar_lab.machine.compilation import uncompiled

Weights = Mapping[str, Tensor]
"""A point or direction in weight space: tensors by parameter name."""

Loss = Callable[[Weights], Tensor]
"""Maps weights differentiably to a scalar."""


class NetworkLoss:
    """The loss of a network on one batch, as a function of its trainable weights.

    Computes in float32 and in the network's mode: in training mode, BatchNorm normalises by the batch's own statistics.
    Leaves the weights, their `.grad`, buffers such as BatchNorm's running statistics and the random state unchanged.

    Args:
        model: Maps `images` to logits `(N, num_classes)`.
        criterion: Maps `(logits, labels)` to a scalar.
        images: Normalised images `(N, 3, H, W)`, in the memory format that the network computes in.
        labels: Labels `(N,)`.
        seed_draws: Seeds the random number generator before each call, to give every call the same dropout mask. None
            starts each call from the current random state.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[[Tensor, Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        seed_draws: Callable[[], None] | None = None,
    ) -> None:
        self._model = model
        self._criterion = criterion
        self._images = images.float()
        self._labels = labels
        self._seed_draws = seed_draws
        named = model.named_parameters()
        self._fixed = {name: _in_float32(value) for name, value in named if not value.requires_grad}
        self._buffers = {name: _in_float32(value).clone() for name, value in model.named_buffers()}

    def weights(self) -> dict[str, Tensor]:
        """Return a float32 copy of the network's current trainable weights."""
        named = self._model.named_parameters()
        return {name: _in_float32(value).clone() for name, value in named if value.requires_grad}

    def __call__(self, weights: Weights) -> Tensor:
        """Return the loss at `weights`, a scalar in float32."""
        buffers = {name: value.clone() for name, value in self._buffers.items()}
        device = self._images.device
        same_random_state = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with same_random_state, uncompiled(), _without_autocast(device):
            if self._seed_draws is not None:
                self._seed_draws()
            logits = functional_call(self._model, {**self._fixed, **weights, **buffers}, (self._images,))
            return self._criterion(logits.float(), self._labels)


def value_and_gradient(loss: Loss, weights: Weights) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss at `weights`, detached, and its gradient."""
    with _differentiating(weights) as leaves:
        value = loss(leaves)
        gradient = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
    return value.detach(), dict(zip(leaves, gradient, strict=True))


def hessian_vector_product(loss: Loss, weights: Weights, direction: Weights) -> dict[str, Tensor]:
    """Return the exact product of the Hessian at `weights` with `direction`, by double backward."""
    return along_gradient(loss, weights, direction)[2]


def along_gradient(
    loss: Loss, weights: Weights, direction: Weights | None = None
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return the loss at `weights`, its gradient g, and its Hessian times `direction` (default g), in one forward."""
    with _differentiating(weights) as leaves:
        points = list(leaves.values())
        value = loss(leaves)
        gradient = torch.autograd.grad(value, points, create_graph=True, materialize_grads=True)
        along = gradient if direction is None else [direction[name] for name in leaves]
        pairs = [(part, factor.detach()) for part, factor in zip(gradient, along, strict=True) if part.requires_grad]
        product: Iterable[Tensor] = [torch.zeros_like(point) for point in points]
        if pairs:  # empty if the loss is linear
            varying, factors = zip(*pairs, strict=True)
            product = torch.autograd.grad(varying, points, factors, materialize_grads=True)
    detached = {name: part.detach() for name, part in zip(leaves, gradient, strict=True)}
    return value.detach(), detached, dict(zip(leaves, product, strict=True))


def moved(weights: Weights, direction: Weights, distance: float) -> dict[str, Tensor]:
    """Return `weights + distance * direction`."""
    return {name: torch.add(value, direction[name], alpha=distance) for name, value in weights.items()}


def difference(weights: Weights, others: Weights) -> dict[str, Tensor]:
    """Return `weights - others`."""
    return {name: value - others[name] for name, value in weights.items()}


def dot(weights: Weights, others: Weights) -> Tensor:
    """Return the scalar product over all weights."""
    return torch.stack([(value * others[name]).sum() for name, value in weights.items()]).sum()


def norm(weights: Weights) -> Tensor:
    """Return the L2 norm over all weights, a scalar."""
    return nn.utils.get_total_norm(list(weights.values()))


@contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """Disable TF32 on a GPU: it rounds to ten bits, more than a small step changes."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    backends = [torch.backends.cuda.matmul, convolutions] if device.type == "cuda" else []
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@contextmanager
def _differentiating(weights: Weights) -> Iterator[dict[str, Tensor]]:
    """Yield `weights` as leaves of a new graph."""
    leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
    device = next(iter(leaves.values())).device
    with torch.enable_grad(), without_tf32(device), _without_autocast(device):  # autocast also rounds in backward
        yield leaves


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, enabled=False) if device.type in ("cpu", "cuda") else nullcontext()


def _in_float32(value: Tensor) -> Tensor:
    """Return a detached float32 tensor, since `bf16-true` and `64-true` use other dtypes; integers keep theirs."""
    return value.detach().float() if value.is_floating_point() else value.detach()
