"""Number of processes that train a run together, and its limits, checked before torch is imported."""

from collections.abc import Mapping, Sequence
from typing import Any

from cifar_lab.machine import torchrun
from cifar_lab.machine.exit_codes import UsageError

# Values of `trainer.devices` that mean all devices; only torch can count them.
ALL = ("auto", -1)
UNSYNCED = "trainer.sync_batchnorm=true: torch supports it on GPUs only; leave it out, or set bn=false"


def processes(config: Mapping[str, Any]) -> int | None:
    """Return the number of processes that train a composition: torchrun's, or else one per device.

    None if `trainer.devices` means all devices of the machine.
    """
    started, devices = torchrun.processes(), config["trainer"]["devices"]
    if started is not None:
        return started[0] * started[1]
    if devices in ALL:
        return None
    return len(devices) if isinstance(devices, Sequence) else int(devices)


def here(config: Mapping[str, Any]) -> int:
    """Return the number of processes to start on this machine; 1 for a single process or under torchrun."""
    count = 1 if torchrun.processes() is not None else processes(config)
    if count is None:
        from cifar_lab.machine import hardware

        count = hardware.device_count(config["trainer"]["accelerator"])
    return count


def check_devices(config: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an invalid number of devices, or for settings that require a single process."""
    trainer = config["trainer"]
    _check_number(trainer["devices"])
    _check_torchrun(trainer)
    count = processes(config)
    if count == 1:
        return
    several = f"trainer.devices={trainer['devices']}" if torchrun.processes() is None else "torchrun"
    if config["jobs_per_device"] > 1:
        raise UsageError(f"{several}: jobs_per_device= runs each job on one device; leave one of them out")
    if config["probe"]:
        raise UsageError(f"{several}: probe= needs whole batches, but each process has only a part; set probe=none")
    if config["cuda_graphs"]:
        raise UsageError(f"{several}: cuda_graphs= cannot record a step of several processes; set cuda_graphs=false")
    if count is None:
        return
    if config["batch_size"] < count:
        raise UsageError(f"batch_size={config['batch_size']}: {count} processes share each batch; set it higher")
    if trainer["accelerator"] not in ("auto", "cpu", "gpu", "cuda"):
        raise UsageError(f"{several}: trainer.accelerator={trainer['accelerator']} is one device; leave both out")
    if trainer["sync_batchnorm"] and trainer["accelerator"] == "cpu":
        raise UsageError(UNSYNCED)


def device_notes(config: Mapping[str, Any]) -> list[str]:
    """Return notes about training with several processes."""
    trainer, count = config["trainer"], processes(config)
    if count is None or count == 1 or not config["bn"] or trainer["sync_batchnorm"]:
        return []
    part = -(-config["batch_size"] // count)
    on_gpus = "" if trainer["accelerator"] == "cpu" else "; trainer.sync_batchnorm=true uses the whole batch, on GPUs"
    return [
        f"BatchNorm normalises over the {part} images of each of {count} processes instead of the whole batch of "
        f"{config['batch_size']}, which changes numbers{on_gpus}"
    ]


def _check_number(devices: Any) -> None:
    is_number = isinstance(devices, int) and not isinstance(devices, bool) and devices >= 1
    is_list = isinstance(devices, list) and devices and all(isinstance(each, int) and each >= 0 for each in devices)
    if not (is_number or is_list or devices in ALL):
        raise UsageError(
            f"trainer.devices={devices}: it takes a positive number, GPU numbers such as [0,1], or auto for all GPUs"
        )


def _check_torchrun(trainer: Mapping[str, Any]) -> None:
    started, devices, machines = torchrun.processes(), trainer["devices"], trainer["num_nodes"]
    if started is None:
        if machines > 1:
            raise UsageError(
                f"trainer.num_nodes={machines}: start it by torchrun --nnodes={machines} on each machine, "
                "see docs/scaling.md"
            )
        return
    number = len(devices) if isinstance(devices, list) else devices
    if number not in (1, started[0], *ALL):
        raise UsageError(f"trainer.devices={devices}: torchrun has started {started[0]} processes here; leave it out")
    if machines not in (1, started[1]):
        raise UsageError(f"trainer.num_nodes={machines}: torchrun runs on {started[1]} machines; leave it out")
