"""Check combinations of settings that are valid one by one, and note those that may be unintended."""

import importlib.util
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from cifar_lab.config.checks import did_you_mean
from cifar_lab.config.devices import check_devices, device_notes
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.labels import LAST, PROTOCOLS, holds_out

_LOW_PRECISIONS = ("bf16-true", "16-true")
_SCALED_PRECISIONS = ("16-mixed", 16)
_LENGTHS = {"T_max", "T_0", "step_size", "total_iters", "total_steps"}
_METRICS = ("val/loss", "val/acc", "train/loss", "train/acc", "train/objective", "train/lr")  # logged every epoch
_OURS = ("cifar_lab.", "lightning.")
_THREE = {"cifar_lab.models.CNN": "filters", "cifar_lab.models.SpeedCNN": "widths"}
_OF_LIBRARIES = ("cifar_lab.models.Timm", "cifar_lab.models.Torchvision")
_SIDE = 32  # height and width of an image, in pixels
_LARGE_RATIO = 10  # averaging.lr / optimizer.lr that is worth a note


def check_together(config: Mapping[str, Any]) -> None:
    """Raise `UsageError` for settings that do not work together."""
    if config["retrain"] and config["resume"] not in (None, "auto"):
        raise UsageError("retrain=true trains from the start, and resume= continues a run; leave one of them out")
    if config["debug"] and config["resume"] is not None:
        raise UsageError("debug= leaves no run to resume; leave resume= out")
    _check_protocol(config)
    _check_network(config["model"])
    _check_optimizer(config)
    _check_schedule(config["scheduler"], config["epochs"])
    augment = config["augment"]
    if str(augment.get("_target_")).startswith("cifar_lab.data.mixing.") and not augment["alpha"]:
        raise UsageError("augment.alpha=0 mixes nothing; set it above 0, or augment=flip_crop")
    if (augment.get("padding") or 0) >= _SIDE:
        raise UsageError(f"augment.padding={augment['padding']} can move all {_SIDE} pixels out of view; set it lower")
    if config["loss"].get("alpha") == 0:
        raise UsageError("loss.alpha=0 makes every loss 0; set it above 0")
    averaging, epochs, precision = config["averaging"], config["epochs"], config["trainer"]["precision"]
    start, length = averaging.get("start"), averaging.get("epochs")
    if start is not None and length is not None and round(start * length) >= epochs:
        raise UsageError(f"averaging.start={start} of {epochs} epochs leaves none to average; set it lower")
    if str(averaging.get("_target_")).endswith(".Lookahead") and not 0 < averaging["alpha"] <= 1:
        raise UsageError(f"averaging.alpha={averaging['alpha']}: it takes a number above 0, at most 1")
    if averaging and precision in _LOW_PRECISIONS:
        raise UsageError(f"trainer.precision={precision} rounds away small updates of the average; use bf16-mixed")
    if config["tta"] == "none" and config["tta_below"] != 1:
        raise UsageError(f"tta_below={config['tta_below']} is for test-time augmentation; set tta=flip_translate too")
    if config["cuda_graphs"]:
        if not config["compile"]:
            raise UsageError("cuda_graphs=true records the kernels of torch.compile; set compile=true too")
        # Compiled gradients live in the graph's own memory. Its next replay overwrites them, so their sum is lost.
        if config["trainer"]["accumulate_grad_batches"] != 1:
            raise UsageError("cuda_graphs=true cannot accumulate gradients; set trainer.accumulate_grad_batches=1")
        if config["trainer"]["accelerator"] == "cpu":
            raise UsageError("cuda_graphs=true needs a GPU, and trainer.accelerator=cpu; leave one of them out")
    if config["model"].get("_target_") == "cifar_lab.models.Timm" and importlib.util.find_spec("timm") is None:
        raise UsageError("model=timm needs timm, which is not installed: pip install 'cifar-lab[timm]'")
    check_devices(config)
    _check_time(config["trainer"]["max_time"])
    _check_monitors(config)


def _check_time(limit: str | None) -> None:
    if limit is not None and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", limit):
        raise UsageError(f"trainer.max_time={limit}: it takes DD:HH:MM:SS, such as 00:01:30:00 for 90 minutes")


