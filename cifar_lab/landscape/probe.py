"""Probes of the loss along the gradient during training."""

import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from cifar_lab.landscape.maths.functional import NetworkLoss
from cifar_lab.landscape.maths.probing import probe
from cifar_lab.runs import Run
from cifar_lab.train.callbacks.throughput import Throughput


class GradientProbe(L.Callback):
    """Measure the loss and its gradient along the gradient before some optimizer steps.

    The loss is the Classifier's, without the L1 penalty, in float32 at every precision. It uses the step's batch (the
    last accumulated one) and dropout mask. A compiled network is probed uncompiled, with a different dropout mask.
    Training is bit-identical with and without probes. See `cifar_lab.landscape.maths.probing.probe`.

    Args:
        every: Steps between probes; the first probe is before step 0.
        etas: Step sizes as multiples of the optimizer's current learning rate, `(J,)`.
        relative: Step sizes as fractions ||delta|| / ||w|| of the norm of the weights, `(R,)`.
        at: Further steps to probe, counted from 0.
        run: Run that receives `probes.npz`; None keeps the probes in `arrays` only.
        throughput: Excludes the time of the probes from the training speed.
    """

    def __init__(
        self,
        every: int = 100,
        etas: Sequence[float] = (0.001, 0.0033, 0.011, 0.035, 0.115, 0.37, 1.2, 4.0),
        relative: Sequence[float] = (),
        at: Collection[int] = (0, 1, 2, 5, 10, 20, 50),
        run: Run | None = None,
        throughput: Throughput | None = None,
    ) -> None:
        self.every = every
        self.etas = tuple(etas)
        self.relative = tuple(relative)
        self.at = frozenset(at)
        self.run = run
        self.throughput = throughput
        self._batch: tuple[Tensor, Tensor, int] | None = None
        self._probes: list[dict[str, np.ndarray]] = []

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all probes so far, named as in `docs/run_directory.md`; empty before the first."""
        if not self._probes:
            return {}
        stacked = {name: np.stack([each[name] for each in self._probes]) for name in self._probes[0]}
        return {**stacked, "relative_distance": np.array(self.relative)}

    def state_dict(self) -> dict[str, Any]:
        """Return all probes so far, so that a resumed run does not depend on `probes.npz`."""
        return {name: torch.from_numpy(values) for name, values in self.arrays().items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from saved probes."""
        kept = {name: values.numpy() for name, values in state_dict.items() if name != "relative_distance"}
        count = len(kept.get("step", ()))
        self._probes = [{name: values[number] for name, values in kept.items()} for number in range(count)]

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Discard probes written after the checkpoint from which the run resumes."""
        self._write()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Keep the batch if its step will be probed."""
        step = trainer.global_step
        if step % self.every == 0 or step in self.at:
            self._batch = (*batch, batch_idx)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Optimizer) -> None:
        """Probe the kept batch, if any."""
        if self._batch is None:
            return
        _wait_for(pl_module.device)
        started = time.perf_counter()
        lr = float(optimizer.param_groups[0]["lr"])
        probed = self._probed(pl_module, *self._batch, lr=lr)
        _wait_for(pl_module.device)
        seconds = time.perf_counter() - started
        scalars = {"step": np.array(trainer.global_step), "lr": np.array(lr), "seconds": np.array(seconds)}
        self._probes.append({**scalars, **probed})
        self._batch = None
        if self.throughput is not None:
            self.throughput.leave_out(seconds)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Write the probes so far."""
        self._write()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Write the probes of a diverged or interrupted run."""
        self._write()

    def _probed(
        self, pl_module: Any, images: Tensor, labels: Tensor, batch_idx: int, lr: float
    ) -> Mapping[str, np.ndarray]:
        seed_draws = partial(pl_module.seed_draws, batch_idx)
        loss, contiguous = (
            NetworkLoss(pl_module.model, pl_module.loss, images.to(memory_format=layout), labels, seed_draws)
            for layout in (pl_module.memory_format, torch.contiguous_format)
        )
        # On a CPU, BatchNorm's second derivative takes twice as long in channels_last.
        is_slow = pl_module.device.type == "cpu" and pl_module.memory_format == torch.channels_last
        twin, known = (contiguous, _known(pl_module)) if is_slow else (None, None)
        return probe(loss, loss.weights(), [lr * eta for eta in self.etas], self.relative, twin, known)

    def _write(self) -> None:
        if self.run is not None and self._probes:
            self.run.write_probes(self.arrays())


def _known(pl_module: Any) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Return the step's loss and gradient if they equal the probe's.

    They do for an uncompiled network in float32, without L1 penalty, gradient accumulation or several processes.
    """
    trainer = pl_module.trainer
    is_plain = trainer.precision == "32-true" and trainer.accumulate_grad_batches == trainer.world_size == 1
    if not is_plain or pl_module.l1 or pl_module.model._compiled_call_impl:
        return None
    named = [(name, weight) for name, weight in pl_module.model.named_parameters() if weight.requires_grad]
    gradient = {name: weight.grad.clone() for name, weight in named if weight.grad is not None}
    return (pl_module.step_loss, gradient) if len(gradient) == len(named) else None


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
