"""The report page's chapter on how BatchNorm helps optimisation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from cifar_lab.landscape.batch_norm import bands, smoothness
from cifar_lab.landscape.batch_norm.runs import INITS, NAMES
from cifar_lab.landscape.batch_norm.training import rate_range, speed
from cifar_lab.report.claims.landscape import Landscape
from cifar_lab.report.page.pictures import Picture


@dataclass(frozen=True)
class Chapter:
    """What the chapter shows beside the claims.

    Attributes:
        sentences: What was found, where BatchNorm loses too; empty without runs.
        speed: How fast each network trains at each learning rate; None without runs.
        pictures: The band, and the probes.
    """

    sentences: Sequence[str]
    speed: pd.DataFrame | None
    pictures: Sequence[Picture]


def chapter(found: Landscape) -> Chapter:
    """The chapter on the runs that decide."""
    group = found.band_group
    sentences = [sentence for band in found.bands for sentence in band.sentences]
    if group is not None:
        sentences += [
            f"Widest range of learning rates that trains, {NAMES[bn]}, {INITS.get(init, init)}: "
            f"{rate_range(group, bn=bn, init=init).told()}."
            for init in group.inits
            for bn in (True, False)
        ]
    if found.smoothness is not None:
        sentences += found.smoothness.sentences
    return Chapter(sentences, None if group is None else speed(group), list(_pictures(found)))


def _pictures(found: Landscape) -> Iterator[Picture]:
    for number, band in enumerate(found.bands):
        words = f"{band.title}: the training loss of each step, from the lowest to the highest over the learning rates"
        yield Picture(f"batch-norm-band{f'-{number + 1}' if number else ''}", words, bands.figure(band))
    if found.smoothness is not None:
        words = f"{found.smoothness.title}: how far loss and gradient change along the gradient"
        yield Picture("batch-norm-smoothness", words, smoothness.figure(found.smoothness))
