"""The operations of a network."""

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def flops(network: nn.Module, images: Tensor) -> int:
    """Floating-point operations of a forward pass in evaluation: matrix products and convolutions, 2 a multiply-add.

    Args:
        network: Keeps its mode.
        images: `(N, 3, H, W)`, on the network's device; nothing is computed on torch's `meta` device.
    """
    training = network.training
    with FlopCounterMode(display=False) as counter:
        network.eval()(images)
    network.train(training)
    return counter.get_total_flops()
