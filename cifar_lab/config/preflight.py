"""Compose and check a command line before any heavy import, and before any folder is made."""

import itertools
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifar_lab.config import (
    checks,
    combinations,
    composition,
    launchers,
    naming,
    paths,
    resume,
    studies,
    targets,
    weights,
)
from cifar_lab.config.axes import around, axes_of, check_jobs, ends, suspects, values
from cifar_lab.config.command_line import (
    CommandLine,
    Plan,
    PlannedJob,
    composing,
    parsed,
    parsed_words,
    refusing,
    search_path,
)
from cifar_lab.config.precedence import Loader
from cifar_lab.config.sweep_names import SweepName
from cifar_lab.data import lookup
from cifar_lab.data.files import DataError
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Run

# Hydra's settings that have no effect or a harmful one here, by prefix, each with the alternative.
_ALWAYS_REFUSED = {
    "hydra.mode": "use --multirun for a sweep",
    "hydra/sweeper": "a sweep runs all combinations of its values",
    "hydra.sweeper.params": "a sweep's values are typed as loss=ce,mse",
    "hydra.output_subdir": "a run writes its own .hydra",
}
_REFUSED = {
    True: {"hydra.run.": "it is for single runs; set hydra.sweep.dir="},
    False: {
        "hydra.sweep.": "it is for sweeps; set hydra.run.dir=",
        "hydra.sweeper.": "it is for sweeps; leave it out",
        "hydra.launcher": "it is for sweeps; add --multirun, also for a single run",
        "hydra/launcher": "it is for sweeps; add --multirun, also for a single run",
    },
}
_Composed = tuple[DictConfig, dict[str, Any], dict[str, Any]]
_OF_A_WHOLE_SWEEP = ("name", "jobs_per_device")
_AUTO_FOLDER = "outputs/${name}/${run_folder:true}"


def checked(arguments: Sequence[str]) -> Plan:
    """Check the command line of a training, without the program's name, and print its notes.

    Raises:
        ValueError: It cannot be run. The message is one line.
    """
    line = parsed(arguments)
    if not line.trains:
        raise UsageError(f"run() and sweep() take a command line that trains, not {' '.join(arguments)}")
    return planned(line)


def planned(line: CommandLine) -> Plan:
    """Check a parsed command line, and print its notes."""
    plan = plan_of(line)
    for note in plan.notes:
        print(f"note: {note}", flush=True)
    return plan


