"""Colours of compared runs."""

from collections.abc import Mapping, Sequence

from cifar_lab.config.schema import conf_folder
from cifar_lab.figures import PALETTE, Colour, colours
from cifar_lab.runs import Record

_GROUPS = ("activation", "augment", "averaging", "data", "loss", "model", "optimizer", "scheduler")


def colours_by_name(runs: Mapping[str, Sequence[Record]], group: str | None = None) -> dict[str, Colour]:
    """Choose a colour for each composition, from its runs.

    If each composition has a different option of `group`, the option decides: `loss=mse` has the same colour in every
    figure. Otherwise, or with more compositions than `PALETTE` has colours, the order decides.

    Args:
        runs: The runs of each composition by its name; a composition may have none yet.
        group: The group that varies. Default: the one group in `_GROUPS` that varies, if there is only one.
    """
    options = {name: of[0].options for name, of in runs.items() if of}
    if group is None:
        varying = [each for each in _GROUPS if len({chosen.get(each) for chosen in options.values()}) > 1]
        group = varying[0] if len(varying) == 1 else None
    chosen = {name: of.get(group) for name, of in options.items()} if group else {}
    shipped = sorted(path.stem for path in (conf_folder() / str(group)).glob("*.yaml"))
    places = {name: shipped.index(option) for name, option in chosen.items() if option in shipped}
    if len(runs) > len(PALETTE) or len(set(places.values())) < len(places):
        places = {}
    free = colours(max(len(runs), len(PALETTE)))
    palette, shades = list(free), {}
    for name in sorted(runs, key=lambda name: name not in places):
        wanted = places.get(name, 0) % len(palette)
        # The next free colour if an earlier composition has taken it.
        shades[name] = next(colour for colour in palette[wanted:] + palette[:wanted] if colour in free)
        free.remove(shades[name])
    return shades
