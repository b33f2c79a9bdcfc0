"""The configuration reference, made from `conf/`: `python -m cifar_lab.config.reference > docs/configuration.md`."""

import re

import yaml

from cifar_lab.config.options import Option, Setting, groups, options, scalars
from cifar_lab.config.studies import as_typed
from cifar_lab.data import archives

_INTRODUCTION = """\
# Configuration

Generated from `conf/` by `make docs`; edit the comments there, not this page.

A group's option is chosen by `group=option`, as `model=vgg_a`; a key is set by its dotted name, as `optimizer.lr=3e-4`.
With `-m` either takes several values: `loss=ce,mse seed='range(0,5)'`. The command line wins over a study, that over
an experiment, that over a model's own activation, and that over the defaults. A default such as `${epochs}` follows
another key. Options of your own: [recipes.md](recipes.md). How a composition becomes a run:
[architecture.md](architecture.md).
"""
# Groups whose options choose options of other groups, with an introduction.
_WHOLE = {
    "experiment": "",
    "study": """ `study=loss` is a sweep without
`-m`, in `outputs/study-loss/` unless `name=` says otherwise, and the same command again resumes what is
unfinished. Typed overrides win: a value narrows an axis (`study=loss loss=ce`), several replace it
(`seed=5,6,7`) or add one (`model=cnn,vgg_a`), and any other setting holds for all runs (`epochs=3`, in
`outputs/study-loss-epochs=3/`). The runs that two such commands have in common are trained once. What a study
neither varies nor sets is the experiment's, where one is typed (`study=loss experiment=best_cnn`), else the default;
without an experiment that is what stands under *Fixed*.""",
    "search": """ What varies is
written in Hydra's words: `interval(0,0.3)` is any number between, `tag(log,interval(1e-4,1e-2))` one of equal factors,
`range(16,65,16)` whole numbers, a list one of its values. Typed overrides win, as for a study.
[scaling.md](scaling.md#search) explains it.""",
    "debug": """ The run lies in a
temporary folder that is removed at the end, so it is in no table or report. With any experiment and settings, but one
at a time: not in sweeps, studies and searches.""",
}
_ARCHIVES = """Where `data.download` fetches published data from, and what it verifies. MD5s are those that torchvision
ships; `git` is the SHA-1 of a blob in the authors' repository. Later `data.verify` compares the images of CIFAR-10 with
digests of their own, whatever their order, and the files of CIFAR-100, SVHN and CIFAR-10.1 with published checksums; of
the unpacked files of Fashion-MNIST none are published. CIFAR-10-C (`evaluate --corruptions`) is neither fetched nor
verified."""
_TABLE = "| key | default | takes | what it is |\n|---|---|---|---|"


def page() -> str:
    """The whole reference, in Markdown."""
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
    parts += ["\n## Folders\n\nFolders of runs; Hydra's own keys.\n", _table(hydra)]
    return "\n".join(parts) + "\n"


def anchor(title: str) -> str:
    """Return the anchor of a heading, as GitHub generates it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _group(group: str, members: list[Option]) -> str:
    default, description = groups()[group]
    parts = [f"\n## {group}\n\n{_sentence(description)}\n", "| option | makes | what it is |\n|---|---|---|"]
    titles = {option.name: option.title for option in members}
    for option in members:
        if option.is_choice:
            mark = " (default)" if option.name == default else ""
            target = f"`{option.target}`" if option.target else ""
            parts.append(f"| {_linked(option)}{mark} | {target} | {option.description} |")
    for option in members:
        bases = " and ".join(_link(titles[name], titles[name]) for name in option.builds_on)
        notes = [f"With the keys of {bases}."] if bases else []
        notes += [f"Brings `{choice}`." for choice in option.replaced]
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
    """Its name, linked to its section if it has one."""
    name = f"`{option.name}`"
    return _link(option.title, name) if option.settings or option.group in _WHOLE else name


if __name__ == "__main__":
    print(page(), end="")
