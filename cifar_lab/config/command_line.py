"""A parsed command line, and the plan of its checked jobs."""

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from cifar_lab.config import launchers, naming, paths, resume, schema
from cifar_lab.config.lab import lab
from cifar_lab.config.precedence import Loader
from cifar_lab.machine.exit_codes import UsageError

_OPTIONS = "--config-dir FOLDER adds options of your own"
_UNSUPPORTED = {"config_name": _OPTIONS, "config_path": _OPTIONS, "experimental_rerun": "resume=RUN continues a run"}
_MAX_INTERPOLATIONS = 20  # nested interpolations can expand exponentially


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    flags: argparse.Namespace  # Hydra's
    words: tuple[str, ...]  # overrides, `key=value`; with `resume=FOLDER` also the run's
    typed: tuple[str, ...]  # the typed ones among `words`, without `resume=`
    resumed: Path | None  # folder of the run to resume, if any
    parser: argparse.ArgumentParser  # Hydra's help lists its flags

    @property
    def trains(self) -> bool:
        """Whether the command trains, instead of showing help, a configuration or completions."""
        flags = self.flags
        shows = (flags.help, flags.hydra_help, flags.cfg, flags.info, flags.shell_completion, flags.experimental_rerun)
        return not any(shows)


@dataclass(frozen=True)
class PlannedJob:
    """A job of a command line."""

    words: list[str]  # its overrides
    composed: DictConfig | None = None  # with the `hydra` node, if a check has composed it; else composed when it runs


@dataclass(frozen=True)
class Plan:
    """The checked jobs of a command line."""

    line: CommandLine
    jobs: list[PlannedJob]  # in running order
    named: list[str] = field(default_factory=list)  # the override that names the sweep, unless a name was typed
    hydra: list[str] = field(default_factory=list)  # Hydra's overrides for every job
    sweep_folder: Path | None = None  # folder of a sweep's runs; None for a single run
    common: frozenset[str] | None = None  # the keys that all jobs of a sweep share; None for a single run
    launcher: launchers.Launcher | None = None  # hands the jobs to other processes; None if this process runs them
    parallel: int = 1  # number of jobs that run in parallel on this machine
    notes: list[str] = field(default_factory=list)  # on settings that are allowed but may be unintended
    former: tuple[Path, ...] = ()  # the sweep's folders under former default names, which may hold finished runs

    @cached_property
    def composition(self) -> dict[str, Any]:
        """The first job's composition, in plain values."""
        assert self.jobs[0].composed is not None
        return naming.plain(self.jobs[0].composed)

    @property
    def options_edited(self) -> float:
        """Time of the last edit of an option file, ours or the user's, in seconds since 1970."""
        folders = [schema.conf_folder(), *map(Path, filter(None, [self.line.flags.config_dir]))]
        return max((file.stat().st_mtime for folder in folders for file in folder.rglob("*.yaml")), default=0.0)

    def put_in(self, folder: str) -> None:
        """Set the folder of a single run."""
        config = self.jobs[0].composed
        assert config is not None
        with open_dict(config):
            config.hydra.run.dir = folder

    def composed(self, job: PlannedJob) -> DictConfig:
        """Return a job's composition with the `hydra` node; composes it, within `composing`, if no check has."""
        return self.compose(job) if job.composed is None else job.composed

    def compose(self, job: PlannedJob) -> DictConfig:
        """Compose a job, within `composing`, with the plan's name and Hydra settings, including the launcher's.

        Raises:
            hydra.errors.HydraException: The job cannot be composed.
        """
        return compose("train", [*job.words, *self.named, *self.hydra], return_hydra_config=True)


def parsed(arguments: Sequence[str]) -> CommandLine:
    """Parse a command line, without the program's name.

    Raises:
        ValueError: Flags do not exist or exclude each other, `resume=` names no run, or a folder's name is empty.
    """
    arguments = [paths.as_typed(paths.renamed(argument)) for argument in arguments]
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    resumed = resume.named_run(arguments)
    typed = tuple(argument for argument in arguments if not argument.startswith(("resume=", "-")))
    words = arguments if resumed is None else list(map(paths.renamed, resume.full_command(arguments, resumed)))
    flags = parser.parse_intermixed_args(words)
    _check_flags(flags)
    flags.config_dir = flags.config_dir or lab().config_dir
    return CommandLine(flags, tuple(flags.overrides), typed, resumed, parser)


def _check_flags(flags: argparse.Namespace) -> None:
    """Raise `UsageError` for flags that Hydra does not combine, or that have no effect here."""
    names = ("run", "multirun", "cfg", "info", "shell_completion")
    chosen = [f"--{name.replace('_', '-')}" for name in names if getattr(flags, name)]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other")
    for name in ("resolve", "package"):
        if getattr(flags, name) and not flags.cfg:
            raise UsageError(f"--{name} needs --cfg")
    for name, instead in _UNSUPPORTED.items():
        if getattr(flags, name):
            raise UsageError(f"--{name.replace('_', '-')} is not supported; {instead}")


def parsed_words(words: Sequence[str], loader: Loader) -> list[Override]:
    """Parse overrides; raise `UsageError` if one is not valid."""
    if sum(word.count("${") for word in words) > _MAX_INTERPOLATIONS:
        raise UsageError(f"a command line takes at most {_MAX_INTERPOLATIONS} interpolations, ${{...}}")
    try:
        with refusing():
            return OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    except HydraException as error:
        raise UsageError(" ".join(str(error).split())) from None


def search_path(config_dir: str | Path | None) -> list[str]:
    """Return the override, if any, that adds a user's folder of options to Hydra's search path.

    Raises:
        ValueError: `config_dir` is not a folder.
    """
    if config_dir is None:
        return []
    folder = Path(config_dir).resolve()
    if not folder.is_dir():
        raise UsageError(f"--config-dir {folder} is not a folder")
    return [f"hydra.searchpath=[{paths.quoted(f'file://{folder}')}]"]


@contextmanager
def composing() -> Iterator[Loader]:
    """Initialise Hydra with `conf/` within the context, and restore the caller's Hydra afterwards.

    Raises:
        ValueError: Hydra or OmegaConf raised an error inside. The message is one line.
    """
    callers = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with in_one_line(), initialize_config_dir(str(schema.conf_folder()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            assert isinstance(loader, Loader)
            yield loader
    finally:
        GlobalHydra.instance().hydra = callers


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn errors of Hydra and OmegaConf into a `ValueError` with a one-line message."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(" ".join(f"{error} {error.__cause__ or ''}".split())) from None


@contextmanager
def refusing() -> Iterator[None]:
    """Turn other exceptions into a one-line `ValueError`: on unforeseen input, Hydra raises almost any exception."""
    try:
        yield
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        raise UsageError(" ".join(str(error).split()) or type(error).__name__) from error


def _refuse(message: str) -> NoReturn:
    setting = re.match(r"unrecognized arguments: --([A-Za-z_][\w.]*)[= ]([^\s-]\S*)", message)
    raise UsageError(message if setting is None else f"{message}; did you mean {setting[1]}={setting[2]}?")
