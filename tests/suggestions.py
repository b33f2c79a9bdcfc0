"""Commands that messages suggest, parsed as a shell does, and run."""

import re
import shlex
from collections.abc import Sequence

from tests.conftest import Lab, Outcome

_LETTER = r"""(?:[^\s'"\\;]|'[^']*'|"(?:[^"\\]|\\.)*"|\\.)"""
_SETTING = re.compile(rf"\b(?:resume|retrain|retry_\w+|hydra\.run\.dir)={_LETTER}+")
_COMMAND = re.compile(rf"python -m cifar_lab\.\w+(?: {_LETTER}+)*")


def suggested_arguments(message: str, typed: Sequence[str] = ()) -> list[str]:
    """Return the arguments of the training that the end of a message suggests.

    Args:
        message: A single line; its last part says what to do.
        typed: The arguments that led to the message, to which the suggestion may be added.
    """
    way_out = message.rpartition("; ")[2].strip()
    settings = [shlex.split(word)[0] for word in _SETTING.findall(way_out)]
    is_whole = any(word.startswith("resume=") and word != "resume=auto" for word in settings)
    assert settings or "same command" in way_out, f"no command in: {message}"
    return settings if is_whole else [*typed, *settings]


def commands_in(text: str) -> list[list[str]]:
    """Return the commands spelled out in a text, each split as by a shell."""
    return [shlex.split(command) for command in _COMMAND.findall(text)]


def run_suggestion(lab: Lab, message: str, typed: Sequence[str] = ()) -> Outcome:
    """Run the command that a message suggests, and check that it succeeds."""
    outcome = lab(*suggested_arguments(message, typed))
    assert outcome.code == 0, f"{message}\n{outcome.stderr}"
    return outcome
