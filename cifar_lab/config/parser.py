"""Fix Hydra's own command line parser on Python 3.14."""

import argparse
from typing import Any


def install() -> None:
    """Make argparse check only help texts that are strings. May be called repeatedly.

    Hydra passes an object instead of a help text, which Python 3.14 refuses with "badly formed help string". No Hydra
    up to 1.3.8 runs there without this (facebookresearch/hydra#3121). Earlier Pythons have no such check.
    """
    container = argparse._ActionsContainer
    check = getattr(container, "_check_help", None)
    if check is None or hasattr(check, "__wrapped__"):
        return

    def check_texts(parser: Any, action: argparse.Action) -> None:
        if isinstance(action.help, str):
            check(parser, action)

    check_texts.__wrapped__ = check  # type: ignore[attr-defined]
    setattr(container, "_check_help", check_texts)  # noqa: B010 - a name that exists only in later Pythons
