"""Search spaces from `conf/search/*.yaml` and the command line.

Axes use Hydra's sweep syntax: `interval(1e-4,1e-2)`, `tag(log,interval(1e-4,1e-2))`, `range(16,65,16)`, or values
joined by commas. The command line takes precedence over the file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from cifar_lab.config import studies
from cifar_lab.config.axes import around, values
from cifar_lab.config.command_line import composing, parsed, parsed_words, refusing, search_path
from cifar_lab.config.composition import check_options
from cifar_lab.config.lab import lab
from cifar_lab.config.naming import key_of, plain
from cifar_lab.config.paths import as_typed, quoted
from cifar_lab.config.precedence import Loader
from cifar_lab.config.preflight import plan_of
from cifar_lab.config.sweep_names import SweepName
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.fingerprints import settings
from cifar_lab.runs.labels import holds_out

GROUP = "search"
OUTPUTS = Path("outputs")
_DIGITS = 4  # significant digits of sampled numbers, for readability
_NOT_SEARCHED = ("seed", "name")
_NOT_TYPED = {
    "study": "a study has its own axes",
    "debug": "it keeps no run, but a search needs the runs of its trials",
    "resume": "the same command resumes a search automatically",
    "hydra": "a search keeps its runs in outputs/<name>/; set name= or --output instead",
}


@dataclass(frozen=True)
class Axis:
    """A key that a search varies."""

    key: str  # as on the command line: `optimizer.lr`, or a config group such as `loss`
    choices: tuple[str, ...] = ()  # values as typed; empty for numbers from `low` to `high`
    low: float = 0.0
    high: float = 1.0
    step: int | None = None  # step of integers; None for real numbers
    log: bool = False  # whether the random trials sample uniformly in the logarithm

    @property
    def corners(self) -> list[str]:
        """Overrides to validate the axis with: both ends, or every choice."""
        return [self.word(value) for value in (self.choices or (self.low, self.high))]

    def word(self, value: str | float) -> str:
        """Return the override that sets a value, with numbers to four significant digits."""
        if self.step is not None:
            return f"{self.key}={value:.0f}"
        if isinstance(value, str):
            return f"{self.key}={value}"
        return f"{self.key}={min(max(float(f'{value:.{_DIGITS}g}'), self.low), self.high)!r}"

    def __str__(self) -> str:
        values = ",".join(self.choices) or f"{'log ' if self.log else ''}{self.low:g} to {self.high:g}"
        return f"{self.key}: {values}" + (f" by {self.step}" if self.step not in (None, 1) else "")


@dataclass(frozen=True)
class Search:
    """A checked search."""

    fixed: tuple[str, ...]  # overrides that all trials share
    axes: tuple[Axis, ...]  # keys that the trials vary
    name: str  # title of the search
    folder: Path  # folder of the trials' runs
    named: str  # override that sets the name
    settings: Mapping[str, Any]  # settings of the first corner that can change numbers, by name
    epochs: float  # epochs of a trial, at that corner
    flags: tuple[str, ...] = ()  # Hydra's flags for each trial
    former: "Search | None" = None  # the same search under its former default name, if that differs

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command line of the trial with `words` for the axes: an ordinary run, found by its settings."""
        common = ",".join(key_of(line) for line in self.fixed)
        own = [self.named, "resume=auto", f"hydra.job.config.override_dirname.exclude_keys=[{common}]"]
        own.append(f"hydra.run.dir={quoted(self.folder / '${run_folder:true}')}")
        return [*self.flags, *self.fixed, *words, *own]


