"""Floating-point operations of a network."""

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def flops(network: nn.Module, images: Tensor) -> int:
    """Count the floating-point operations of matrix products and convolutions in a forward pass in evaluation mode.

    A multiply-add counts as 2 operations.

    Args:
        network: Its mode is restored.
        images: `(N, 3, H, W)`, on the network's device; nothing is computed on torch's `meta` device.
    """
    training = network.training
    with FlopCounterMode(display=False) as counter:
        network.eval()(images)
    network.train(training)
    return counter.get_total_flops()
