"""Options and their descriptions, read from the comments of their files.

The comment above the first key of a file describes the option; a comment at the end of a line describes the key. The
accepted values of a key are those of `cifar_lab.config.checks`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import yaml

from cifar_lab.config import checks, schema

_UNSET = ("defaults", "_target_", "_partial_")


class Setting(NamedTuple):
    """A key of an option."""

    key: str  # dotted
    default: str  # as written in the file
    accepted: str
    description: str


class Option(NamedTuple):
    """An option file."""

    group: str
    name: str  # within the group; options in `base/` cannot be chosen, but other options build on them
    header: list[str]  # comment lines above the keys, without `#`
    target: str  # the first `_target_`, or empty
    builds_on: list[str]  # options of its group whose keys it inherits
    replaced: list[str]  # options of other groups that it chooses, such as `loss=ce`
    settings: list[Setting]

    @property
    def description(self) -> str:
        """The header as one line."""
        return " ".join(map(str.strip, self.header))

    @property
    def is_choice(self) -> bool:
        """Whether it can be chosen on the command line."""
        return "/" not in self.name

    @property
    def title(self) -> str:
        """The heading of its section."""
        return f"`{self.group}={self.name}`" if self.is_choice else f"Options of `{self.group}` on `{self.name}`"


class CommentedFile:
    """A YAML file with its comments."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.lines = text.splitlines()
        self.content: dict[str, Any] = yaml.safe_load(text)
        root = yaml.compose(text)
        assert isinstance(root, yaml.MappingNode)
        self._text, self._root = text, root
        above = [line[1:] for line in self.lines[: self._root.start_mark.line] if line.startswith("#")]
        self.header = [line for line in above if not line.startswith(" @package")]

    def leaves(self) -> Iterator[tuple[str, str, Any, str]]:
        """Yield each dotted key with its text, value and comment; the keys of a one-line mapping share its comment."""
        yield from self._leaves(self._root, "")

    def comments(self, name: str) -> dict[str, str]:
        """Return the comments of a list's entries `- key: value`, by key."""
        (entries,) = (value for key, value in self._root.value if key.value == name)
        pairs = [entry.value[0] for entry in entries.value if isinstance(entry, yaml.MappingNode)]
        return {key.value: self._comment(value) for key, value in pairs}

    def _leaves(self, node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, str, Any, str]]:
        for key, value in node.value:
            if key.value in _UNSET:
                continue
            if isinstance(value, yaml.MappingNode):
                shared = self._comment(value) if value.flow_style else ""
                for name, text, plain, comment in self._leaves(value, f"{prefix}{key.value}."):
                    yield name, text, plain, comment or shared
            else:
                text = self._text[value.start_mark.index : value.end_mark.index]
                yield f"{prefix}{key.value}", text, yaml.safe_load(text), self._comment(value)

    def _comment(self, node: yaml.Node) -> str:
        rest = self.lines[node.end_mark.line][node.end_mark.column :].strip()
        return rest.removeprefix("#").strip() if rest.startswith("#") else ""


def options(group: str) -> list[Option]:
    """Return a group's options, beginning with those in its folder `base`, on which others build."""
    folder = schema.conf_folder() / group
    paths = [*sorted(folder.glob("base/*.yaml")), *sorted(folder.glob("*.yaml"))]
    return [_option(group, path, path.relative_to(folder).with_suffix("").as_posix()) for path in paths]


def scalars() -> list[Setting]:
    """Return the keys outside all groups, and Hydra's keys for the folders of runs."""
    file, kinds = CommentedFile(schema.conf_folder() / "train.yaml"), get_type_hints(schema.Schema)
    settings = []
    for key, text, value, comment in file.leaves():
        kind = kinds.get(key) if _is_followed(value) else None
        plain = kind() if isinstance(kind, type) else None if kind else value
        settings.append(Setting(key, text, checks.accepted(key, plain), comment))
    return settings


def groups() -> dict[str, tuple[str | None, str]]:
    """Return each group with its default option and its purpose, in the order of `conf/train.yaml`."""
    file = CommentedFile(schema.conf_folder() / "train.yaml")
    described = file.comments("defaults")
    entries = [entry for entry in file.content["defaults"] if isinstance(entry, dict)]
    chosen = {group: option for entry in entries for group, option in entry.items() if not group.startswith("override")}
    return {group: (option, described[group]) for group, option in chosen.items()}


def _option(group: str, path: Path, name: str) -> Option:
    file = CommentedFile(path)
    settings = []
    for key, text, value, comment in file.leaves():
        dotted = f"{group.replace('/', '.')}.{key}"
        settings.append(Setting(dotted, text, _accepted(dotted, value), comment))
    # Experiments, studies and searches replace options of other groups, and models replace the activation.
    builds_on, replaced = [], []
    for entry in file.content.get("defaults", []):
        if isinstance(entry, dict):
            replaced += [f"{re.split('[/@]', key)[1]}={option}" for key, option in entry.items()]
        elif entry != "_self_":
            builds_on.append(entry)
    target = _target(file.content) or next((_target(_content(group, parent)) for parent in builds_on), "")
    return Option(group, name, file.header, target, builds_on, replaced, settings)


def _content(group: str, name: str) -> dict[str, Any]:
    return CommentedFile(schema.conf_folder() / group / f"{name}.yaml").content


def _target(content: dict[str, Any]) -> str:
    """Return the first `_target_`, at the top level or nested."""
    inner = (_target(value) for value in content.values() if isinstance(value, dict))
    return str(content.get("_target_") or next(inner, ""))


def _is_followed(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("${") and value.endswith("}")


def _accepted(key: str, value: Any) -> str:
    if not _is_followed(value):
        return checks.accepted(key, "" if value == "???" else value)
    followed, known = value[2:-1], groups()
    if ":" in followed:  # a resolver or an environment variable
        return checks.accepted(key, None if followed.startswith("oc.env:") else "")
    if followed in known:
        return f"the option of [{followed}](#{followed})"
    group, _, name = followed.rpartition(".")
    content = _content(group, known[group][0] or "") if group in known else _content("", "train")
    return checks.accepted(key, content.get(name))
