"""Shows the progress and the forecast of a run: a bar on a terminal, lines otherwise."""

import math
import time
from contextlib import ExitStack
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from cifar_lab.engines.handover import Turn
from cifar_lab.terminal import progress
from cifar_lab.terminal.printing import bar_console
from cifar_lab.terminal.progress import clock
from cifar_lab.train.callbacks.forecast import Forecast
from cifar_lab.train.callbacks.last_epoch import batches_of_run
from cifar_lab.train.callbacks.throughput import Throughput

_BAR_SECONDS = 0.5


class Progress(Checkpoint):
    """Shows epoch, loss, validation accuracy, images per second and the time left for the whole run.

    A terminal shows a bar and, above it, a line for each finished epoch. Other outputs get these lines, and a line
    every half minute within an epoch. After the first steps, a line forecasts the duration of the run or sweep. The
    class is a `Checkpoint` because Lightning calls these after the module has logged the epoch.

    Args:
        throughput: Measures the speed of the run.
        console: Console to print to. Default: standard output.
        val_name: Label of `val/acc`, which is measured on the test set under `protocol=report`.
        turn: Place in a sweep.
        epochs: Epochs of the run if fractional. Default: the Trainer's `max_epochs`.
    """

    def __init__(
        self,
        throughput: Throughput,
        console: Console | None = None,
        val_name: str = "val acc",
        turn: Turn | None = None,
        epochs: float | None = None,
    ) -> None:
        self.throughput = throughput
        self.epochs = epochs
        self.turn = turn
        self.val_name = val_name
        self.console = console or bar_console()
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._next = self._started = 0.0
        self._steps_done = 0
        self._forecast = Forecast(turn)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Open the bar, on a terminal."""
        self._started = time.perf_counter()
        self._next = self._started + self._interval()
        if self._has_bar():
            self._bar = Bar(TextColumn("{task.description}"), BarColumn(), console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._batches(trainer))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Show the step at intervals only, because reading a loss waits for the device."""
        self._steps_done += 1
        if line := self._forecast.line(trainer, pl_module, self._batches_left(trainer)):
            self.console.print(line)
        if not self._is_due():
            return
        whole = int(trainer.num_training_batches)
        batches, before = self._batches(trainer), trainer.current_epoch * whole
        step = f"step {batch_idx + 1}/{min(whole, batches - before)}"
        text = (
            f"{self._job()}epoch {trainer.current_epoch + 1}/{trainer.max_epochs} {step}"
            f"  loss {float(pl_module.step_loss):.4f}{self._accuracy(trainer)}  {self._speed()}{self._left(trainer)}"
        )
        self._show(text, before + batch_idx + 1)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: object, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show the progress of a long validation."""
        if self._is_due():
            number = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._show(f"{self._job()}epoch {number} validation {batch_idx + 1}/{sum(trainer.num_val_batches)}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Print the epoch's line."""
        metrics = trainer.callback_metrics
        self.console.print(
            f"{self._job()}epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {metrics['train/loss']:.4f}"
            f"  train acc {metrics['train/acc']:.2%}{self._accuracy(trainer)}  {self._speed()}"
            f"  {self.throughput.epoch_seconds:.1f} s{self._left(trainer)}"
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Close the bar, so that an error is not printed into it."""
        self.on_train_end(trainer, pl_module)

    def _is_due(self) -> bool:
        now = time.perf_counter()
        if now < self._next:
            return False
        self._next = now + self._interval()
        return True

    def _show(self, text: str, completed: int | None = None) -> None:
        if self._bar is None:
            self.console.print(text)
        else:
            self._bar.update(self._task, description=text, completed=completed)

    def _interval(self) -> float:
        return _BAR_SECONDS if self._has_bar() else progress.LINE_SECONDS

    def _has_bar(self) -> bool:
        """Return whether to draw a bar; parallel jobs would overwrite each other's."""
        return self.console.is_terminal and (self.turn is None or self.turn.parallel == 1)

    def _accuracy(self, trainer: L.Trainer) -> str:
        accuracy = trainer.callback_metrics.get("val/acc")
        return "" if accuracy is None else f"  {self.val_name} {accuracy:.2%}"

    def _speed(self) -> str:
        speed = self.throughput.images_per_second
        return "- images/s" if math.isnan(speed) else f"{speed:,.0f} images/s"

    def _left(self, trainer: L.Trainer) -> str:
        if self._steps_done == 0:
            return ""
        left = self._batches_left(trainer)
        each = (time.perf_counter() - self._started) / self._steps_done
        texts = [f"{clock(each * left)} left"] if left else []
        if self.turn is not None and (sweep := self.turn.seconds_left(each * (self._steps_done + left), each * left)):
            texts.append(f"{clock(sweep)} {'' if left else 'left '}of the sweep")
        return f"  {', '.join(texts)}" if texts else ""

    def _batches_left(self, trainer: L.Trainer) -> int:
        total = self._batches(trainer) - int(trainer.num_training_batches) * trainer.current_epoch
        return max(0, total - trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    def _batches(self, trainer: L.Trainer) -> int:
        return batches_of_run(self.epochs or trainer.max_epochs or 1, int(trainer.num_training_batches))

    def _job(self) -> str:
        return "" if self.turn is None else f"{self.turn}  "


class ProgressOfTest(L.Callback):
    """Shows the progress of a test on standard error.

    Args:
        turn: Place in a sweep.
    """

    def __init__(self, turn: Turn | None = None) -> None:
        self.turn = turn
        self._open = ExitStack()

    def on_test_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Open the bar, on a terminal."""
        self._batches = sum(trainer.num_test_batches)
        title, bar = "test" if self.turn is None else f"{self.turn}  test", self.turn is None or self.turn.parallel == 1
        self._show = self._open.enter_context(progress.progress(title, self._batches, bar=bar))

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: object, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Update the bar."""
        self._show("", batch_idx + 1)

    def on_test_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Close the bar."""
        self._open.close()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Close the bar, so that an error is not printed into it."""
        self._open.close()
