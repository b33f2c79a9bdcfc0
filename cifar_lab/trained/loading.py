"""From a run's folder or a file of weights to a network."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from cifar_lab import hardware
from cifar_lab.config import build, resolved, saved
from cifar_lab.data import cifar10
from cifar_lab.runs import Run, is_run, read_checkpoint
from cifar_lab.trained.architecture import architecture, described, unwrapped
from cifar_lab.trained.network import Trained
from cifar_lab.trained.published_files import completed
from cifar_lab.trained.said import Said

if TYPE_CHECKING:
    from omegaconf import DictConfig

_FACTS = ("name", "seed", "protocol", "fingerprint", "test/acc", "test/acc_final", "val/acc", "best_epoch", "epochs")


def load(path: Path, said: Said | None = None) -> Trained:
    """Make a trained network.

    Args:
        path: A run's folder, of which the chosen epoch's weights are taken; or a file of weights, the report's or ours;
            of one that lies in a run's folder the run's configuration says the rest.
        said: What the command line says.

    Raises:
        ValueError: There is neither, weights are missing, damaged or another network's, or the run has a component
            whose package is not allowed. The message is one line that says what to do.
    """
    said = said or Said()
    if path.is_dir():
        if not is_run(path):
            raise ValueError(f"{path} is no run; name a run's folder, which holds a status.json, or a file of weights")
        run = Run(path)
        return _of_run(run, run.chosen_weights(), said)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; name a run's folder, or a file of weights")
    folder = path.resolve().parent.parent
    if is_run(folder):
        return _of_run(Run(os.path.relpath(folder)), path, said)
    return _of_file(path, said)


def _of_run(run: Run, weights: Path, said: Said) -> Trained:
    config = saved(run, said.allow)
    if given := said.of_network():
        raise ValueError(f"{run.folder} is a run, which says so itself; leave {', '.join(given)} out")
    state = _state(weights)
    model = _network(config.model)
    options, settings = run.composition()["options"], resolved(config)
    told = f"{options.get('model')} bn={str(settings['bn']).lower()}"
    _check_asked(weights, state, said, str(options.get("model")), settings["bn"])
    _load(model, state, weights, told)
    result = run.finished_result() or {}
    assumed = []
    if not result:
        assumed.append(f"{run.folder} has not finished: the weights are those of its best epoch so far")
    mean, std = settings["data"].get("mean", ()), settings["data"].get("std", ())
    classes = result.get("classes") or _classes(config, settings["model"].get("num_classes"))
    native, notes = _native(config, run, said)
    return Trained(
        label=str(run.folder),
        weights=weights,
        run=run,
        config=config,
        model=_placed(model, native),
        making=settings["model"],
        architecture=told,
        mean=mean,
        std=std,
        classes=classes,
        native=native,
        facts={name: result[name] for name in _FACTS if name in result},
        assumed=[*assumed, *notes],
        data_root=said.data_root,
    )


def _of_file(path: Path, said: Said) -> Trained:
    state = _state(path)
    network = architecture(state)
    if network is None:
        names = ", ".join(list(state)[:3]) or "nothing"
        raise ValueError(
            f"{path} holds weights of a network that is none of this project's ({names}, ...); "
            "name the folder of the run that trained it"
        )
    _check_asked(path, state, said, network.option, bool(network.arguments["batch_norm"]))
    lacking = completed(path, network, said)
    making = {"_target_": network.target, **network.arguments, "activation": lacking.activation}
    model = _network(OmegaConf.create(making))
    _load(model, state, path, str(network))
    native = hardware.choose("auto", said.precision or "32-true")
    count = int(network.arguments["num_classes"])
    return Trained(
        label=str(path),
        weights=path,
        run=None,
        config=None,
        model=_placed(model, native),
        making=making,
        architecture=str(network),
        mean=lacking.mean,
        std=lacking.std,
        classes=cifar10.CLASSES if count == len(cifar10.CLASSES) else [str(label) for label in range(count)],
        native=native,
        facts={},
        assumed=lacking.assumed,
        data_root=said.data_root,
    )


def _state(path: Path) -> dict[str, Tensor]:
    state = unwrapped(read_checkpoint(path))
    foreign = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if foreign or not state:
        raise ValueError(f"{path} is no file of weights: {f'{foreign[0]} is no tensor' if foreign else 'it is empty'}")
    return state


def _network(option: "DictConfig") -> nn.Module:
    with torch.random.fork_rng():  # what is drawn for initial weights is replaced at once
        return build(option)


def _placed(model: nn.Module, native: hardware.Native) -> nn.Module:
    return model.eval().requires_grad_(False).to(native.device, memory_format=native.memory_format)  # type: ignore[call-overload]


def _load(model: nn.Module, state: Mapping[str, Tensor], path: Path, told: str) -> None:
    """Raises `ValueError` where the weights are another network's."""
    own = model.state_dict()
    if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
        name = next(
            (name for name in (*own, *state) if name not in own or name not in state),
            next((name for name in own if name in state and own[name].shape != state[name].shape), ""),
        )
        raise ValueError(f"{path} is {described(state)}; its network is {told} ({name} is missing or of another shape)")
    model.load_state_dict(dict(state))


def _check_asked(path: Path, state: Mapping[str, Tensor], said: Said, option: str, bn: bool) -> None:
    """Raises `ValueError` where the command line asks for another network."""
    asked = [] if said.model in (None, option) else [str(said.model)]
    asked += [] if said.bn in (None, bn) else [f"bn={str(said.bn).lower()}"]
    if asked:
        raise ValueError(f"{path} is {described(state)}; asked for {' '.join(asked)}")


def _classes(config: "DictConfig", count: int | None) -> list[str]:
    named = list(getattr(build(config.data), "classes", ()))
    return [str(name) for name in named] or [str(label) for label in range(count or 0)]


def _native(config: "DictConfig", run: Run, said: Said) -> tuple[hardware.Native, list[str]]:
    """How to compute: as the run did, where this machine does that natively."""
    accelerator, recorded = config.trainer.accelerator, run.status().get("precision", config.trainer.precision)
    layout = run.status().get("memory_format", config.trainer.memory_format)
    if said.precision is not None:
        return hardware.choose(accelerator, said.precision, layout), []
    native = hardware.choose(accelerator, recorded, layout)
    own = hardware.native_precision(native.device)
    if str(recorded).startswith("bf16") and not own.startswith("bf16"):
        note = f"it was trained in {recorded}, which is emulated here and slow: computed in 32-true; --precision"
        return hardware.choose(accelerator, "32-true", layout), [note]
    return native, []
