"""Generate the configuration reference: `python -m cifar_lab.config.reference > docs/configuration.md`."""

import re

import yaml

from cifar_lab.config.options import Option, Setting, groups, options, scalars
from cifar_lab.config.studies import as_typed
from cifar_lab.data import archives

_INTRODUCTION = """\
# Configuration

Generated from `conf/` by `make docs`; edit the comments there, not this page.

Choose a group's option by `group=option`, such as `model=vgg_a`, and set a key by its dotted name, such as
`optimizer.lr=3e-4`. With `-m`, both accept several values: `loss=ce,mse seed='range(0,5)'`. The command line takes
precedence over a study, a study over an experiment, an experiment over a model's own activation, and that over the
defaults. A default such as `${epochs}` follows a different key. See [recipes.md](recipes.md) for your own options, and
[architecture.md](architecture.md) for how a composition becomes a run.
"""
# Groups whose options choose options of other groups, with an introduction.
_WHOLE = {
    "experiment": "",
    "study": """ `study=loss` is a sweep without
`-m`, in `outputs/study-loss/` unless `name=` is set. Run the command again to resume unfinished runs. Typed overrides
take precedence: a single value narrows an axis (`study=loss loss=ce`), several values replace it (`seed=5,6,7`) or add
one (`model=cnn,vgg_a`), and any other setting applies to all runs (`epochs=3`, in `outputs/study-loss-epochs=3/`). Runs
that two such commands share are trained once. Settings that a study neither varies nor sets come from the typed
experiment (`study=loss experiment=best_cnn`), or else from the defaults, which are listed under *Fixed*.""",
    "search": """ Axes are written in
Hydra's syntax: `interval(0,0.3)` is a range of numbers, `tag(log,interval(1e-4,1e-2))` a range on a logarithmic scale,
`range(16,65,16)` a range of whole numbers, and a list a choice of its values. Typed overrides take precedence, as for a
study. See [scaling.md](scaling.md#search).""",
    "debug": """ The run is written to a
temporary folder that is removed at the end, so it appears in no table or report. It works with any experiment and
settings, but not in sweeps, studies and searches.""",
}
_ARCHIVES = """Sources and checksums of the published data that `data.download` fetches. MD5s are those of torchvision;
`git` is the SHA-1 of a blob in the authors' repository. Later, `data.verify` compares the images of CIFAR-10 with
digests of their own, in any order, and the files of CIFAR-100, SVHN and CIFAR-10.1 with published checksums. None are
published for the unpacked files of Fashion-MNIST. CIFAR-10-C (`evaluate --corruptions`) is neither fetched nor
verified."""
_TABLE = "| key | default | takes | description |\n|---|---|---|---|"


def page() -> str:
    """Return the whole reference in Markdown."""
    kinds = {group: options(group) for group in groups()}
    contents = ["- [Scalars](#scalars)"]
    for group, members in kinds.items():
        choices = ", ".join(_linked(option) for option in members if option.is_choice)
        contents.append(f"- [{group}](#{group}): {choices}")
    contents += ["- [Archives](#archives)", "- [Launchers](#launchers)", "- [Folders](#folders)"]
    own = [setting for setting in scalars() if not setting.key.startswith("hydra.")]
    hydra = [setting for setting in scalars() if setting.key.startswith("hydra.")]
    parts = [_INTRODUCTION, *contents, "\n## Scalars\n", _table(own)]
    for group, members in kinds.items():
        if group in _WHOLE:
            parts += [f"\n## {group}\n\n{_sentence(groups()[group][1])}{_WHOLE[group]}", *map(_whole, members)]
        else:
            parts.append(_group(group, members))
    parts.append(f"\n## Archives\n\n{_ARCHIVES}\n\n{archives.table()}")
    parts.append("\n## Launchers\n\nLaunchers run the jobs of a sweep; [scaling.md](scaling.md) compares them.")
    for launcher in options("hydra/launcher"):
        parts += [f"\n### {launcher.title}\n\n{launcher.description}\n", _table(launcher.settings)]
    parts += ["\n## Folders\n\nFolders of runs, set by Hydra's own keys.\n", _table(hydra)]
    return "\n".join(parts) + "\n"


def anchor(title: str) -> str:
    """Return the anchor of a heading, as GitHub generates it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _group(group: str, members: list[Option]) -> str:
    default, description = groups()[group]
    parts = [f"\n## {group}\n\n{_sentence(description)}\n", "| option | target | description |\n|---|---|---|"]
    titles = {option.name: option.title for option in members}
    for option in members:
        if option.is_choice:
            mark = " (default)" if option.name == default else ""
            target = f"`{option.target}`" if option.target else ""
            parts.append(f"| {_linked(option)}{mark} | {target} | {option.description} |")
    for option in members:
        bases = " and ".join(_link(titles[name], titles[name]) for name in option.builds_on)
        notes = [f"Inherits the keys of {bases}."] if bases else []
        notes += [f"Also sets `{choice}`." for choice in option.replaced]
        notes += [] if option.is_choice else [option.description]
        if option.settings:
            parts += [f"\n### {option.title}\n", *([f"{' '.join(notes)}\n"] if notes else []), _table(option.settings)]
    return "\n".join(parts)


def _whole(option: Option) -> str:
    """Describe an experiment, study or search: its command, header, settings and axes."""
    fields = dict[str, str]()
    for line in option.header:
        if line.startswith("   "):  # continues the line above
            fields[next(reversed(fields))] += f" {line.strip()}"
        else:
            field, _, text = line.strip().partition(": ")
            fields[field] = text
    inside = f"{option.group}.{option.group}."  # keys that no other group has
    own = [one._replace(key=one.key.partition(".")[2]) for one in option.settings if one.key.startswith(inside)]
    texts = {one.key.partition(".")[2]: one.default for one in option.settings if not one.key.startswith(inside)}
    axes = {key: texts.pop(key) for key in list(texts) if key.startswith("axes.")}
    values = [f"{key}={text.replace(' ', '')}" for key, text in texts.items()]
    chosen = [f"{option.group}={parent}" for parent in option.builds_on] + option.replaced
    chosen += [value for value in values if not value.startswith("published=")]
    command = fields.pop("Command")
    bullets = "\n".join(f"- {field}: {text}" for field, text in fields.items())
    varied = " ".join(f"{key.removeprefix('axes.')}={as_typed(yaml.safe_load(text))}" for key, text in axes.items())
    facts = {"Varies": varied, "Sets": " ".join(chosen)}
    bullets += "".join(f"\n- {field}: `{text}`" for field, text in facts.items() if text)
    table = f"\n\n{_table(own)}" if own else ""
    return f"\n### {option.title}\n\n```sh\n{command}\n```\n\n{bullets}{table}"


def _table(settings: list[Setting]) -> str:
    rows = (f"| `{one.key}` | `{one.default}` | {one.accepted} | {one.description} |" for one in settings)
    return "\n".join([_TABLE, *rows])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _link(title: str, text: str) -> str:
    return f"[{text}](#{anchor(title)})"


def _linked(option: Option) -> str:
    """Return an option's name, linked to its section if it has one."""
    name = f"`{option.name}`"
    return _link(option.title, name) if option.settings or option.group in _WHOLE else name


if __name__ == "__main__":
    print(page(), end="")
