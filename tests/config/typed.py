"""Check a command line by composing its options once and setting its values as if they had been typed."""

import copy
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from cifar_lab.config import conf_folder, resolved
from cifar_lab.config.composition import check
from tests.conftest import Compose

PARSER = OverridesParser.create()
GROUPS = {folder.name for folder in conf_folder().iterdir() if folder.is_dir()}


def check_typed(composed: Compose, line: str, *base: str) -> None:
    """Check `line` on top of `base`, as far as composed values decide.

    Raises:
        ValueError: The line is refused.
    """
    overrides = PARSER.parse_overrides(line.split())
    options = [str(override.input_line) for override in overrides if override.key_or_group in GROUPS]
    known = resolved(composed(*base, *options))
    config: Any = copy.deepcopy(known)
    for override in overrides:
        *path, key = override.key_or_group.split(".")
        place = config
        for name in path:
            place = place[name]
        if override.is_delete():
            del place[key]
        elif key not in GROUPS:
            place[key] = override.value()
    check(config, known)
