"""Loads a network from a run's folder or a weight file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from cifar_lab.config import build, resolved, saved
from cifar_lab.config.targets import check_network_targets
from cifar_lab.machine import hardware
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run, is_run
from cifar_lab.runs.labels import protocol_name
from cifar_lab.terminal.printing import printable
from cifar_lab.trained.architecture import Architecture, architecture, described, in_names_of, in_our_names
from cifar_lab.trained.arguments import Overrides, check_there
from cifar_lab.trained.files import SAFETENSORS, Description, read, reason
from cifar_lab.trained.network import Trained
from cifar_lab.trained.published_files import completed

_FACTS = (
    *("name", "seed", "protocol", "fingerprint", "test/acc", "test/acc_final", "val/acc", "best_epoch", "epochs"),
    *("options", "test_size", "train_size", "train_available", "precision", "git_revision"),
)
_OF_CHOSEN = ("test/acc", "val/acc", "best_epoch")  # known only for the chosen epoch's weights


def load(path: Path, overrides: Overrides | None = None) -> Trained:
    """Load a trained network.

    Args:
        path: A run's folder, for the weights of its chosen epoch, or a weight file. A file in a run's folder has the
            run's configuration.
        overrides: Options from the command line.

    Raises:
        ValueError: There is no run or file; the weights are missing, damaged or from a different network; or the run
            has a component whose package is not allowed. The message says what to do.
    """
    overrides = overrides or Overrides()
    check_there([path])
    if path.is_dir():
        run = Run(path)
        return _of_run(run, run.chosen_weights(), overrides)
    folder = path.resolve().parent.parent
    if is_run(folder) and path.suffix != SAFETENSORS:  # exported files describe themselves
        return _of_run(Run(os.path.relpath(folder)), path, overrides)
    return _of_file(path, overrides)


def _of_run(run: Run, weights: Path, overrides: Overrides) -> Trained:
    config = saved(run, overrides.allow)
    if typed := overrides.of_network():
        raise UsageError(f"{run.folder} is a run, which records this itself; leave {', '.join(typed)} out")
    state, _, choice = read(weights)
    options, settings = run.composition()["options"], resolved(config)
    check_network_targets({"model": settings["model"]}, overrides.allow)
    words = f"{options.get('model')} bn={str(settings['bn']).lower()}"
    _check_overrides(weights, state, overrides, str(options.get("model")), settings["bn"])
    model = _network(settings["model"], state, weights, words, overrides)
    result = run.finished_result() or {}
    assumed = [] if result else [f"the run has not finished: its weights are those of {weights.name}"]
    assumed += [] if choice is None else [f"weights: {choice}"]
    is_chosen = weights.resolve() == run.chosen_weights().resolve()
    known = {**result, **{name: settings["data"][name] for name in ("mean", "std") if settings["data"].get(name)}}
    mean, std, classes = (
        list(known.get(name) or getattr(build(config.data), name, ()) or ()) for name in ("mean", "std", "classes")
    )
    classes = classes or list(range(settings["model"].get("num_classes") or 0))
    chosen, notes = _native(config, run, overrides)
    native, model = _placed(model, chosen)
    if native != chosen:
        notes.append(hardware.contiguous_because(model))
    facts = {name: result[name] for name in _FACTS if name in result and (is_chosen or name not in _OF_CHOSEN)}
    facts |= {"protocol": protocol_name(settings)} if result else {}
    return Trained(
        label=str(run.folder),
        weights=weights,
        run=run,
        config=config,
        model=model,
        making=settings["model"],
        architecture=words,
        mean=mean,
        std=std,
        classes=[printable(str(name)) for name in classes],
        native=native,
        facts=facts,
        assumed=[*assumed, *notes],
        data_root=overrides.data_root,
    )


def _of_file(path: Path, overrides: Overrides) -> Trained:
    """Load the network of a file that is not in a run's folder."""
    content, description, choice = read(path)
    state = in_our_names(content) if description is None else content
    network, assumed = architecture(state), list[str]()
    if description is not None:
        _check_description(path, state, description, network, overrides)
    elif network is None:
        names = ", ".join(list(state)[:3]) or "nothing"
        raise UsageError(
            f"{path} holds weights of a network that is not from this project ({names}, ...); "
            "name the folder of the run that trained it"
        )
    if network is not None:
        _check_overrides(path, state, overrides, network.option, bool(network.arguments["batch_norm"]))
        if description is None:
            description, assumed = completed(path, list(state), network, overrides)
    assumed += [] if choice is None else [f"weights: {choice}"]
    assert description is not None
    model = _network(description.model, state, path, description.architecture, overrides)
    native, model = _placed(model, hardware.choose("auto", overrides.precision or "32-true"))
    return Trained(
        label=str(path),
        weights=path,
        run=None,
        config=None,
        model=model,
        making=description.model,
        architecture=description.architecture,
        mean=description.mean,
        std=description.std,
        classes=description.classes,
        native=native,
        facts=description.facts,
        assumed=assumed,
        data_root=overrides.data_root,
    )