def plan_of(line: CommandLine) -> Plan:
    """Check all jobs, composing the first, those that differ from it along one axis, and those that may be invalid.

    Raises:
        ValueError: The command line cannot be run. The message gives the reason in one line.
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
        is_study_typed = any(line.startswith("study=") for line in self.line.typed)
        if self.line.resumed is not None and (self.is_sweep or is_study_typed):
            raise UsageError("resume= names one run; run a sweep's command again to resume it")
        words = parsed_words(self.line.words, self.loader)
        overrides = [word for word in words if not composition.is_left_out(word)]
        _check_keys(overrides)
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
        groups = set(self.loader.list_groups(""))
        for override in overrides:
            if override.key_or_group in groups:
                composition.check_options(override, self.loader, self.search)
        return self._sweep(overrides, study is not None) if self.is_sweep else self._single(overrides)

    def _single(self, overrides: list[Override]) -> Plan:
        words = [str(override.input_line) for override in overrides]
        config, *_ = self._check_job([*words, *self.search])
        plan = Plan(self.line, [PlannedJob(words, config)], notes=self.notes)
        if f"resume={resume.AUTO}" in words and not any(word.startswith("hydra.run.dir=") for word in words):
            plan.put_in(_AUTO_FOLDER)
        return plan

    def _sweep(self, overrides: list[Override], is_study: bool) -> Plan:
        for override in overrides:
            if override.key_or_group == "debug":
                raise UsageError(f"{override.input_line} runs one composition; leave out --multirun or study=")
        axes = axes_of(overrides)
        jobs = [list(job) for job in itertools.product(*axes)]
        swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
        common = [override.key_or_group for override in overrides if override.key_or_group not in swept]
        hydra, keys = list(self.search), [override.get_key_element().lstrip("+") for override in overrides]
        varied = [key for key, override in zip(keys, overrides, strict=True) if override.is_sweep_override()]
        typed = {naming.key_of(word) for word in self.line.words}  # excludes the options that a study adds
        name = SweepName(varied, [key for key in common if key in typed], is_study)
        if varied:
            hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(common)}]")
        looked_at = ends(axes, overrides)
        composed, sources = {}, {}
        for words in around(looked_at):
            config, plain, known = self._check_job_of(words, varied, hydra)
            composed[tuple(words)] = config
            sources[tuple(words)] = {"config": naming.with_references(config, plain), "known": known}
            name.look(config, plain, self.loader)

        def check(job: dict[str, Any]) -> None:
            composition.check(naming.without_references(job["config"]), job["known"], keys)

        for words in suspects(looked_at, sources, check):
            composed[tuple(words)], *_ = self._check_job_of(words, varied, hydra)
        named, former = ([], ()) if "name" in common else name.give(composed.values())
        _check_one_folder(composed.values(), overrides)
        first = composed[tuple(jobs[0])]
        folder = Path(first.hydra.sweep.dir)
        for config in composed.values():  # a folder named by the time would differ from job to job
            config.hydra.sweep.dir = str(folder)
        parallel, how = launchers.side_by_side(first)
        hydra += [word for word in jobs[0] if not naming.own_lines([word])]
        hydra += [*how, f"hydra.sweep.dir={paths.quoted(folder)}"]
        launcher = launchers.chosen(str(first.hydra.launcher._target_))
        return Plan(
            self.line,
            [PlannedJob(naming.own_lines(job), composed.get(tuple(job))) for job in jobs],
            named,
            hydra,
            folder,
            frozenset(common if varied else ()),
            launchers.JOBLIB if parallel > 1 else None if launcher is launchers.JOBLIB else launcher,
            parallel,
            self.notes,
            former,
        )

    def _check_overrides(self, overrides: Sequence[Override]) -> None:
        for override in overrides:
            line = override.input_line
            if override.is_sweep_override() and not self.is_sweep:
                raise UsageError(f"{line} has several values; add --multirun to run each, or write a list as [...]")
            if override.package is not None:
                raise UsageError(f"{line}: packages (@) are not supported")
            is_whole_sweeps = override.key_or_group in _OF_A_WHOLE_SWEEP
            if override.is_sweep_override() and (is_whole_sweeps or not override.is_discrete_sweep()):
                never = " or ".join(_OF_A_WHOLE_SWEEP)
                raise UsageError(f"{line}: a sweep takes lists of values, and cannot vary {never}")
            for beginning, instead in {**_ALWAYS_REFUSED, **_REFUSED[self.is_sweep]}.items():
                if override.key_or_group.startswith(beginning) and override.value() is not None:
                    raise UsageError(f"{line}: {instead}")
            if not values(override):
                raise UsageError(f"{line} matches no option")
        check_jobs(math.prod(len(values(override)) for override in overrides), "the sweep")

    def _check_job_of(self, words: list[str], varied: list[str], hydra: list[str]) -> _Composed:
        """Check a job of a sweep; an error names the job's varied overrides."""
        try:
            return self._check_job([*words, *hydra])
        except DataError:
            raise
        except UsageError as error:
            job = " ".join(word for word in words if naming.key_of(word) in varied)
            raise UsageError(f"{error} (in the job {job})" if job else str(error)) from None

    def _check_job(self, lines: list[str]) -> _Composed:
        """Compose and check a job; return the composition, its plain values, and those without typed values."""
        loader = self.loader
        try:
            with refusing():
                config = compose("train", lines, return_hydra_config=True)
                plain = naming.plain(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(composition.reworded(error, loader)) from None
        if loader.axes and studies.GROUP not in {line.partition("=")[0] for line in lines}:
            raise UsageError(f"study={loader.choices[studies.GROUP]} can be chosen on the command line only")
        composition.check_closed(loader, lines)
        known = naming.plain(loader.before_values)
        composition.check_own_options(loader)
        launchers.check(config)
        composition.check(plain, known, set(map(naming.key_of, lines)))
        lookup.check(plain["data"])
        if plain["weights"] is not None and self.line.resumed is None:  # a resumed run has loaded its own
            weights.file_of(plain["weights"])
        targets.check_hydra_targets({"hydra": OmegaConf.to_container(config.hydra)}, plain["allow"])
        if self.line.resumed is not None:
            merged = resume.merged(Run(self.line.resumed), plain, self.line.typed)
            checks.check_values(merged, known, composition.foreign_groups(plain))
        notes = []
        for group in dict.fromkeys(key.partition(".")[0] for key in loader.dropped):
            keys = [key for key in loader.dropped if key.startswith(f"{group}.")]
            origin = loader.dropped[keys[0]]
            notes.append(
                f"{group}={loader.choices[group]} replaces the {origin}'s option and drops {' and '.join(keys)}"
            )
        notes += [*targets.moved(plain), *combinations.notes(plain)]
        self.notes += [note for note in notes if note not in self.notes]
        return config, plain, known


def _check_keys(overrides: Sequence[Override]) -> None:
    """Raise `UsageError` if a swept key is typed twice; of two single values, the last one counts."""
    for key, same in itertools.groupby(sorted(overrides, key=_key), _key):
        lines = list(same)
        if len(lines) > 1 and any(override.is_sweep_override() for override in lines):
            raise UsageError(f"{' '.join(str(each.input_line) for each in lines)}: give the values of {key} once")


def _key(override: Override) -> str:
    return override.key_or_group


def _check_one_folder(configs: Collection[DictConfig], overrides: Sequence[Override]) -> None:
    """Raise `UsageError` if the typed folder of a sweep differs from job to job, except by time."""
    for override in overrides:
        key, line = override.key_or_group, str(override.input_line)
        if key in ("name", "hydra.sweep.dir") and "${now:" not in line:
            named = sorted({str(OmegaConf.select(config, key)) for config in configs})
            if len(named) > 1:
                raise UsageError(f"{line}: all jobs of a sweep share one folder, but this gives {', '.join(named)}")
