"""Chapters of the page: findings with their hypotheses, BatchNorm, and modern experiments."""

import shlex
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cifar_lab.landscape.batch_norm import figures
from cifar_lab.landscape.batch_norm.runs import INITS, NAMES
from cifar_lab.landscape.batch_norm.training import rate_range, speed
from cifar_lab.report.claims.bases import Base, pflop
from cifar_lab.report.claims.landscape import Landscape
from cifar_lab.report.page.figures import Picture
from cifar_lab.report.page.parts import judged, state, studies
from cifar_lab.report.published import Hypothesis
from cifar_lab.report.reproduction import Entry, Reproduction
from cifar_lab.runs import Record
from cifar_lab.table import text
from cifar_lab.table.comparison import values_of


def findings(reproduction: Reproduction) -> Iterator[dict[str, Any]]:
    """Yield every row whose printed settings do not reproduce its number, and every row with a tested hypothesis.

    Yields:
        `title`, the row; `words`, on published and measured numbers; `hypotheses`, a frame with a row for each
        hypothesis of `conf/published.yaml`, or None.
    """
    names = set()
    for entry in reproduction.entries:
        is_tested = any(tested.runs for tested in entry.hypotheses)
        if (entry.is_finding or is_tested) and entry.row.name not in names:
            names.add(entry.row.name)
            tested = [_tested(*pair) for pair in zip(entry.row.hypotheses, entry.hypotheses, strict=True)]
            yield {
                "title": f"{entry.row.label} ({entry.row.name})",
                "words": _words(entry),
                "hypotheses": pd.DataFrame(tested) if tested else None,
            }


def _tested(hypothesis: Hypothesis, runs: Entry) -> dict[str, str]:
    command = [*hypothesis.row.command(), f"name=report-hypothesis-{hypothesis.name}"]
    cells = {
        "hypothesis": hypothesis.row.label,
        "why": hypothesis.words,
        "best epoch": text.over_seeds(runs.values("test/acc", "report")),
        "last epoch": text.over_seeds(runs.values("test/acc_final", "report")),
        "verdict": judged(runs),
        "command": f"`{shlex.join(['python', '-m', 'cifar_lab.train', *command])}`",
    }
    words = state(runs)
    return {**cells, "state": words} if words else cells


def _words(entry: Entry) -> str:
    published = f"Published: {100 * (entry.row.accuracy or 0):.2f}"
    if entry.verdict == "diverged":
        return f"{published}. With the printed settings, every ended run under `protocol=report` diverged."
    if entry.noise is None:
        return f"{published}. The printed settings have not been run under `protocol=report`."
    low, high = entry.noise
    where = "outside" if entry.is_finding else "inside"
    best, last = (text.over_seeds(entry.values(name, "report")) for name in ("test/acc", "test/acc_final"))
    return (
        f"{published}. The printed settings reach {best} in the best epoch and {last} in the last, `protocol=report`. "
        f"The published number is {where} {100 * low:.2f} to {100 * high:.2f} ({entry.basis})."
    )


def batch_norm(landscape: Landscape) -> dict[str, Any]:
    """Return the chapter on BatchNorm, except its claims.

    Returns:
        `sentences`, also those against BatchNorm, empty without runs; `speed`, a frame of the epochs that each network
        needs at each learning rate, None without runs; `pictures`, of bands and probes.
    """
    group = landscape.band_group
    sentences = [sentence for band in landscape.bands for sentence in band.sentences]
    if group is not None:
        sentences += [
            f"Widest range of learning rates that train, {NAMES[bn]}, {INITS.get(init, init)}: "
            f"{rate_range(group, bn=bn, init=init).text()}."
            for init in group.inits
            for bn in (True, False)
        ]
    pictures = []
    for number, band in enumerate(landscape.bands, 1):
        words = f"{band.title}: range of the training loss over the learning rates, for each step"
        name = "batch-norm-band" if number == 1 else f"batch-norm-band-{number}"
        pictures.append(Picture(name, words, partial(figures.bands, band)))
    if landscape.smoothness is not None:
        sentences += landscape.smoothness.sentences
        words = f"{landscape.smoothness.title}: changes of loss and gradient along the gradient"
        pictures.append(Picture("batch-norm-smoothness", words, partial(figures.smoothness, landscape.smoothness)))
    return {"sentences": sentences, "speed": None if group is None else speed(group), "pictures": pictures}


def base(experiment: Base) -> dict[str, Any]:
    """Return the chapter on a modern experiment, except its claims.

    Returns:
        `name` of the experiment; `frame`, a row for each protocol and machine of the unchanged experiment, None without
        such runs; `studies` on it, from `parts.studies`.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for run in experiment.own:
        groups.setdefault((run.protocol, text.trained_on(run.result)), []).append(run)
    lines = [
        {
            "protocol": protocol,
            "last epoch": text.over_seeds(values_of(runs, "test/acc_final")),
            "with test-time augmentation": text.over_seeds(values_of(runs, "test/acc_tta_final")),
            "PFLOP": f"{pflop(runs[0]):.3f}",
            "seconds": f"{np.median(values_of(runs, 'seconds')):,.0f}",
            "trained on": machine,
        }
        for (protocol, machine), runs in groups.items()
    ]
    frame = pd.DataFrame(lines) if lines else None
    return {"name": experiment.name, "frame": frame, "studies": list(studies(experiment.of_studies))}
