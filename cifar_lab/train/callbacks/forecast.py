"""Forecasts the remaining time of a run or sweep from its first steps."""

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer

from cifar_lab.engines.handover import Turn
from cifar_lab.terminal.progress import span

_WARM_UP_STEPS, _STEPS = 5, 20
_WARM_UP_SECONDS, _SECONDS, _FEWEST = 10.0, 20.0, 2  # time limits for slow steps, and the fewest steps measured
_SHORTEST = 10.0  # seconds; shorter forecasts are not printed
_FORWARD = 1 / 3  # cost of a forward pass, as a share of a training step's operations


class _Moment:
    """A timestamp in a device's stream of work, taken without synchronisation."""

    def __init__(self, device: torch.device) -> None:
        self._time = time.perf_counter()
        self._event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        if self._event is not None:
            self._event.record()

    def since(self, earlier: "_Moment") -> float | None:
        """Return the seconds since an earlier moment; None while the device has not reached this one."""
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        return earlier._event.elapsed_time(self._event) / 1000 if self._event.query() else None


class Forecast:
    """Forecasts the time left from steps 5 to 20 of a run, or from the first half minute if steps are slow.

    Args:
        turn: Place in a sweep. No forecast is made if earlier jobs have been timed.
    """

    def __init__(self, turn: Turn | None = None) -> None:
        self.turn = turn
        self._begun = self._started = time.perf_counter()
        self._steps = self._first_step = self._measured = 0
        self._first: _Moment | None = None
        self._last: _Moment | None = None
        self._is_over = turn is not None and turn.each is not None

    def line(self, trainer: L.Trainer, pl_module: Any, batches_left: int) -> str | None:
        """Return the forecast once it can be made, otherwise None; called after each step with the batches left."""
        if self._is_over:
            return None
        self._steps += 1
        now = time.perf_counter()
        if self._first is None:
            if self._steps == _WARM_UP_STEPS or now > self._started + _WARM_UP_SECONDS:
                self._first, self._first_step, self._started = _Moment(pl_module.device), self._steps, now
        elif self._last is None:
            slow = now > self._started + _SECONDS and self._steps >= self._first_step + _FEWEST
            if self._steps == _STEPS or slow:
                self._last, self._measured = _Moment(pl_module.device), self._steps
        if self._first is None or self._last is None:
            return None
        seconds = self._last.since(self._first)
        if seconds is None:
            return None
        self._is_over = True
        return self._words(trainer, seconds / (self._measured - self._first_step), batches_left)

    def _words(self, trainer: L.Trainer, step: float, batches_left: int) -> str | None:
        data, callbacks = trainer.datamodule, trainer.callbacks  # type: ignore[attr-defined]
        batches, size = int(trainer.num_training_batches), data.batch_size
        epochs, validation_epochs = batches_left / batches, trainer.check_val_every_n_epoch or 1
        evaluated = data.size("val") * int(epochs // validation_epochs) + 2 * data.size("test")
        left, limit = step * (batches_left + _FORWARD * evaluated / size), ""
        timer = next((each for each in callbacks if isinstance(each, Timer)), None)
        remaining = None if timer is None else timer.time_remaining()
        if remaining is not None and remaining < left:
            left, limit = remaining, "; trainer.max_time ends it earlier"
        whole = left if self.turn is None else self.turn.seconds_left(left + time.perf_counter() - self._begun, left)
        if whole is None or whole < _SHORTEST:
            return None
        images = min(batches * size, data.size("train"))
        words = (
            f"{epochs:.3g} epoch{'s' * (epochs != 1)} of {images:,} images at {size / step:,.0f} images/s "
            f"(measured in the first {self._measured} steps){limit}"
        )
        if self.turn is None or not self.turn.later:
            return f"about {span(left)}: {words}"
        return f"{self.turn.later + 1} jobs, about {span(whole)}; this one about {span(left)}: {words}"
