"""Commands on trained networks check their arguments before anything heavy is imported."""

import subprocess
import sys

import pytest

from tests.conftest import holds, names

HEAVY = {"torch", "lightning", "hydra", "omegaconf", "pandas", "matplotlib", "captum", "onnx", "safetensors"}
SCRIPT = """
import sys
from cifar_lab import {command}
try: {command}.main()
finally: print("imported", *sys.modules)
"""


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain", "export", "compare"])
@pytest.mark.parametrize("arguments", [["--help"], ["nowhere", "image.png"]], ids=["help", "refusal"])
def test_help_and_refusals_wait_for_no_torch(command: str, arguments: list[str]) -> None:
    line = [sys.executable, "-c", SCRIPT.format(command=command), *arguments[: 1 if command == "export" else 2]]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    page, _, modules = done.stdout.partition("imported ")
    assert not HEAVY & set(modules.split())
    if arguments == ["--help"]:
        assert done.returncode == 0, done.stderr
        holds(page, f"cifar-lab {command}", "RUN..." if command == "compare" else "RUN|WEIGHTS", "--allow")
    else:
        assert done.returncode == 2
        names(done.stderr, "nowhere")