def _check_description(
    path: Path,
    state: Mapping[str, Tensor],
    description: Description,
    network: Architecture | None,
    overrides: Overrides,
) -> None:
    """Raise `ValueError` if a file describes a network that is not allowed, or that differs from its weights.

    Checked before the network is built, since forged sizes could keep this process busy for ever.
    """
    if typed := overrides.of_network():
        raise UsageError(f"{path} records this itself; leave {', '.join(typed)} out")
    making = description.model
    check_network_targets({"model": making}, overrides.allow)
    target = making["_target_"]
    if target.startswith("cifar_lab."):
        arguments = {} if network is None else network.arguments
        differing = [
            name for name in arguments if name != "dropout" and making.get(name, arguments[name]) != arguments[name]
        ]
        if network is None or target != network.target or differing:
            what = differing[0] if differing else target
            raise UsageError(f"{path} is {described(state)}, but its metadata differs ({what})")
    if network is None:
        _check_overrides(
            path, state, overrides, target.rpartition(".")[2], bool(making.get("batch_norm", overrides.bn))
        )


def _network(
    making: Mapping[str, Any], state: Mapping[str, Tensor], path: Path, words: str, overrides: Overrides
) -> nn.Module:
    """Build the network that an option describes, with the weights of a file, which must match."""
    try:
        if not overrides.allow:  # without memory first: it may be far larger than the weights
            with torch.device("meta"):
                empty = build(OmegaConf.create(dict(making)))
            _check_sizes(empty, in_names_of(state, empty.state_dict()), path, words)
        with torch.random.fork_rng():  # initial weights are drawn and then replaced
            model: nn.Module = build(OmegaConf.create(dict(making)))
    except ValueError:
        raise
    except Exception as error:  # forged arguments can make a class raise anything
        raise UsageError(f"{path}: the network it describes cannot be built: {reason(error)}") from None
    state = in_names_of(state, model.state_dict())
    _check_sizes(model, state, path, words)
    model.load_state_dict(dict(state))
    return model


def _placed(model: nn.Module, native: hardware.Native) -> tuple[hardware.Native, nn.Module]:
    native = native.suited_to(model)
    model = model.eval().requires_grad_(False)
    return native, model.to(native.device, memory_format=native.memory_format)  # type: ignore[call-overload]


def _check_sizes(model: nn.Module, state: Mapping[str, Tensor], path: Path, words: str) -> None:
    """Raise `ValueError` if the weights belong to a different network."""
    own = model.state_dict()
    differing = [name for name in (*own, *state) if name not in own or name not in state]
    differing = differing or [name for name in own if own[name].shape != state[name].shape]
    if differing:
        raise UsageError(
            f"{path} is {described(state)}; its network is {words} ({differing[0]} is missing or has a different shape)"
        )


def _check_overrides(path: Path, state: Mapping[str, Tensor], overrides: Overrides, option: str, bn: bool) -> None:
    """Raise `ValueError` if the command line requests a different network."""
    wanted = [] if overrides.model in (None, option) else [str(overrides.model)]
    wanted += [] if overrides.bn in (None, bn) else [f"bn={str(overrides.bn).lower()}"]
    if wanted:
        raise UsageError(f"{path} is {described(state)}; the command line requests {' '.join(wanted)}")


def _native(config: DictConfig, run: Run, overrides: Overrides) -> tuple[hardware.Native, list[str]]:
    """Choose the numerics: the run's if this machine supports them natively; also return notes on differences."""
    accelerator, recorded = str(config.trainer.accelerator), run.status().get("precision", config.trainer.precision)
    layout, notes = str(run.status().get("memory_format", config.trainer.memory_format)), []
    if accelerator not in ("auto", "cpu", "gpu") and hardware.training_device("auto") != accelerator:
        notes.append(f"it was trained on {accelerator}, which this machine does not have")
        accelerator = "auto"
    native = hardware.choose(accelerator, overrides.precision or recorded, layout)
    own = hardware.native_precision(native.device)
    if (
        overrides.precision is None
        and "16" in str(recorded)
        and str(recorded)[:4] != own[:4]
        and native.device != "cuda"
    ):
        notes.append(f"it was trained in {recorded}, which this machine does not support natively: computed in 32-true")
        native = hardware.choose(accelerator, "32-true", layout)
    return native, notes
