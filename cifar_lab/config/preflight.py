"""The command line, composed and checked before anything heavy is imported or any folder is made."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar_lab.config import checks, launchers, naming, resume, schema, side_by_side, slurm, studies, targets
from cifar_lab.config.axes import check_jobs, neighbours, values
from cifar_lab.config.composition import (
    check,
    check_closed,
    check_options,
    check_own_options,
    foreign_groups,
    reworded,
)
from cifar_lab.config.precedence import Loader
from cifar_lab.runs import Run

_MAX_INTERPOLATIONS = 20  # each may repeat others, so that what they stand for grows exponentially with their number
_OF_A_WHOLE_SWEEP = ("name", "jobs_per_device")


def search_path(config_dir: str | Path | None) -> list[str]:
    """The words by which Hydra finds options in a user's folder too; none without one.

    Raises:
        ValueError: It is no folder.
    """
    if config_dir is None:
        return []
    folder = Path(config_dir).resolve()
    if not folder.is_dir():
        raise ValueError(f"--config-dir {folder} is no folder")
    return [f"hydra.searchpath=['file://{folder}']"]


class Preflight:
    """What a command line asks for.

    Args:
        arguments: The command line without the program's name.

    Raises:
        ValueError: The command line has a flag that does not exist.

    Attributes:
        notes: Lines for the user about what is allowed but worth a word, once `check` has run.
        additions: What a sweep's command line leaves unsaid and no job can know, as a job does not see what varies
            over the others: the sweep's name, and which keys its jobs have in common.
        jobs: The command line of each job of a sweep, in the order in which they run; none for a single run.
        sweep_folder: Where a sweep's runs go; None for a single run.
        beside: How many jobs of a sweep run at a time on this machine.
        launcher: What hands the jobs of a sweep to processes; None for Hydra's own, which runs them in this one.
        resumed: The folder of the run that the command line says to go on with; None without one.
        typed: What stands beside that on the command line.
        composition: The first job's, in plain values, once `check` has run.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        parser = get_args_parser()
        parser.error = _raise  # type: ignore[method-assign]
        self.resumed = resume.named_run(arguments)
        self.typed = [argument for argument in arguments if not argument.startswith(("resume=", "-"))]
        self._given = list(arguments) if self.resumed is None else resume.full_command(arguments, self.resumed)
        self._arguments = parser.parse_intermixed_args(self._given)
        self.notes: list[str] = []
        self.additions: list[str] = []
        self.jobs: list[list[str]] = []
        self.sweep_folder: Path | None = None
        self.beside = 1
        self.launcher: launchers.Launcher | None = None
        self.composition: dict[str, Any] = {}

    @property
    def options_edited(self) -> float:
        """When an option's file was last edited, ours or the user's, in seconds since 1970."""
        folders = [schema.conf_folder(), *map(Path, filter(None, [self._arguments.config_dir]))]
        return max((file.stat().st_mtime for folder in folders for file in folder.rglob("*.yaml")), default=0.0)

    @property
    def ordered(self) -> list[str]:
        """The command line as Hydra takes it: flags in front of what they would else cut in two."""
        overrides = list(self._arguments.overrides)
        flags = []
        for argument in self._given:
            if argument in overrides:
                overrides.remove(argument)
            else:
                flags.append(argument)
        return [*flags, *self._arguments.overrides]

    @property
    def completes(self) -> bool:
        """Whether a shell asks for completion."""
        return bool(self._arguments.shell_completion)

    @property
    def trains(self) -> bool:
        """Whether the command trains, instead of showing help, a configuration or completions."""
        asked = self._arguments
        shows = (asked.help, asked.hydra_help, asked.cfg, asked.info, asked.shell_completion, asked.experimental_rerun)
        return not any(shows)

    def check(self) -> None:
        """Check the first job, and those that differ from it along one axis.

        Raises:
            ValueError: The command line cannot be run; in one line that says why.
        """
        search = search_path(self._arguments.config_dir)
        with initialize_config_dir(str(schema.conf_folder()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            assert isinstance(loader, Loader)
            overrides = self._parsed(loader)
            study = studies.chosen(overrides)
            if study is not None and self.resumed is None:
                check_options(study, loader, search)
                self._expand(studies.expanded(overrides, study, self._axes(study, loader, search)))
                overrides = self._parsed(loader)
            self._check_overrides(overrides)
            launchers.check_launcher(overrides)
            is_study_typed = any(line.startswith("study=") for line in self.typed)
            if self.resumed is not None and (self._arguments.multirun or is_study_typed):
                raise ValueError("resume= names one run; a sweep goes on by itself when its command is given again")
            name = naming.sweep_name(overrides)
            if self._arguments.multirun and name:
                swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
                common = [override.key_or_group for override in overrides if override.key_or_group not in swept]
                self.additions = [f"hydra.job.config.override_dirname.exclude_keys=[{','.join(common)}]"]
                self.additions += [] if "name" in common or study else [f"name={name}"]
            groups = set(loader.list_groups(""))
            for override in overrides:
                if override.key_or_group in groups:
                    check_options(override, loader, search)
            for lines in neighbours(overrides):
                self._check_job([*lines, *search], loader)
            if self._is_auto(overrides) and not self._arguments.multirun:
                self.additions.append("hydra.run.dir='outputs/${name}/${run_folder:true}'")
            if self._arguments.multirun:
                self._plan(overrides, search)

    def _plan(self, overrides: list[Override], search: list[str]) -> None:
        """List the jobs of a sweep, and settle its folder."""
        (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        composed = compose("train", [*jobs[0], *self.additions, *search], return_hydra_config=True)
        self.jobs = [naming.own_lines(job) for job in jobs]
        self.sweep_folder = Path(composed.hydra.sweep.dir)
        self.launcher = launchers.chosen(str(composed.hydra.launcher._target_))
        self.beside, how = side_by_side.plan(composed)
        self.additions += how
        # Written out, as a folder named by the time would be another one when Hydra makes it.
        quoted = str(self.sweep_folder).replace("'", r"\'")
        self.additions.append(f"hydra.sweep.dir='{quoted}'")

    def _axes(self, study: Override, loader: Loader, search: list[str]) -> list[Override]:
        try:
            return studies.axes(str(study.input_line), loader, search)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(reworded(error, loader)) from None

    def _expand(self, overrides: list[str]) -> None:
        """Take `overrides` in place of those typed, as a sweep."""
        given = self.ordered
        flags = given[: len(given) - len(self._arguments.overrides)]
        self._given = [*flags, *([] if self._arguments.multirun else ["--multirun"]), *overrides]
        self._arguments.overrides, self._arguments.multirun = overrides, True

    def _is_auto(self, overrides: Sequence[Override]) -> bool:
        lines = [override.input_line for override in overrides]
        named = any(str(line).startswith("hydra.run.dir=") for line in lines)
        return f"resume={resume.AUTO}" in lines and not named

    def _parsed(self, loader: Loader) -> list[Override]:
        if sum(line.count("${") for line in self._arguments.overrides) > _MAX_INTERPOLATIONS:
            raise ValueError(f"a command line takes {_MAX_INTERPOLATIONS} interpolations, ${{...}}, at most")
        try:
            return OverridesParser.create(config_loader=loader).parse_overrides(self._arguments.overrides)
        except HydraException as error:
            raise ValueError(" ".join(str(error).split())) from None

    def _check_overrides(self, overrides: Sequence[Override]) -> None:
        for override in overrides:
            if override.is_sweep_override() and not self._arguments.multirun:
                line = override.input_line
                raise ValueError(f"{line} is several values; add --multirun to run each, or quote a list: [...]")
            if override.package is not None:
                raise ValueError(f"{override.input_line}: packages (@) are not used here")
            is_whole_sweeps = override.key_or_group in _OF_A_WHOLE_SWEEP
            if override.is_sweep_override() and (is_whole_sweeps or not override.is_discrete_sweep()):
                never = " or ".join(_OF_A_WHOLE_SWEEP)
                raise ValueError(f"{override.input_line}: a sweep takes values of a list, and never of {never}")
            if override.key_or_group == "hydra.mode":
                raise ValueError(f"{override.input_line}: a sweep is asked for by --multirun")
            if not values(override):
                raise ValueError(f"{override.input_line} matches nothing")
        check_jobs(math.prod(len(values(override)) for override in overrides), "the sweep")

    def _check_job(self, lines: list[str], loader: Loader) -> None:
        try:
            config = compose("train", lines, return_hydra_config=True)
            plain = naming.plain(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(reworded(error, loader)) from None
        if loader.axes and studies.GROUP not in {line.partition("=")[0] for line in lines}:
            raise ValueError(f"study={loader.choices[studies.GROUP]} is for the command line to choose")
        check_closed(loader, lines)
        self.composition = self.composition or plain
        known = naming.plain(loader.before_values)
        check_own_options(loader)
        launchers.check(config)
        slurm.check(config, self._arguments.multirun)
        foreign = foreign_groups(plain)
        check(plain, known, foreign)
        targets.check_hydra_targets({"hydra": OmegaConf.to_container(config.hydra)}, plain["allow"])
        if self.resumed is not None:
            checks.check_values(resume.merged(Run(self.resumed), plain, self.typed), known, foreign)
        for group in dict.fromkeys(key.partition(".")[0] for key in loader.dropped):
            keys = [key for key in loader.dropped if key.startswith(f"{group}.")]
            whose = f"the {loader.dropped[keys[0]]}'s, whose {' and '.join(keys)} fall away"
            self._note(f"{group}={loader.choices[group]} replaces {whose}")
        for line in (*targets.moved(plain), *checks.notes(plain)):
            self._note(line)

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)


def _raise(message: str) -> NoReturn:
    raise ValueError(message)
