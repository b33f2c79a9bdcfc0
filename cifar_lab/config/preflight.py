"""Compose and check a command line, before anything heavy is imported and any folder is made."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cifar_lab.config import checks, combinations, composition, launchers, naming, resume, studies, targets
from cifar_lab.config.axes import around, axes_of, check_jobs, contradictions, ends, values
from cifar_lab.config.command_line import CommandLine, Plan, PlannedJob, composing, parsed, refusing, search_path
from cifar_lab.config.precedence import Loader
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run

_MAX_INTERPOLATIONS = 20  # each may repeat others, so that what they stand for grows exponentially with their number
_OF_A_WHOLE_SWEEP = ("name", "jobs_per_device")
_AUTO_FOLDER = "outputs/${name}/${run_folder:true}"


def checked(arguments: Sequence[str]) -> Plan:
    """Check a command line that trains, without the program's name, and print its notes.

    Raises:
        ValueError: It cannot be run, in one line.
    """
    line = parsed(arguments)
    if not line.trains:
        raise UsageError(f"run() and sweep() train, which {' '.join(arguments)} does not ask for")
    return planned(line)


def planned(line: CommandLine) -> Plan:
    """Check a parsed command line, and print its notes."""
    plan = plan_of(line)
    for note in plan.notes:
        print(f"note: {note}", flush=True)
    return plan


def plan_of(line: CommandLine) -> Plan:
    """Compose and check the first job, those that differ from it along one axis, and pairs that contradict each other.

    Raises:
        ValueError: The command line cannot be run; in one line that says why.
    """
    with composing() as loader:
        return _Check(line, loader).plan()


class _Check:
    def __init__(self, line: CommandLine, loader: Loader) -> None:
        self.line = line
        self.loader = loader
        self.search = search_path(line.flags.config_dir)
        self.is_sweep = bool(line.flags.multirun)
        self.notes: list[str] = []

    def plan(self) -> Plan:
        words = parsed_words(self.line.words, self.loader)
        overrides = [word for word in words if not composition.is_left_out(word)]
        study = studies.chosen(overrides)
        if study is not None and self.line.resumed is None:
            composition.check_options(study, self.loader, self.search)
            try:
                axes = studies.axes(str(study.input_line), self.loader, self.search)
            except (HydraException, OmegaConfBaseException) as error:
                raise UsageError(composition.reworded(error, self.loader)) from None
            options = studies.options_of_axes(axes, overrides, self.loader)
            overrides = parsed_words([*studies.expanded(overrides, study, axes), *options], self.loader)
            self.is_sweep = True
        self._check_overrides(overrides)
        launchers.check_launcher(overrides)
        is_study_typed = any(line.startswith("study=") for line in self.line.typed)
        if self.line.resumed is not None and (self.is_sweep or is_study_typed):
            raise UsageError("resume= names one run; run a sweep's command again to resume it")
        groups = set(self.loader.list_groups(""))
        for override in overrides:
            if override.key_or_group in groups:
                composition.check_options(override, self.loader, self.search)
        return self._sweep(overrides, study is not None) if self.is_sweep else self._single(overrides)

    def _single(self, overrides: list[Override]) -> Plan:
        words = [str(override.input_line) for override in overrides]
        config, _ = self._check_job([*words, *self.search])
        if f"resume={resume.AUTO}" in words and not any(word.startswith("hydra.run.dir=") for word in words):
            with open_dict(config):
                config.hydra.run.dir = _AUTO_FOLDER
        return Plan(self.line, [PlannedJob(words, config)], notes=self.notes)

    def _sweep(self, overrides: list[Override], is_study: bool) -> Plan:
        axes = axes_of(overrides)
        jobs = [list(job) for job in itertools.product(*axes)]
        swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
        common = [override.key_or_group for override in overrides if override.key_or_group not in swept]
        hydra, named, name = list(self.search), list[str](), naming.sweep_name(overrides)
        if name:
            hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(common)}]")
            named += [] if "name" in common or is_study else [f"name={name}"]
        looked_at = ends(axes, overrides)
        composed, plain = {}, {}
        for words in around(looked_at):
            composed[tuple(words)], plain[tuple(words)] = self._check_job([*words, *named, *hydra])
        for words in contradictions(looked_at, plain):
            composed[tuple(words)], _ = self._check_job([*words, *named, *hydra])
        first = composed[tuple(jobs[0])]
        folder = Path(first.hydra.sweep.dir)
        for config in composed.values():  # a folder named by the time would differ from job to job
            config.hydra.sweep.dir = str(folder)
        beside, how = launchers.side_by_side(first)
        hydra += [word for word in jobs[0] if not naming.own_lines([word])]
        hydra += [*how, "hydra.sweep.dir='{}'".format(str(folder).replace("'", r"\'"))]
        launcher = launchers.chosen(str(first.hydra.launcher._target_))
        return Plan(
            self.line,
            [PlannedJob(naming.own_lines(job), composed.get(tuple(job))) for job in jobs],
            named,
            hydra,
            folder,
            frozenset(common if name else ()),
            launchers.JOBLIB if beside > 1 else None if launcher is launchers.JOBLIB else launcher,
            beside,
            self.notes,
        )

    def _check_overrides(self, overrides: Sequence[Override]) -> None:
        for override in overrides:
            line = override.input_line
            if override.is_sweep_override() and not self.is_sweep:
                raise UsageError(f"{line} is several values; add --multirun to run each, or quote a list: [...]")
            if override.package is not None:
                raise UsageError(f"{line}: packages (@) are not used here")
            is_whole_sweeps = override.key_or_group in _OF_A_WHOLE_SWEEP
            if override.is_sweep_override() and (is_whole_sweeps or not override.is_discrete_sweep()):
                never = " or ".join(_OF_A_WHOLE_SWEEP)
                raise UsageError(f"{line}: a sweep takes values of a list, and never of {never}")
            if override.key_or_group == "hydra.mode":
                raise UsageError(f"{line}: a sweep is asked for by --multirun")
            if not values(override):
                raise UsageError(f"{line} matches nothing")
        check_jobs(math.prod(len(values(override)) for override in overrides), "the sweep")

    def _check_job(self, lines: list[str]) -> tuple[DictConfig, dict[str, Any]]:
        """Compose and check a job: what is composed, and the same in plain values."""
        loader = self.loader
        try:
            with refusing():
                config = compose("train", lines, return_hydra_config=True)
                plain = naming.plain(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(composition.reworded(error, loader)) from None
        if loader.axes and studies.GROUP not in {line.partition("=")[0] for line in lines}:
            raise UsageError(f"study={loader.choices[studies.GROUP]} is for the command line to choose")
        composition.check_closed(loader, lines)
        known = naming.plain(loader.before_values)
        composition.check_own_options(loader)
        launchers.check(config, self.is_sweep)
        foreign = composition.foreign_groups(plain)
        composition.check(plain, known, foreign)
        combinations.check_typed(plain, set(map(naming.key_of, lines)))
        targets.check_hydra_targets({"hydra": OmegaConf.to_container(config.hydra)}, plain["allow"])
        if self.line.resumed is not None:
            merged = resume.merged(Run(self.line.resumed), plain, self.line.typed)
            checks.check_values(merged, known, foreign)
        notes = []
        for group in dict.fromkeys(key.partition(".")[0] for key in loader.dropped):
            keys = [key for key in loader.dropped if key.startswith(f"{group}.")]
            whose = f"the {loader.dropped[keys[0]]}'s, whose {' and '.join(keys)} fall away"
            notes.append(f"{group}={loader.choices[group]} replaces {whose}")
        notes += [*targets.moved(plain), *combinations.notes(plain)]
        self.notes += [note for note in notes if note not in self.notes]
        return config, plain


def parsed_words(words: Sequence[str], loader: Loader) -> list[Override]:
    """Parse words of a command line; raise `UsageError` if that cannot be done."""
    if sum(word.count("${") for word in words) > _MAX_INTERPOLATIONS:
        raise UsageError(f"a command line takes {_MAX_INTERPOLATIONS} interpolations, ${{...}}, at most")
    try:
        with refusing():
            return OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    except HydraException as error:
        raise UsageError(" ".join(str(error).split())) from None
