"""Shell completion of `python -m cifar_lab.train` and `cifar-lab train`, neither of which Hydra's own supports."""

import contextlib
import io
import os
import re
import shlex
from collections.abc import Callable, Iterator

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

_OURS = re.compile(r"^\s*\S*(python[\d.]*\s+-m\s+cifar_lab\.train|cifar-lab\s+train)\s")
# Hydra's scripts complete `python file.py`; this adds `python -m`. For bash, and for zsh, which reads bash scripts:
_BASH_TEST, _BASH_END = "        file_path=$(pwd)/${words[1]}\n", '        helper="${words[0]} ${words[1]}"\n'
_BASH_LOOK = "EXECUTABLE=($(command -v $helper))"
_OUR_BASH_TEST = """\
        if [ "${words[1]} ${words[2]}" = "-m cifar_lab.train" ]; then
            helper="${words[0]} -m cifar_lab.train"
        else
"""
# For fish:
_FISH_TEST = '        set cmd "$parts[1] $parts[2]"\n'
_OUR_FISH_TEST = """\
        if test "$parts[2] $parts[3]" = "-m cifar_lab.train"
            eval "$parts[1] -m cifar_lab.train -sc query=fish"
            return
        end
"""
_FISH_SEEN = re.compile(r"(__fish_seen_subcommand_from) \S*train\.py")


def answer(application: Callable[[], object]) -> None:
    """Print the script to install, or the completions of the line in `COMP_LINE`.

    Args:
        application: Prints Hydra's completions for the process's command line.
    """
    line = os.environ.get("COMP_LINE", "")
    os.environ["COMP_LINE"] = _OURS.sub("cifar_lab.train ", _unquoted(line))
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), _silent_while_completing():
            application()
    finally:
        script = printed.getvalue()
        if _BASH_TEST in script and _BASH_END in script:
            script = script.replace(_BASH_TEST, _OUR_BASH_TEST + _BASH_TEST)
            # zsh reads `==` within brackets as a file name.
            script = script.replace(_BASH_END, f"{_BASH_END}        fi\n").replace(" == ", " = ")
            script = script.replace(
                _BASH_LOOK, 'EXECUTABLE=("$(command -v ${helper%% *})")'
            )  # the path may contain spaces
        script = script.replace(_FISH_TEST, _OUR_FISH_TEST + _FISH_TEST)
        print(_FISH_SEEN.sub(r"\1 cifar_lab.train", script), end="")


def _unquoted(line: str) -> str:
    """Unquote all words except the last one, like the shell."""
    before, space, last = line.rpartition(" ")
    with contextlib.suppress(ValueError):  # a quote is still open
        return " ".join(shlex.split(before)) + space + last
    return line


@contextlib.contextmanager
def _silent_while_completing() -> Iterator[None]:
    """Print no completions for a line that cannot be composed, because an error would appear in the prompt."""
    try:
        yield
    except (HydraException, OmegaConfBaseException):
        if not os.environ["COMP_LINE"]:
            raise
