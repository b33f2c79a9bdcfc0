"""From a run's folder or a file of weights to a network."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from cifar_lab.config import build, resolved, saved
from cifar_lab.config.targets import check_network_targets
from cifar_lab.data import cifar10
from cifar_lab.machine import hardware
from cifar_lab.runs import Run, is_run, read_checkpoint
from cifar_lab.terminal.printing import printable
from cifar_lab.trained import safetensors_files
from cifar_lab.trained.architecture import Architecture, architecture, described, unwrapped
from cifar_lab.trained.description import Description
from cifar_lab.trained.network import Trained
from cifar_lab.trained.places import check_place
from cifar_lab.trained.published_files import completed
from cifar_lab.trained.said import Said

if TYPE_CHECKING:
    from omegaconf import DictConfig

_FACTS = (
    *("name", "seed", "protocol", "fingerprint", "test/acc", "test/acc_final", "val/acc", "best_epoch", "epochs"),
    *("options", "test_size", "train_size", "train_available", "precision", "git_revision"),
)
_OF_CHOSEN = ("test/acc", "val/acc", "best_epoch")  # known of the chosen epoch's weights alone


def load(path: Path, said: Said | None = None) -> Trained:
    """Make a trained network.

    Args:
        path: A run's folder, of which the chosen epoch's weights are taken; or a file of weights, the report's or ours.
            Of a file that lies in a run's folder the run's configuration says the rest.
        said: What the command line says.

    Raises:
        ValueError: There is neither, weights are missing, damaged or another network's, or the run has a component
            whose package is not allowed. The message is one line that says what to do.
    """
    said = said or Said()
    check_place(path)
    if path.is_dir():
        run = Run(path)
        return _of_run(run, run.chosen_weights(), said)
    folder = path.resolve().parent.parent
    # What `export` has written there says itself what it is.
    if is_run(folder) and path.suffix != safetensors_files.SUFFIX:
        return _of_run(Run(os.path.relpath(folder)), path, said)
    return _of_file(path, said)


def _of_run(run: Run, weights: Path, said: Said) -> Trained:
    config = saved(run, said.allow)
    if given := said.of_network():
        raise ValueError(f"{run.folder} is a run, which says so itself; leave {', '.join(given)} out")
    state = _state(weights)
    options, settings = run.composition()["options"], resolved(config)
    check_network_targets({"model": settings["model"]}, said.allow)
    told = f"{options.get('model')} bn={str(settings['bn']).lower()}"
    _check_asked(weights, state, said, str(options.get("model")), settings["bn"])
    model = _network(settings["model"], state, weights, told, said)
    result = run.finished_result() or {}
    assumed = [] if result else [f"the run has not finished: its weights are those of {weights.name}"]
    is_chosen = weights.resolve() == run.chosen_weights().resolve()
    facts = _FACTS if is_chosen else tuple(name for name in _FACTS if name not in _OF_CHOSEN)
    mean, std = (settings["data"].get(name) or getattr(build(config.data), name, ()) for name in ("mean", "std"))
    named = result.get("classes") or _classes(config, settings["model"].get("num_classes"))
    classes = [printable(str(name)) for name in named]
    chosen, notes = _native(config, run, said)
    native, model = _placed(model, chosen)
    if native != chosen:
        notes.append(hardware.contiguous_because(model))
    return Trained(
        label=str(run.folder),
        weights=weights,
        run=run,
        config=config,
        model=model,
        making=settings["model"],
        architecture=told,
        mean=mean,
        std=std,
        classes=classes,
        native=native,
        facts={name: result[name] for name in facts if name in result},
        assumed=[*assumed, *notes],
        data_root=said.data_root,
    )


def _of_file(path: Path, said: Said) -> Trained:
    state, description = _read(path)
    if description is not None:
        return _of_description(path, state, description, said)
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
    model = _network(making, state, path, str(network), said)
    count = int(network.arguments["num_classes"])
    told = Description(
        model=making,
        architecture=str(network),
        mean=lacking.mean,
        std=lacking.std,
        classes=cifar10.CLASSES if count == len(cifar10.CLASSES) else [str(label) for label in range(count)],
        names=list(state),
        facts={},
    )
    return _alone(path, model, told, lacking.assumed, said)


def _of_description(path: Path, state: Mapping[str, Tensor], description: Description, said: Said) -> Trained:
    """Of a file that says all of its network itself, whoever wrote it."""
    if given := said.of_network():
        raise ValueError(f"{path} says so itself; leave {', '.join(given)} out")
    making = dict(description.model)
    check_network_targets({"model": making}, said.allow)
    network = architecture(state)
    if making["_target_"].startswith("cifar_lab."):
        _check_told(path, state, making, network)
    if network is None:
        _check_asked(path, state, said, making["_target_"].rpartition(".")[2], bool(making.get("batch_norm", said.bn)))
    else:
        _check_asked(path, state, said, network.option, bool(network.arguments["batch_norm"]))
    model = _network(making, state, path, description.architecture, said)
    return _alone(path, model, description, (), said)


def _alone(path: Path, model: nn.Module, told: Description, assumed: Sequence[str], said: Said) -> Trained:
    """The network of a file that no run's folder says anything of."""
    native, model = _placed(model, hardware.choose("auto", said.precision or "32-true"))
    return Trained(
        label=str(path),
        weights=path,
        run=None,
        config=None,
        model=model,
        making=told.model,
        architecture=told.architecture,
        mean=told.mean,
        std=told.std,
        classes=told.classes,
        native=native,
        facts=told.facts,
        assumed=assumed,
        data_root=said.data_root,
    )