def _check_monitors(config: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a monitored metric that no run logs, unless a user's own callback may log it."""
    callbacks = {f"callbacks.{name}": option for name, option in config["callbacks"].items()}
    own = [option for option in callbacks.values() if not str(option.get("_target_", "cifar_lab.")).startswith(_OURS)]
    for part, option in {"scheduler.lightning": config["scheduler"].get("lightning", {}), **callbacks}.items():
        monitor = option.get("monitor")
        if monitor is not None and monitor not in _METRICS and not own:
            raise UsageError(
                f"{part}.monitor={monitor} is not a metric; use {', '.join(_METRICS)}{did_you_mean(monitor, _METRICS)}"
            )


def _check_protocol(config: Mapping[str, Any]) -> None:
    """Raise `UsageError` unless the protocol's name and both fractions agree on whether images are held out."""
    protocol, held_out = config["protocol"], holds_out(config)
    if {PROTOCOLS.get(protocol["name"], held_out), bool(protocol["val_fraction"])} != {held_out}:
        settings = f"protocol.name={protocol['name']} protocol.val_fraction={protocol['val_fraction']}"
        share = config["data"].get("val_fraction", protocol["val_fraction"])
        raise UsageError(f"{settings} data.val_fraction={share} contradict each other; set protocol alone")


def _check_network(model: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a list of a length that one of our networks does not accept."""
    target = str(model.get("_target_"))
    key = _THREE.get(target)
    if key and len(model[key]) != 3:
        raise UsageError(
            f"model.{key}={model[key]}: this network takes three widths, because it halves the image three times"
        )
    if target == "cifar_lab.models.VGG" and not (1 <= len(model["stages"]) <= 5 and all(model["stages"])):
        raise UsageError(
            f"model.stages={model['stages']}: it takes one to five stages, each with at least one convolution"
        )
    if target == "cifar_lab.models.ResNet" and (not model["blocks"] or len(model["blocks"]) != len(model["widths"])):
        settings = f"model.blocks={model['blocks']} model.widths={model['widths']}"
        raise UsageError(f"{settings}: both take one number per stage; set lists of one length")


def _check_optimizer(config: Mapping[str, Any]) -> None:
    optimizer, precision = config["optimizer"], config["trainer"]["precision"]
    if optimizer.get("nesterov") and not optimizer.get("momentum"):
        raise UsageError("optimizer.nesterov=true needs a momentum; set optimizer.momentum or optimizer.nesterov=false")
    if optimizer.get("nesterov") and optimizer.get("dampening"):
        raise UsageError("optimizer.nesterov=true takes no dampening; set optimizer.dampening=0")
    if optimizer.get("fused") and optimizer.get("foreach"):
        raise UsageError("optimizer.fused=true and optimizer.foreach=true exclude each other; leave one of them out")
    if optimizer.get("fused") and precision in _SCALED_PRECISIONS:
        raise UsageError(f"optimizer.fused=true trainer.precision={precision}: scaled gradients would be clipped")
    for key, neutral in (("decay_norms", True), ("decay_by_rate", False)):
        if optimizer.get(key, neutral) != neutral and "weight_decay" not in optimizer:
            raise UsageError(f"optimizer.{key}={str(not neutral).lower()}: this optimizer's option has no weight_decay")


def _check_schedule(scheduler: Mapping[str, Any], epochs: float) -> None:
    """Check a schedule. Lengths are in epochs, except `total_steps`; a plateau's patience is in validations."""
    steps = scheduler.get("lightning", {})
    interval, frequency = steps.get("interval"), steps.get("frequency", 1)
    is_plateau = "patience" in scheduler
    if frequency != 1 and (is_plateau or _LENGTHS & scheduler.keys()):
        raise UsageError(
            f"scheduler.lightning.frequency={frequency}: the schedule's lengths are in epochs; leave it at 1"
        )
    if is_plateau and scheduler["factor"] == 1:
        raise UsageError("scheduler.factor=1 never lowers the learning rate at a plateau; set it below 1")
    if is_plateau and interval == "step":
        raise UsageError(
            "scheduler.lightning.interval=step: a plateau scheduler steps after each validation; leave it at epoch"
        )
    if interval == "epoch" and scheduler.get("total_steps") is not None:
        raise UsageError("scheduler.total_steps counts optimizer steps; set scheduler.lightning.interval=step")
    if (scheduler.get("warmup_epochs") or 0) >= epochs:
        raise UsageError(f"scheduler.warmup_epochs={scheduler['warmup_epochs']}: it takes less than epochs={epochs}")


def check_typed(config: Mapping[str, Any], typed: Collection[str]) -> None:
    """Raise `UsageError` if one of `typed`, the keys that the command line sets, has no effect."""
    for key in typed if config["model"].get("_target_") in _OF_LIBRARIES else ():
        if key == "bn" or key.partition(".")[0] == "activation":
            raise UsageError(f"{key}: a library's network has its own layers; leave {key}= out")
    for key in ("optimizer.momentum", "optimizer.sgd_momentum", "optimizer.betas"):
        if key in typed and config["scheduler"].get("cycle_momentum"):
            raise UsageError(
                f"{key}: this schedule sets the momentum; leave it out, or set scheduler.cycle_momentum=false"
            )


def notes(config: Mapping[str, Any]) -> list[str]:
    """Return notes about combinations that are allowed but may not be intended."""
    scheduler, averaging, epochs = config["scheduler"], config["averaging"], config["epochs"]
    lines, start = [], averaging.get("start")
    if "step_size" in scheduler and scheduler["step_size"] >= epochs:
        lines.append(f"scheduler.step_size={scheduler['step_size']}: no step within {epochs} epochs")
    length, factor = scheduler.get("T_0"), scheduler.get("T_mult")
    if _is_count(length) and _is_count(factor):
        end = math.ceil(epochs / length) * length if factor == 1 else length
        while end < epochs:
            length *= factor
            end += length
        if end > epochs:
            lines.append(f"warm restarts: training ends at epoch {epochs}, within a cycle that ends at epoch {end}")
    if start == 0 and averaging["_target_"].endswith(".SWA"):
        lines.append("averaging.start=0 also averages the barely trained weights of the first epochs")
    if config["l1"] > 1:
        lines.append(f"l1={config['l1']}: the penalty outweighs any loss")
    final, lr = averaging.get("lr"), config["optimizer"].get("lr")
    if final and lr and final >= _LARGE_RATIO * lr:
        lines.append(f"averaging.lr={final} is {final / lr:.3g} times optimizer.lr={lr}")
    watching = {
        "scheduler": scheduler.get("lightning", {}),
        **{f"callbacks.{k}": v for k, v in config["callbacks"].items()},
    }
    if config["protocol"]["name"] == LAST:
        lines += [f"{part} monitors the test set" for part, options in watching.items() if options.get("monitor")]
    return lines + device_notes(config)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 1
