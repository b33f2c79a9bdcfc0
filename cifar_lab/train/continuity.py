"""Settings that a resumed run takes from its first attempt, so that its results are bitwise identical."""

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from cifar_lab.config import build_scheduler
from cifar_lab.machine import compilation, hardware, provenance, ranks
from cifar_lab.machine.cores import cores
from cifar_lab.runs import Run, UnreadableError
from cifar_lab.train.attempt import Attempt
from cifar_lab.train.classifier import Classifier


def choose_native(config: Mapping[str, Any], run: Run) -> hardware.Native:
    """Choose precision and memory format: those of the run's first attempt, or the hardware's native ones.

    Also records the hardware and the source revision, because an unfinished run has no result that contains them.
    """
    recorded = run.status()
    options = {key: config["trainer"][key] for key in ("precision", "memory_format")}
    if config["optimizer"]["_target_"] == "torch.optim.LBFGS" and options["memory_format"] == "auto":
        options["memory_format"] = "contiguous"  # LBFGS calls `view` on gradients, which fails in channels_last
    chosen = {key: recorded.get(key, "auto") if value == "auto" else value for key, value in options.items()}
    native = hardware.choose(config["trainer"]["accelerator"], **chosen)
    where = {"hardware": hardware.describe(native.device), "git_revision": provenance.git_revision()}
    run.set_state("running", precision=native.precision, memory_format=native.layout, **where)
    return native


def in_safe_memory_format(native: hardware.Native, model: nn.Module, run: Run) -> hardware.Native:
    """Switch to contiguous memory, with a note, if channels_last would give the network wrong gradients."""
    suited = native.suited_to(model)
    if suited != native:
        run.set_state("running", memory_format=suited.layout)
        if ranks.rank() == 0:
            print(f"note: {hardware.contiguous_because(model)}", flush=True)
    return suited


@contextmanager
def compiled_as_recorded(
    config: Mapping[str, Any], attempt: Attempt, classifier: Classifier, native: hardware.Native
) -> Iterator[dict[str, bool]]:
    """Compile the network if the configuration requests it or, for a resumed run, if its first attempt did.

    Yields:
        The settings `compile` and `cuda_graphs` in use.

    Raises:
        ValueError: No compiler was found.
    """
    run, wanted = attempt.run, {key: config[key] for key in ("compile", "cuda_graphs")}
    recorded = wanted if attempt.checkpoint is None else run.status()
    does = {key: bool(recorded.get(key, False)) for key in wanted}
    if does["compile"] != wanted["compile"]:
        # A compiled network rounds differently and draws different random numbers.
        print(f"note: the run began with compile={str(does['compile']).lower()} and keeps it", flush=True)
    if does["cuda_graphs"] and native.device != "cuda":
        print("note: cuda_graphs=true is ignored because it needs a GPU", flush=True)
        does["cuda_graphs"] = False
    if does["compile"]:
        compilation.check_compiler(native.device)
    run.set_state("running", **does)
    with compilation.compiled(classifier.model, does["cuda_graphs"]) if does["compile"] else nullcontext():
        yield does


def longer(run: Run, config: Mapping[str, Any]) -> str | None:
    """Describe in a line how the learning rate continues if a run gets more epochs; None if it does not.

    Only schedules that do not depend on the number of epochs can be extended, see `config.check_epochs`.
    """
    try:
        before, rows, scheduler = run.config()["epochs"], run.metrics(), config["scheduler"]
    except (OSError, UnreadableError):  # no epoch yet, or damaged
        return None
    target, done = str(scheduler["_target_"]), len(rows)
    if config["epochs"] <= before or not done or not target.startswith(("torch.", "cifar_lab.")):
        return None
    begins = f"epochs={config['epochs']}: {before} before, {target.rpartition('.')[2]} unaffected"
    if target.endswith(".ReduceLROnPlateau"):
        now, monitor = rows["train/lr"].iloc[-1], scheduler["lightning"]["monitor"]
        return f"{begins}; epoch {done + 1} continues at lr {now:.3g}, which falls when {monitor} stops improving"
    rates = _rates(config, math.ceil(rows["step"].iloc[-1] / done))
    return f"{begins}; epoch {done + 1} continues at lr {rates[done]:.3g}, epoch {len(rates)} has {rates[-1]:.3g}"


def _rates(config: Mapping[str, Any], steps: int) -> list[float]:
    """Return the first group's learning rate at the start of each epoch, by the schedule alone.

    Each epoch has `steps` steps.
    """
    epochs = math.ceil(config["epochs"])
    options = build_scheduler(config["scheduler"], steps * epochs, config["epochs"])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config["optimizer"]["lr"], momentum=0.9)
    scheduler, rates = options["scheduler"](optimizer), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns if the scheduler steps before the optimizer
        for epoch in range(1, epochs + 1):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            for step in range(1, steps + 1):
                at = epoch if options["interval"] == "epoch" else (epoch - 1) * steps + step
                if (options["interval"] == "step" or step == steps) and at % options["frequency"] == 0:
                    scheduler.step()
    return rates


@contextmanager
def same_threads(attempt: Attempt, processes: int = 1) -> Iterator[int]:
    """Use as many threads as the run's first attempt, because results depend bitwise on the number of threads.

    Each of the `processes` on this machine gets an equal share, unless `OMP_NUM_THREADS` is set. The number of
    processes is recorded; a note is printed if it differs from that of the first attempt.

    Yields:
        The number of threads per process.
    """
    run, status = attempt.run, attempt.run.status()
    began = status.get("world_size", 1)
    if attempt.checkpoint is not None and began != processes:
        print(
            f"note: the run began with {began} processes and continues with {processes}; results differ bitwise",
            flush=True,
        )
    own = torch.get_num_threads()
    share = own if "OMP_NUM_THREADS" in os.environ else max(1, own // processes)
    recorded = status.get("threads", share)
    run.set_state("running", world_size=processes, threads=recorded)
    if recorded > max(own, cores()):
        print(f"note: the run began with {recorded} threads and keeps that number on {cores()} cores", flush=True)
    torch.set_num_threads(recorded)
    try:
        yield recorded
    finally:
        torch.set_num_threads(own)
