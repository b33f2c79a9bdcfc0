"""Whole training of a recipe in turns, with `cifar_lab.train` and with the best plain loop, and its accuracy."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from cifar_lab.benchmark import loops
from cifar_lab.benchmark.watch import Over, Watch
from cifar_lab.config.composition import composed
from cifar_lab.machine import hardware


def train_whole(name: str, words: Sequence[str], watch: Watch, folder: Path) -> None:
    """Train all steps in turns, then send the accuracies and the evaluation time."""
    if name == "plain loop":
        _train_plainly(words, watch)
        return
    from cifar_lab import train
    from cifar_lab.benchmark.ours import Turns

    turns = Turns(watch, whole=True)
    result = train.run(words, callbacks=[turns])
    last = {key: result.get(f"test/{key}_final", result.get(f"test/{key}")) for key in ("acc", "acc_tta")}
    seconds = turns.validation_seconds + time.perf_counter() - turns.ended
    watch.send({**last, "images": turns.images, "evaluation_seconds": seconds})


def _train_plainly(words: Sequence[str], watch: Watch) -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.create(composed(words))
    parts = loops.Parts.of(config)
    try:
        for loss in loops.best(config, watch, parts=parts):
            watch.end(loss)
    except Over:
        if parts.slow:
            parts.slow.finish()
        began = time.perf_counter()
        accuracy = accuracy_of(parts, loops.native_of(config, parts))
        watch.send({"acc": accuracy, "acc_tta": None, "evaluation_seconds": time.perf_counter() - began})


@torch.no_grad()
def accuracy_of(parts: loops.Parts, native: hardware.Native) -> float:
    """Return the accuracy of the trained network on the test images, from 0 to 1."""
    model = parts.model.eval()
    autocast = partial(torch.autocast, native.device, torch.bfloat16, enabled=native.precision == "bf16-mixed")
    correct = count = 0
    for images, labels in parts.data.test_dataloader().to(torch.device(native.device)):
        with autocast():
            logits = model(images.to(memory_format=native.memory_format))
        correct += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    return correct / count
