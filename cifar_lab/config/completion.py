"""Shell completion of `python -m cifar_lab.train` and `cifar-lab train`, by Hydra's own, which knows neither form."""

import contextlib
import io
import os
import re
from collections.abc import Callable

# Hydra completes `python file.py`; the words in between are those that lead to us.
_OURS = re.compile(r"^\s*\S*(python[\d.]*\s+-m\s+cifar_lab\.train|cifar-lab\s+train)\s")
_HYDRAS_TEST = "        file_path=$(pwd)/${words[1]}\n"
_OUR_TEST = """\
        if [ "${words[1]} ${words[2]}" == "-m cifar_lab.train" ]; then
            helper="${words[0]} -m cifar_lab.train"
        else
"""
_HYDRAS_END = '        helper="${words[0]} ${words[1]}"\n'


def answer(application: Callable[[], object]) -> None:
    """Answer the shell: what to install, or what may follow on the line that it shows in `COMP_LINE`.

    Args:
        application: Hydra's answer, printed, for the process's command line.
    """
    line = os.environ.get("COMP_LINE", "")
    os.environ["COMP_LINE"] = _OURS.sub("cifar_lab.train ", line)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            application()
    finally:
        script = printed.getvalue()
        if _HYDRAS_TEST in script and _HYDRAS_END in script:
            script = script.replace(_HYDRAS_TEST, _OUR_TEST + _HYDRAS_TEST)
            script = script.replace(_HYDRAS_END, f"{_HYDRAS_END}        fi\n")
        print(script, end="")
