"""What a command line trains, composed and checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, read_write

from cifar_lab.config import launchers, naming, schema
from cifar_lab.config.command_line import CommandLine


@dataclass(frozen=True)
class PlannedJob:
    """A job that a command line asks for.

    Attributes:
        words: Its command line.
        composed: What the check has composed of it, with Hydra's own part; None if that is left until its turn.
    """

    words: list[str]
    composed: DictConfig | None = None


@dataclass(frozen=True)
class Plan:
    """What a command line trains, checked.

    Attributes:
        line: The command line.
        jobs: In the order in which they run.
        named: The sweep's name as a word, where none was typed.
        hydra: The words for Hydra that each job is composed with.
        sweep_folder: Where a sweep's runs go; None for a single run.
        common: The keys that all jobs of a sweep share; None for a single run.
        launcher: What hands the jobs to processes; None if this process runs them.
        beside: How many jobs run at a time on this machine.
        notes: Lines for the user about what is allowed but worth a word.
    """

    line: CommandLine
    jobs: list[PlannedJob]
    named: list[str] = field(default_factory=list)
    hydra: list[str] = field(default_factory=list)
    sweep_folder: Path | None = None
    common: frozenset[str] | None = None
    launcher: launchers.Launcher | None = None
    beside: int = 1
    notes: list[str] = field(default_factory=list)

    @property
    def composition(self) -> dict[str, Any]:
        """The first job's, in plain values."""
        assert self.jobs[0].composed is not None
        return naming.plain(self.jobs[0].composed)

    @property
    def options_edited(self) -> float:
        """When an option's file was last edited, ours or the user's, in seconds since 1970."""
        folders = [schema.conf_folder(), *map(Path, filter(None, [self.line.flags.config_dir]))]
        return max((file.stat().st_mtime for folder in folders for file in folder.rglob("*.yaml")), default=0.0)

    def composed(self, job: PlannedJob) -> DictConfig:
        """A job's composition, with Hydra's own part; within `composing`.

        Raises:
            hydra.errors.HydraException: It cannot be composed.
        """
        config = job.composed
        if config is None:
            config = compose("train", [*job.words, *self.named, *self.hydra], return_hydra_config=True)
        if self.sweep_folder is not None:  # written out, as a folder that is named by the time would be another one
            with read_write(config.hydra):
                config.hydra.sweep.dir = str(self.sweep_folder)
        return config

    def launching(self) -> DictConfig:
        """What Hydra's launcher is made from: the first job, with the launcher's settings; within `composing`."""
        return compose("train", [*self.jobs[0].words, *self.named, *self.hydra], return_hydra_config=True)