def _check_told(
    path: Path, state: Mapping[str, Tensor], making: Mapping[str, Any], network: Architecture | None
) -> None:
    """Raises `ValueError` where the option of one of our networks is not what the weights are of.

    Before it is made: numbers in metadata could keep this process busy for ever.
    """
    read = {} if network is None else {name: value for name, value in network.arguments.items() if name != "dropout"}
    differing = [name for name, value in read.items() if making.get(name, value) != value]
    if network is None or making["_target_"] != network.target or differing:
        what = differing[0] if differing else making["_target_"]
        raise ValueError(f"{path} is {described(state)}, but not by its metadata ({what})")


def _state(path: Path) -> dict[str, Tensor]:
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    """A file's weights, and what it says of itself."""
    is_safe = path.suffix == safetensors_files.SUFFIX
    content, description = safetensors_files.read(path) if is_safe else (read_checkpoint(path), None)
    foreign = [name for name in content if not isinstance(name, str)]
    state = {} if foreign else unwrapped(content)
    foreign += [f"{name} is no tensor" for name, value in state.items() if not isinstance(value, Tensor)]
    if foreign or not state:
        raise ValueError(f"{path} is no file of weights: {foreign[0] if foreign else 'it is empty'}")
    for name, value in state.items():  # a tensor can say that it is larger than what is stored of it
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{path} is damaged: {name} is larger than the file")
    return state, description


def _network(making: Mapping[str, Any], state: Mapping[str, Tensor], path: Path, told: str, said: Said) -> nn.Module:
    """Make the network that an option describes, with the weights of a file.

    Raises:
        ValueError: The weights are another network's, or the option makes none.
    """
    try:
        if not said.allow:  # its sizes are looked at first, without memory, so that it is no larger than the weights
            with torch.device("meta"):
                _check_sizes(build(OmegaConf.create(dict(making))), state, path, told)
        with torch.random.fork_rng():  # what is drawn for initial weights is replaced at once
            model: nn.Module = build(OmegaConf.create(dict(making)))
    except ValueError:
        raise
    except Exception as error:  # what somebody made up can make a class raise anything
        words = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: what it says of its network makes none: {words}") from None
    _check_sizes(model, state, path, told)
    model.load_state_dict(dict(state))
    return model


def _placed(model: nn.Module, native: hardware.Native) -> tuple[hardware.Native, nn.Module]:
    native = native.suited_to(model)
    model = model.eval().requires_grad_(False)
    return native, model.to(native.device, memory_format=native.memory_format)  # type: ignore[call-overload]


def _check_sizes(model: nn.Module, state: Mapping[str, Tensor], path: Path, told: str) -> None:
    """Raises `ValueError` where the weights are another network's."""
    own = model.state_dict()
    if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
        name = next(
            (name for name in (*own, *state) if name not in own or name not in state),
            next((name for name in own if name in state and own[name].shape != state[name].shape), ""),
        )
        raise ValueError(f"{path} is {described(state)}; its network is {told} ({name} is missing or of another shape)")


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
    accelerator, recorded = str(config.trainer.accelerator), run.status().get("precision", config.trainer.precision)
    layout, notes = str(run.status().get("memory_format", config.trainer.memory_format)), []
    if accelerator not in ("auto", "cpu", "gpu") and hardware.training_device("auto") != accelerator:
        notes.append(f"it was trained on {accelerator}, which is not here")
        accelerator = "auto"
    native = hardware.choose(accelerator, said.precision or recorded, layout)
    own = hardware.native_precision(native.device)
    if said.precision is None and "16" in str(recorded) and str(recorded)[:4] != own[:4] and native.device != "cuda":
        notes.append(f"it was trained in {recorded}, which this machine does not do natively: computed in 32-true")
        native = hardware.choose(accelerator, "32-true", layout)
    return native, notes
