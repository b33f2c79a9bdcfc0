"""Processes that train one run together, each on its part of every batch."""

import os
import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cifar_lab.machine.interruption import Interruption
from cifar_lab.runs import FollowedRun
from cifar_lab.train.attempt import TrainingTask

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]


def trained_together(
    task: TrainingTask, interruption: Interruption, store: "Store", rank: int, count: int
) -> dict[str, Any]:
    """Train a run as one of `count` processes that share a store, and return its result; only rank 0 writes files."""
    from torch import cuda, distributed, set_num_threads

    from cifar_lab.machine.hardware import training_device
    from cifar_lab.train.fitting import trained

    set_num_threads(task.threads)
    attempt, trainer = replace(task.attempt, interruption=interruption), task.config["trainer"]
    if rank > 0:
        attempt = replace(attempt, run=FollowedRun(attempt.run.folder))
    backend = "gloo"
    if training_device(trainer["accelerator"]) == "cuda":
        # gloo exchanges Python objects between CPUs without waiting for the GPUs.
        backend = "cpu:gloo,cuda:nccl"
        devices, local = trainer["devices"], int(os.environ["LOCAL_RANK"])
        cuda.set_device(devices[local] if isinstance(devices, list) else local)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
    try:
        return trained(replace(task, attempt=attempt))
    finally:
        distributed.destroy_process_group()


def quiet_torch(count: int) -> None:
    """Silence torch's warning about `find_unused_parameters`, set in `assembly`; call it before torch is imported."""
    if count > 2:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def hush() -> None:
    """Silence this process's standard output and warnings; rank 0 prints."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    warnings.simplefilter("ignore")
