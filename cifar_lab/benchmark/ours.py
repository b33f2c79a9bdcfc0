"""`cifar_lab.train` as a benchmark loop: a callback takes the turns, a Lightning profiler times the parts of a step."""

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.profilers import PassThroughProfiler, Profiler

from cifar_lab import train
from cifar_lab.benchmark.watch import Watch
from cifar_lab.machine import hardware

# Phases to which an action's time is added (1) or from which it is subtracted (-1), by the end of Lightning's action
# name. Subtraction is needed because the optimizer step calls the forward and backward passes.
_ACTIONS = {
    "train_dataloader_next": (("data", 1),),
    "training_step": (("forward", 1), ("optimizer", -1)),
    "Strategy.backward": (("backward", 1), ("optimizer", -1)),
    "optimizer_step": (("optimizer", 1),),
}


def ours(command: Sequence[str], watch: Watch) -> None:
    """Train the run of a command line in the current folder until the watch ends it."""
    train.run([*command, "hydra.run.dir=run"], callbacks=[Turns(watch)])


class Turns(Checkpoint):
    """Take turns with the other loops.

    It is a `Checkpoint` because Lightning calls those after everything else in a step.

    Args:
        watch: Watch that assigns the turns.
        whole: Time the work between epochs, except validation, and continue after the last step.
    """

    def __init__(self, watch: Watch, whole: bool = False) -> None:
        self.watch = watch
        self.whole = whole
        self.profiler = Phases(watch)
        self.images = 0
        self.validation_seconds = self._validation_began = self.ended = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Wait for the first turn."""
        self.watch.wait(hardware.Native(pl_module.device.type, str(trainer.precision), pl_module.memory_format))
        self._choose_profiler(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Exclude the time between two epochs: validation, checkpoints."""
        if trainer.current_epoch > 0 and not self.whole:
            self.watch.leave_out()

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Record the start of validation."""
        self._validation_began = self.watch.now()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Exclude validation from the time of the steps."""
        if self.whole:
            self.validation_seconds += self.watch.leave_out(self._validation_began)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """End the last turn."""
        if self.whole:
            self.watch.finish()
            self.ended = self.watch.now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count a step, and wait for the next turn if this one is over."""
        self.images += len(batch[1])
        self.watch.end(pl_module.step_loss)
        self._choose_profiler(trainer)

    def _choose_profiler(self, trainer: Any) -> None:
        if self.watch.in_phases != (trainer.profiler is self.profiler):
            trainer.profiler = self.profiler if self.watch.in_phases else PassThroughProfiler()


class Phases(Profiler):
    """Assign the actions that Lightning times to the phases of a step.

    All calls in the optimizer step except both passes count as the optimizer phase.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch
        self._began: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        """Record the start of an action."""
        if _phases(action_name):
            self._began[action_name] = self.watch.now()

    def stop(self, action_name: str) -> None:
        """Add an action's time to its phases, if this profiler recorded its start."""
        if action_name in self._began:
            seconds = self.watch.now() - self._began.pop(action_name)
            for phase, sign in _phases(action_name):
                self.watch.add(phase, sign * seconds)


def _phases(action: str) -> Sequence[tuple[str, int]]:
    return next((phases for name, phases in _ACTIONS.items() if action.endswith(name)), ())
