import argparse
import subprocess
import sys

import pytest

from cifar_lab.config import parser
from cifar_lab.config.command_line import parsed
from cifar_lab.machine.exit_codes import UsageError

# Checks that argparse makes since Python 3.14, for older interpreters.
LATER_ARGPARSE = """
import argparse, sys
def check(self, action):
    if action.help and hasattr(self, "_get_formatter"):
        try:
            self._get_formatter()._expand_help(action)
        except (ValueError, TypeError, KeyError):
            raise ValueError("badly formed help string") from None
add = argparse._ActionsContainer.add_argument
def checked(self, *names, **options):
    action = add(self, *names, **options)
    self._check_help(action)
    return action
if sys.version_info < (3, 14):
    argparse._ActionsContainer._check_help = check
    argparse._ActionsContainer.add_argument = checked
from hydra._internal.utils import get_args_parser
try:
    get_args_parser()
except ValueError as error:
    print(type(error).__name__)
import cifar_lab.config
print(get_args_parser().parse_args(["-m", "loss=ce"]).overrides)
"""


def test_hydras_parser_still_needs_our_patch_if_argparse_checks_help_texts() -> None:
    command = [sys.executable, "-c", LATER_ARGPARSE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout == "ValueError\n['loss=ce']\n", "Hydra has mended it: remove parser.py"


def test_other_help_texts_are_still_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        argparse._ActionsContainer, "_check_help", lambda self, action: seen.append(action.help), raising=False
    )
    parser.install()
    parser.install()
    container = argparse.ArgumentParser()
    for text in ("a text", object()):
        container._check_help(argparse.Action(["-x"], "x", help=text))
    assert seen == ["a text"]


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("--multirun --cfg job loss=ce,mse", ("--multirun", "--cfg")),
        ("--info all --shell-completion install=bash", ("--info", "--shell-completion")),
        ("--resolve", ("--resolve", "--cfg")),
        ("--package loss epochs=1", ("--package", "--cfg")),
        ("--config-name other", ("--config-name", "--config-dir")),
        ("--config-path folder", ("--config-path", "--config-dir")),
        ("--experimental-rerun config.pickle", ("--experimental-rerun", "resume=")),
    ],
)
def test_flags_of_hydra_that_exclude_each_other_or_have_no_effect_are_refused(
    words: str, facts: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as refused:
        parsed(words.split())
    assert all(fact in str(refused.value) for fact in facts)
