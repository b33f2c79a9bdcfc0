"""`cifar_lab.train` as one of the loops: a callback takes the turns, Lightning's profiler times the parts of a step."""

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.profilers import PassThroughProfiler, Profiler

from cifar_lab import train
from cifar_lab.benchmark.watch import Watch
from cifar_lab.machine import hardware

# By the end of Lightning's name of an action: the phases that its time is added to (1) or subtracted from (-1), because
# forward and backward passes are called from within the optimizer's step.
_ACTIONS = {
    "train_dataloader_next": (("data", 1),),
    "training_step": (("forward", 1), ("optimizer", -1)),
    "Strategy.backward": (("backward", 1), ("optimizer", -1)),
    "optimizer_step": (("optimizer", 1),),
}


def ours(command: Sequence[str], watch: Watch) -> None:
    """Train a command line's run, in the current folder, until the watch ends it."""
    train.run([*command, "hydra.run.dir=run"], callbacks=[Turns(watch)])


class Turns(Checkpoint):
    """Takes turns with the other loops.

    A `Checkpoint` for Lightning, so that it is called after everything else in a step.

    Args:
        watch: Gives the turns.
        whole: Also time the work between epochs, except validation, and do not stop at the last step.
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
        """Exclude the work between epochs: validation and checkpoints."""
        if trainer.current_epoch > 0 and not self.whole:
            self.watch.leave_out()

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Note when it begins."""
        self._validation_began = self.watch.now()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Leave it out of the steps' time."""
        if self.whole:
            self.validation_seconds += self.watch.leave_out(self._validation_began)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """End the last turn."""
        if self.whole:
            self.watch.finish()
            self.ended = self.watch.now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count a step, and wait for the next turn if one is over."""
        self.images += len(batch[1])
        self.watch.end(pl_module.step_loss)
        self._choose_profiler(trainer)

    def _choose_profiler(self, trainer: Any) -> None:
        if self.watch.in_phases != (trainer.profiler is self.profiler):
            trainer.profiler = self.profiler if self.watch.in_phases else PassThroughProfiler()


class Phases(Profiler):
    """Assigns the actions that Lightning times to the phases of a step.

    Everything that an optimizer's step calls, except both passes, counts as the optimizer's.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch
        self._began: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        """An action begins."""
        if _phases(action_name):
            self._began[action_name] = self.watch.now()

    def stop(self, action_name: str) -> None:
        """An action ends, if this profiler has seen it begin."""
        if action_name in self._began:
            seconds = self.watch.now() - self._began.pop(action_name)
            for phase, sign in _phases(action_name):
                self.watch.add(phase, sign * seconds)


def _phases(action: str) -> Sequence[tuple[str, int]]:
    return next((phases for name, phases in _ACTIONS.items() if action.endswith(name)), ())
