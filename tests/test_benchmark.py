"""The benchmark's command."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab import benchmark
from tests.conftest import refusal

TINY = ["model.filters=[2,2,2]", "trainer=cpu", "--batch-size", "8", "--rounds", "2", "--seconds", "0.01"]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cifar_lab.benchmark", *arguments], cwd=folder, capture_output=True, text=True
    )


def test_what_cannot_be_is_refused(
    called: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for option, value in (("--batch-size", "x"), ("--batch-size", "0"), ("--model", "alexnet"), ("--rounds", "0")):
        refusal(called(benchmark.main, option, value), option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_prints_a_table_and_writes_json_and_a_picture(tmp_path: Path) -> None:
    done = command(tmp_path, "--model", "cnn", *TINY)
    assert done.returncode == 0, done.stderr
    assert "32-true" in done.stdout.splitlines()[0]
    assert [line.split()[0] for line in done.stdout.splitlines()[4:8]] == ["report", "plain", "best", "train"]
    told = json.loads((tmp_path / "outputs" / "benchmark" / "benchmark.json").read_text(encoding="utf-8"))
    (comparison,) = told["comparisons"]
    assert [row["name"] for row in comparison["loops"]] == ["report", "plain", "best", "train"]
    assert (tmp_path / "outputs" / "benchmark" / "benchmark.png").stat().st_size > 10_000


@pytest.mark.slow
def test_variants_of_the_best_loop_in_json(tmp_path: Path) -> None:
    done = command(tmp_path, "--model", "cnn", "--variants", "--json", *TINY)
    assert done.returncode == 0, done.stderr
    (comparison,) = json.loads(done.stdout)["comparisons"]
    assert {"best", "fp32", "contiguous", "foreach", "compiled"} <= {row["name"] for row in comparison["loops"]}
