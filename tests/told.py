"""The commands that messages name, read as a shell reads them, and given."""

import re
import shlex
from collections.abc import Sequence

from tests.conftest import Lab, Outcome

_LETTER = r"""(?:[^\s'"\\;]|'[^']*'|"(?:[^"\\]|\\.)*"|\\.)"""
_SETTING = re.compile(rf"\b(?:resume|retrain|retry_\w+|hydra\.run\.dir)={_LETTER}+")
_COMMAND = re.compile(rf"python -m cifar_lab\.\w+(?: {_LETTER}+)*")


def named(message: str, typed: Sequence[str] = ()) -> list[str]:
    """The arguments of the training that the end of a message names.

    Args:
        message: In one line; of several parts the last says what to do.
        typed: What gave the message, for one that adds to that command.
    """
    way_out = message.rpartition("; ")[2].strip()
    settings = [shlex.split(word)[0] for word in _SETTING.findall(way_out)]
    is_whole = any(word.startswith("resume=") and word != "resume=auto" for word in settings)
    assert settings or "same command" in way_out, f"no command in: {message}"
    return settings if is_whole else [*typed, *settings]


def whole_commands(text: str) -> list[list[str]]:
    """The commands that a text spells out, each as a shell splits it."""
    return [shlex.split(command) for command in _COMMAND.findall(text)]


def obeyed(lab: Lab, message: str, typed: Sequence[str] = ()) -> Outcome:
    """Give the command that a message names: it works."""
    outcome = lab(*named(message, typed))
    assert outcome.code == 0, f"{message}\n{outcome.stderr}"
    return outcome