def checked_search(words: Sequence[str], config_dir: Path | None = None, output: Path | None = None) -> Search:
    """Parse a search, check it by composing both ends of each axis, and print its notes.

    Args:
        words: Overrides such as `search=adam epochs=10`, without flags.
        config_dir: Folder with the user's own options; None uses that of the current lab, if any.
        output: Folder for the runs; None uses `outputs/<name>`.

    Raises:
        ValueError: The search is invalid; the message is one line.
    """
    config_dir = config_dir or lab().config_dir
    flags = () if config_dir is None else ("--config-dir", str(config_dir))
    path = search_path(config_dir)
    with composing() as loader:
        overrides = parsed_words([as_typed(word) for word in words], loader)
        _refuse(overrides)
        file = studies.chosen(overrides, GROUP)
        varied = [] if file is None else _of_file(file, loader, path)
    typed = {override.key_or_group: override for override in overrides}
    swept = [override for override in overrides if override.is_sweep_override()]
    own = [typed.get(override.key_or_group, override) for override in varied]
    own += [override for override in swept if override not in own]
    axes = tuple(_axis(override) for override in own if override.is_sweep_override())
    if not axes:
        raise UsageError("nothing to search: name a file, search=adam, or a range, optimizer.lr='interval(1e-4,1e-2)'")
    fixed = tuple(str(override.input_line) for override in overrides if override not in swept)
    kind = "-".join(axis.key for axis in axes) if file is None else str(file.value())
    fixed = tuple(line for line in fixed if not line.startswith("name="))
    named = str(typed["name"].input_line) if "name" in typed else f"name='{_name(f'search-{kind}', fixed, axes, path)}'"
    composition = _checked([*flags, *fixed, named], axes)
    name = str(composition["name"])
    folder = OUTPUTS / name if output is None else output
    search = Search(fixed, axes, name, folder, named, settings(composition), composition["epochs"], flags)
    former = f"search-{kind}"
    if output is not None or "name" in typed or name == former:
        return search
    return replace(search, former=replace(search, name=former, folder=OUTPUTS / former, named=f"name={former}"))


def _name(default: str, fixed: Sequence[str], axes: Sequence[Axis], path: list[str]) -> str:
    """Return the default name of a search: its file or axes, and the fixed settings that change numbers."""
    name = SweepName((), map(key_of, fixed), is_study=True)
    with composing() as loader, refusing():
        config = compose("train", [*fixed, *(axis.corners[0] for axis in axes), *path], return_hydra_config=True)
        name.look(config, plain(config), loader)
    return name.of(default)


def _refuse(overrides: Sequence[Override]) -> None:
    for override in overrides:
        why = _NOT_TYPED.get(override.key_or_group.partition(".")[0].partition("/")[0])
        if why:
            raise UsageError(f"{override.input_line}: {why}")
        if override.key_or_group == "name" and "${" in str(override.input_line):
            raise UsageError(
                f"{override.input_line}: all trials of a search share one folder; choose a name without ${{...}}"
            )
        if override.is_sweep_override() and override.key_or_group in _NOT_SEARCHED:
            raise UsageError(f"{override.input_line}: all trials of a search share one value; name only one")


def _of_file(file: Override, loader: Loader, path: list[str]) -> list[Override]:
    """Return the axes of a search file, in its order, as overrides."""
    check_options(file, loader, path)
    with refusing():
        compose("train", [str(file.input_line), *path], return_hydra_config=True)
    return studies.as_overrides(str(file.input_line), loader.space, loader)


def _axis(override: Override) -> Axis:
    key, line, sweep = override.key_or_group, override.input_line, override.value()
    log = "log" in getattr(sweep, "tags", ())
    if isinstance(sweep, IntervalSweep):
        low, high = float(sweep.start or 0), float(sweep.end or 0)
        axis = Axis(key, low=low, high=high, log=log)
    elif isinstance(sweep, RangeSweep):
        numbers = (sweep.start, sweep.stop, sweep.step)
        if not all(isinstance(number, int) for number in numbers) or not sweep.step or (log and sweep.step != 1):
            raise UsageError(f"{line}: range() takes whole numbers, and with log a step of 1; use interval() otherwise")
        grid = range(*map(int, numbers))  # type: ignore[arg-type]
        low, high = (min(grid), max(grid)) if grid else (0, 0)
        axis = Axis(key, low=low, high=high, step=abs(grid.step), log=log)
    else:
        choices = tuple(dict.fromkeys(word.partition("=")[2] for word in values(override)))
        if len(choices) < 2:
            raise UsageError(f"{line} is one value; type it without choice() to fix {key}")
        return Axis(key, choices)
    if not (math.isfinite(axis.low) and math.isfinite(axis.high) and axis.low < axis.high):
        raise UsageError(f"{line}: an axis needs two different finite numbers, the lower one first")
    if log and axis.low <= 0:
        raise UsageError(f"{line}: with log, the lower end must be above 0")
    return axis


def _checked(words: Sequence[str], axes: Sequence[Axis]) -> Mapping[str, Any]:
    """Check the first corner and those that differ from it along one axis; print notes and return its composition."""
    plans = []
    for corner in around([axis.corners for axis in axes]):
        plans.append(plan_of(parsed([*words, *corner])))
        if not holds_out(plans[-1].composition):
            name = plans[-1].composition["protocol"]["name"]
            raise UsageError(f"protocol={name} validates on the test set, which a search must not use; leave it out")
    for note in dict.fromkeys(note for plan in plans for note in plan.notes):
        print(f"note: {note}", flush=True)
    return plans[0].composition
