"""What a command line trains, composed and checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig

from cifar_lab.config import launchers, naming, schema
from cifar_lab.config.command_line import CommandLine


@dataclass(frozen=True)
class PlannedJob:
    """A job that a command line asks for."""

    words: list[str]  # its command line
    composed: DictConfig | None = None  # with Hydra's own part, if the check made it; else it is composed in its turn


@dataclass(frozen=True)
class Plan:
    """What a command line trains, checked."""

    line: CommandLine
    jobs: list[PlannedJob]  # in the order in which they run
    named: list[str] = field(default_factory=list)  # the sweep's name as a word, where none was typed
    hydra: list[str] = field(default_factory=list)  # the words for Hydra that each job is composed with
    sweep_folder: Path | None = None  # where a sweep's runs go; None for a single run
    common: frozenset[str] | None = None  # the keys that all jobs of a sweep share; None for a single run
    launcher: launchers.Launcher | None = None  # hands the jobs to other processes; None if this process runs them
    beside: int = 1  # number of jobs that run at the same time on this machine
    notes: list[str] = field(default_factory=list)  # about settings that are allowed but perhaps not meant

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
        """A job's composition, with Hydra's own part, by the check or now; within `composing`."""
        return self.compose(job) if job.composed is None else job.composed

    def compose(self, job: PlannedJob) -> DictConfig:
        """Compose a job with all that the plan has settled, the launcher's settings too; within `composing`.

        Raises:
            hydra.errors.HydraException: It cannot be composed.
        """
        return compose("train", [*job.words, *self.named, *self.hydra], return_hydra_config=True)
