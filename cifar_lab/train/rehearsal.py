"""One training step on two images before a run starts, to find components that do not work together."""

import copy
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

import cifar_lab
from cifar_lab.data.datamodule import InMemoryDataModule
from cifar_lab.machine import ranks
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.optimizers import make_optimizer, make_scheduler
from cifar_lab.train.classifier import Classifier

_PARTS = ("model", "loss", "optimizer", "scheduler")
_IMAGES = 2
# Folders of packages whose lines of code do not help a user to find the fault.
_LIBRARIES = tuple(str(Path(str(package.__file__)).parent) for package in (torch, lightning, cifar_lab))


class _PartError(Exception):
    """A component raised an exception."""


def rehearse(config: Mapping[str, Any], classifier: Classifier, datamodule: InMemoryDataModule, device: str) -> None:
    """Take a step with copies of network and loss on the CPU; weights and random states do not change.

    A network that cannot be copied is not rehearsed. If the run uses a different device, only wrong return values are
    refused, because other errors may be specific to the CPU.

    Raises:
        ValueError: A component failed. The message names the component, its expected input and output, and the error.
    """
    names = {part: f"{part}._target_={config[part].get('_target_')}" for part in _PARTS}
    if datamodule.size("train") < _IMAGES:
        raise UsageError("one training image is too few; use more")
    with isolate_rng(include_cuda=False), torch.enable_grad():
        try:
            model, loss = copy.deepcopy(classifier.model).train(), copy.deepcopy(classifier.loss)
        except Exception:
            return
        try:
            _step(names, classifier, datamodule, model, loss)
        except _PartError as error:
            if device == "cpu":
                raise UsageError(str(error)) from error


def _step(
    names: Mapping[str, str],
    classifier: Classifier,
    datamodule: InMemoryDataModule,
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    classes = len(datamodule.classes)
    with _of(names["model"], "it must map images (N, 3, 32, 32) to logits (N, classes)"):
        images = datamodule.training_images(_IMAGES)
        try:
            logits = model(images.to(memory_format=classifier.memory_format))
        except Exception:  # some networks accept only whole batches
            images = datamodule.training_images(datamodule.batch_size)
            logits = model(images.to(memory_format=classifier.memory_format))
    _check_logits(logits, (len(images), classes), names["model"])
    with _of(names["loss"], "it must take logits (N, classes) and labels (N,)"):
        value = loss(logits, torch.arange(len(images)) % classes)
    _check_loss(value, names["loss"])
    if not value.requires_grad:
        raise UsageError(f"{names['model']}: no weight is trainable; leave at least one unfrozen")
    with _of(names["optimizer"], "it must take the network's parameters"):
        optimizer, _ = make_optimizer(classifier.optimizer_factory, model)
    if classifier.scheduler_options is not None:
        with _of(names["scheduler"], "it must take the optimizer"):
            make_scheduler(classifier.scheduler_options["scheduler"], optimizer)
    with _of(names["optimizer"], "its step failed"):
        value.backward()
        optimizer.step(_closure(value))


def drop_single_image(model: nn.Module, datamodule: InMemoryDataModule) -> None:
    """Drop an epoch's last batch, with a note, if it has one image and the network's BatchNorm needs two."""
    is_single = datamodule.size("train") % datamodule.batch_size == 1 < datamodule.batch_size
    if not is_single or datamodule.drop_last:
        return
    with isolate_rng(include_cuda=False), torch.no_grad(), suppress(Exception):  # the rehearsal reports other errors
        copied = copy.deepcopy(model).train()
        try:
            copied(datamodule.training_images(1))
        except ValueError:
            datamodule.drop_last = True
            if ranks.rank() == 0:
                print("note: an epoch's last batch has one image, too few for BatchNorm; it is dropped", flush=True)


def _closure(value: Tensor) -> Callable[[], float]:
    """Return the closure that L-BFGS calls for the loss; the gradients are already computed."""
    return lambda: float(value.detach())


def _check_logits(logits: Any, shape: tuple[int, int], name: str) -> None:
    if not isinstance(logits, Tensor):
        raise UsageError(
            f"{name}: it returns a {type(logits).__name__}; it must return a single tensor of logits (N, classes)"
        )
    if logits.shape != shape:
        raise UsageError(f"{name}: it maps {shape[0]} images to {tuple(logits.shape)}; it must return logits {shape}")


def _check_loss(value: Any, name: str) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1:
        is_one = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise UsageError(f"{name}: it returns {is_one}; it must return the batch mean, one number")


@contextmanager
def _of(name: str, what: str) -> Iterator[None]:
    """Turn a component's exception into a `_PartError` with its name, contract, message and line of code."""
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
        where = f", in {own[-1].filename}:{own[-1].lineno}" if own else ""
        message = " ".join(str(error).split()) or type(error).__name__
        raise _PartError(f"{name}: {what}; {message}{where}") from error
