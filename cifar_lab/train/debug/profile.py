"""Time of a training step by phase and by operator."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.profilers import Profiler
from omegaconf import DictConfig
from torch.profiler import ProfilerActivity, schedule

from cifar_lab.machine import ranks
from cifar_lab.terminal.printing import print_table
from cifar_lab.train.assembly import make_averaging, make_callbacks, make_trainer, trainer_options
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.callbacks import CheckpointFiles, Progress, Throughput
from cifar_lab.train.fitting import prepared

_WARM_UP = 5  # steps
_TRACED = 4  # steps with torch's profiler, the first of which is a warm-up
# Phases of a step, with the suffixes of the names of Lightning's actions; the rest counts as Lightning's own time.
_PHASES = {
    "data": (".train_dataloader_next", ".batch_to_device"),
    "forward": (".training_step",),
    "backward": (".backward",),
    "optimizer": (".optimizer_step", ".optimizer_zero_grad", ".configure_gradient_clipping", ".lr_scheduler_step"),
}
_CALLBACKS, _LIGHTNING = "callbacks", "Lightning"
_FIRST, _LAST = ".train_dataloader_next", ".on_train_batch_end"  # the first and last action of a step


def profile(config: DictConfig, attempt: Attempt) -> dict[str, Any]:
    """Train for some steps, and print the milliseconds per step of each phase and of the slowest operators."""
    timed, steps = config.debug.batches, _WARM_UP + config.debug.batches + _TRACED
    with prepared(config, attempt) as (classifier, datamodule, native, _):
        each = min(datamodule.steps_per_epoch, steps)
        options = trainer_options(config, native)
        options |= {"limit_train_batches": each, "limit_val_batches": 1, "max_epochs": math.ceil(steps / each)}
        options["plugins"].append(CheckpointFiles(attempt.run))
        phases = _Phases(torch.cuda.synchronize if native.device == "cuda" else None)
        operators = _Operators(native.device, _WARM_UP + timed)
        made = make_callbacks(config, attempt, Throughput(), make_averaging(config))
        callbacks = [operators, *(callback for callback in made if not isinstance(callback, Progress))]
        trainer = make_trainer(**{**options, "profiler": phases}, callbacks=callbacks, logger=False)
        trainer.fit(classifier, datamodule)
    mean = dict.fromkeys((*_PHASES, _CALLBACKS, _LIGHTNING), 0.0)
    for step in phases.steps[_WARM_UP:][:timed]:
        mean |= {name: mean[name] + seconds / timed for name, seconds in step.items()}
    if ranks.rank() == 0:
        whole = sum(mean.values())
        how = f"on {native.device}, {native.precision}, {native.layout}"
        print(f"debug=profile: {timed} steps of {config.batch_size} images {how}: {_ms(whole)} ms per step, "
              f"{config.batch_size / whole:,.0f} images/s")  # fmt: skip
        _print("phase", mean, whole)
        slowest = operators.seconds()
        print(f"the slowest of {len(slowest)} operators over {_TRACED - 1} more steps, without the operators they call")
        top = sorted(slowest, key=lambda name: -slowest[name])[: config.debug.operators]
        _print("operator", {name: slowest[name] for name in top}, sum(slowest.values()))
    return {"phases": mean}


def _print(what: str, seconds: Mapping[str, float], whole: float) -> None:
    rows = [
        {what: name, "ms per step": _ms(own), "share": f"{own / whole:.1%}" if whole else ""}
        for name, own in seconds.items()
    ]
    print_table(rows, left=[what])


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


class _Phases(Profiler):
    """Divides the time of each training step among its phases; time in a nested phase counts only there.

    Args:
        wait: Synchronises with a device that computes asynchronously; None for a CPU.
    """

    def __init__(self, wait: Callable[[], None] | None) -> None:
        super().__init__()
        self.wait = wait
        self.steps: list[dict[str, float]] = []
        self._phases: list[str] = [_LIGHTNING]  # stack of the current phases, outermost first
        self._step: dict[str, float] | None = None  # seconds by phase of the current step
        self._since = 0.0

    def start(self, action_name: str) -> None:
        """Begin an action; the first action of a step begins the step."""
        if action_name.endswith(_FIRST) and self._step is None:
            self._step, self._since = defaultdict(float), time.perf_counter()
        phase = next((name for name, ends in _PHASES.items() if action_name.endswith(ends)), None)
        phase = phase or (_CALLBACKS if action_name.startswith("[Callback]") else self._phases[-1])
        self._turn(phase)
        self._phases.append(phase)

    def stop(self, action_name: str) -> None:
        """End an action; the last action of a step ends the step."""
        self._turn(self._phases[-2])
        self._phases.pop()
        if self._step is not None and action_name.startswith("[LightningModule]") and action_name.endswith(_LAST):
            self.steps.append(dict(self._step))
            self._step = None

    def _turn(self, phase: str) -> None:
        """Add the elapsed time to the current phase if a different phase follows."""
        if self._step is not None and phase != self._phases[-1]:
            if self.wait is not None:
                self.wait()
            now = time.perf_counter()
            self._step[self._phases[-1]] += now - self._since
            self._since = now


class _Operators(L.Callback):
    """Measures operators with torch's profiler after `after` steps."""

    def __init__(self, device: str, after: int) -> None:
        self.is_on_gpu = device == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.is_on_gpu else [])]
        window = schedule(wait=after, warmup=1, active=_TRACED - 1, repeat=1)
        self.profiler = torch.profiler.profile(activities=activities, schedule=window)

    def on_train_start(self, *_: Any) -> None:
        """Start the profiler, which counts the steps itself."""
        self.profiler.start()

    def on_train_batch_end(self, *_: Any) -> None:
        """Count a step."""
        self.profiler.step()

    def on_train_end(self, *_: Any) -> None:
        """Stop the profiler."""
        self.profiler.stop()

    def seconds(self) -> dict[str, float]:
        """Return the seconds per step of each operator on the device, without the operators it calls."""
        seconds: dict[str, float] = defaultdict(float)
        for event in self.profiler.key_averages():
            if event.device_type.name == "CPU" and not event.is_user_annotation:
                microseconds = event.self_device_time_total if self.is_on_gpu else event.self_cpu_time_total
                seconds[event.key] += microseconds / 1e6 / (_TRACED - 1)
        return {name: own for name, own in seconds.items() if own}
