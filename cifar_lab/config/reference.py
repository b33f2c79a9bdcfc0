"""The configuration reference, made from `conf/`: `python -m cifar_lab.config.reference > docs/configuration.md`."""

import re

from cifar_lab.config.options import Option, Setting, groups, options, scalars

_INTRODUCTION = """\
# Configuration

Generated from `conf/` by `make docs`; edit the comments there, not this page.

A group's option is chosen by `group=option`, as `model=vgg_a`; a key is set by its dotted name, as `optimizer.lr=3e-4`.
With `-m` either takes several values: `loss=ce,mse seed='range(0,5)'`. The command line wins over an experiment, that
over a model's own activation, and that over the defaults. A default such as `${epochs}` follows another key. Options of
your own: [recipes.md](recipes.md). How a composition becomes a run: [architecture.md](architecture.md).
"""
_TABLE = "| key | default | takes | what it is |\n|---|---|---|---|"


def page() -> str:
    """The whole reference, in Markdown."""
    kinds = {group: options(group) for group in groups()}
    contents = ["- [Scalars](#scalars)"]
    for group, members in kinds.items():
        contents.append(
            f"- [{group}](#{group}): {', '.join(_linked(option) for option in members if option.is_choice)}"
        )
    contents.append("- [Folders](#folders)")
    own = [setting for setting in scalars() if not setting.key.startswith("hydra.")]
    hydra = [setting for setting in scalars() if setting.key.startswith("hydra.")]
    parts = [_INTRODUCTION, *contents, "\n## Scalars\n", _table(own)]
    for group, members in kinds.items():
        if group == "experiment":
            parts += [f"\n## experiment\n\n{_sentence(groups()[group][1])}", *map(_experiment, members)]
        else:
            parts.append(_group(group, members))
    parts += ["\n## Folders\n\nWhere runs lie; Hydra's own keys.\n", _table(hydra)]
    return "\n".join(parts) + "\n"


def anchor(title: str) -> str:
    """A heading's name in links, as GitHub makes it."""
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
        notes = [f"With the keys of {_link(titles[name], titles[name])}." for name in option.builds_on]
        notes += [f"Brings `{choice}`." for choice in option.replaced]
        notes += [] if option.is_choice else [option.description]
        if option.settings:
            parts.append("\n".join([f"\n### {option.title}\n", *([f"{' '.join(notes)}\n"] if notes else [])]))
            parts.append(_table(option.settings))
    return "\n".join(parts)


def _experiment(option: Option) -> str:
    """Its command, what its header says, and what it sets as one would type it."""
    fields = dict[str, str]()
    for line in option.header:
        if line.startswith("   "):  # goes on from the line above
            fields[next(reversed(fields))] += f" {line.strip()}"
        else:
            field, _, text = line.strip().partition(": ")
            fields[field] = text
    values = [f"{key.partition('.')[2]}={text.replace(' ', '')}" for key, text, _, _ in option.settings]
    chosen = [f"experiment={parent}" for parent in option.builds_on] + option.replaced
    chosen += [value for value in values if not value.startswith("published=")]
    command = fields.pop("Command")
    bullets = "\n".join(f"- {field}: {text}" for field, text in fields.items())
    return f"\n### {option.title}\n\n```sh\n{command}\n```\n\n{bullets}\n- Sets: `{' '.join(chosen)}`"


def _table(settings: list[Setting]) -> str:
    rows = [
        f"| `{key}` | `{default}` | {accepted} | {description} |" for key, default, accepted, description in settings
    ]
    return "\n".join([_TABLE, *rows])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _link(title: str, text: str) -> str:
    return f"[{text}](#{anchor(title)})"


def _linked(option: Option) -> str:
    """Its name, linked to its section if it has one."""
    name = f"`{option.name}`"
    return _link(option.title, name) if option.settings or option.group == "experiment" else name


if __name__ == "__main__":
    print(page(), end="")
