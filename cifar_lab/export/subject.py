"""What is exported: a trained network in float32 on the CPU, and what is known of these very weights."""

import copy
from dataclasses import replace

import torch

from cifar_lab.config import class_names, resolved
from cifar_lab.machine import hardware
from cifar_lab.runs import weights_name
from cifar_lab.trained import Trained
from cifar_lab.trained.description import Description


def on_cpu(trained: Trained) -> Trained:
    """The network in float32, on the CPU and contiguous, whatever it was trained in; the original is left.

    Raises:
        ValueError: Nothing says how its images are normalised.
    """
    if len(trained.mean) != 3 or len(trained.std) != 3:
        raise ValueError(f"{trained.label} does not say how its images are normalised: its data has no mean and std")
    model = copy.deepcopy(trained.model).float().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    native = hardware.Native("cpu", "32-true", torch.contiguous_format)
    return replace(trained, model=model.eval(), native=native)


def description(trained: Trained) -> Description:
    """What its files say of it."""
    return Description(
        model=dict(trained.making),
        architecture=trained.architecture,
        mean=[float(value) for value in trained.mean],
        std=[float(value) for value in trained.std],
        classes=list(trained.classes),
        names=list(trained.model.state_dict()),
        facts=dict(trained.facts),
    )


def file_of_weights(trained: Trained) -> str:
    """The name of its plain state dict: the report's where its run was tested with these weights, else its file's."""
    if trained.config is not None and "test/acc" in trained.facts:
        return weights_name(class_names(resolved(trained.config)), trained.facts["test/acc"])
    return f"{trained.weights.stem}.pth"
