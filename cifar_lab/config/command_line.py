"""A parsed command line, and the plan of jobs after it has been checked."""

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

_MAX_INTERPOLATIONS = 20  # nested interpolations can repeat each other, so their expansion grows exponentially


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    flags: argparse.Namespace  # Hydra's
    words: tuple[str, ...]  # the overrides, `key=value`; for `resume=FOLDER` also those of the run
    typed: tuple[str, ...]  # those of `words` that were typed, without `resume=`
    resumed: Path | None  # the folder of the run that is resumed; None without one
    parser: argparse.ArgumentParser  # Hydra's help shows its flags

    @property
    def trains(self) -> bool:
        """Whether the command trains, instead of showing help, a configuration or completions."""
        flags = self.flags
        shows = (flags.help, flags.hydra_help, flags.cfg, flags.info, flags.shell_completion, flags.experimental_rerun)
        return not any(shows)


@dataclass(frozen=True)
class PlannedJob:
    """A job that a command line asks for."""

    words: list[str]  # its command line
    composed: DictConfig | None = None  # with Hydra's own part, if the check made it; else it is composed in its turn


@dataclass(frozen=True)
class Plan:
    """The checked jobs of a command line."""

    line: CommandLine
    jobs: list[PlannedJob]  # in the order in which they run
    named: list[str] = field(default_factory=list)  # the sweep's name as a word, where none was typed
    hydra: list[str] = field(default_factory=list)  # the words for Hydra that each job is composed with
    sweep_folder: Path | None = None  # where a sweep's runs go; None for a single run
    common: frozenset[str] | None = None  # the keys that all jobs of a sweep share; None for a single run
    launcher: launchers.Launcher | None = None  # hands the jobs to other processes; None if this process runs them
    parallel: int = 1  # number of jobs that run at the same time on this machine
    notes: list[str] = field(default_factory=list)  # about settings that are allowed but perhaps not meant
    former: tuple[Path, ...] = ()  # folders of the sweep under former default names, with finished runs perhaps

    @cached_property
    def composition(self) -> dict[str, Any]:
        """The first job's, in plain values."""
        assert self.jobs[0].composed is not None
        return naming.plain(self.jobs[0].composed)

    @property
    def options_edited(self) -> float:
        """When an option's file was last edited, ours or the user's, in seconds since 1970."""
        folders = [schema.conf_folder(), *map(Path, filter(None, [self.line.flags.config_dir]))]
        return max((file.stat().st_mtime for folder in folders for file in folder.rglob("*.yaml")), default=0.0)

    def put_in(self, folder: str) -> None:
        """Have a single run leave its files in a folder."""
        config = self.jobs[0].composed
        assert config is not None
        with open_dict(config):
            config.hydra.run.dir = folder

    def composed(self, job: PlannedJob) -> DictConfig:
        """A job's composition, with Hydra's own part, by the check or now; within `composing`."""
        return self.compose(job) if job.composed is None else job.composed

    def compose(self, job: PlannedJob) -> DictConfig:
        """Compose a job with all that the plan has settled, the launcher's settings too; within `composing`.

        Raises:
            hydra.errors.HydraException: It cannot be composed.
        """
        return compose("train", [*job.words, *self.named, *self.hydra], return_hydra_config=True)


def parsed(arguments: Sequence[str]) -> CommandLine:
    """Parse a command line, without the program's name.

    Raises:
        ValueError: A flag does not exist, `resume=` names no run, or a folder's name is empty.
    """
    arguments = [paths.as_typed(paths.renamed(argument)) for argument in arguments]
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    resumed = resume.named_run(arguments)
    typed = tuple(argument for argument in arguments if not argument.startswith(("resume=", "-")))
    words = arguments if resumed is None else list(map(paths.renamed, resume.full_command(arguments, resumed)))
    flags = parser.parse_intermixed_args(words)
    flags.config_dir = flags.config_dir or lab().config_dir
    return CommandLine(flags, tuple(flags.overrides), typed, resumed, parser)


def parsed_words(words: Sequence[str], loader: Loader) -> list[Override]:
    """Parse words of a command line; raise `UsageError` if that cannot be done."""
    if sum(word.count("${") for word in words) > _MAX_INTERPOLATIONS:
        raise UsageError(f"a command line takes {_MAX_INTERPOLATIONS} interpolations, ${{...}}, at most")
    try:
        with refusing():
            return OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    except HydraException as error:
        raise UsageError(" ".join(str(error).split())) from None


def search_path(config_dir: str | Path | None) -> list[str]:
    """The words by which Hydra finds options in a user's folder too; none without one.

    Raises:
        ValueError: It is not a folder.
    """
    if config_dir is None:
        return []
    folder = Path(config_dir).resolve()
    if not folder.is_dir():
        raise UsageError(f"--config-dir {folder} is not a folder")
    return [f"hydra.searchpath=[{paths.quoted(f'file://{folder}')}]"]


@contextmanager
def composing() -> Iterator[Loader]:
    """Let Hydra compose from `conf/`, then restore the Hydra that the caller had initialised.

    Raises:
        ValueError: Hydra or OmegaConf refused something inside; in one line.
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
    """Turn the errors of Hydra and OmegaConf into a `ValueError` of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(" ".join(f"{error} {error.__cause__ or ''}".split())) from None


@contextmanager
def refusing() -> Iterator[None]:
    """Raise `ValueError`, in one line, for exceptions of other kinds: Hydra raises nearly any at unforeseen input."""
    try:
        yield
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        raise UsageError(" ".join(str(error).split()) or type(error).__name__) from error


def _refuse(message: str) -> NoReturn:
    setting = re.match(r"unrecognized arguments: --([A-Za-z_][\w.]*)[= ]([^\s-]\S*)", message)
    raise UsageError(message if setting is None else f"{message}; did you mean {setting[1]}={setting[2]}?")
