"""The benchmark's command."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab import benchmark
from cifar_lab.benchmark import comparison
from cifar_lab.benchmark.comparison import Comparison
from cifar_lab.benchmark.race import LOOPS, Contest, Measured
from tests.conftest import names, refusal

Call = Callable[..., tuple[int, str, str]]

TINY = ["model.filters=[2,2,2]", "trainer=cpu", "--batch-size", "8", "--rounds", "2", "--seconds", "0.01"]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cifar_lab.benchmark", *arguments], cwd=folder, capture_output=True, text=True
    )


def test_impossible_options_are_refused(called: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for option, value in (("--batch-size", "x"), ("--batch-size", "0"), ("--model", "alexnet"), ("--rounds", "0")):
        refusal(called(benchmark.main, option, value), option)
    assert list(tmp_path.iterdir()) == []


def test_a_loop_that_trains_differently_fails_after_the_table_is_printed(
    called: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = dict.fromkeys(("data", "forward", "backward", "optimizer", "framework"), 0.2)
    loops = [Measured(name, "32-true", "contiguous", [1.0, 2.0], shares, [2.0, 1.0]) for name in LOOPS]
    made_up = Comparison("cnn", Contest(("model=cnn",)), loops, 10, {"32-true": 1e4})
    host = {"device_name": "a processor", "cpu_count": 2, "threads": 1, "matmul_flops": {"32-true": 1e9}}
    monkeypatch.setattr(comparison, "describe_host", lambda: host)
    monkeypatch.setattr(comparison, "compare", lambda *_, **__: made_up)
    code, out, err = called(benchmark.main, "--model", "cnn", "--output", tmp_path)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert [row[:3] for row in rows if row[:1] and row[0] in LOOPS] == [
        [name, "32-true", "contiguous"] for name in LOOPS
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"benchmark.json", "benchmark.png"}
    loops[0].losses[1] = 2.0
    code, out, err = called(benchmark.main, "--model", "cnn", "--output", tmp_path, "--json")
    assert code == 1
    names(err, loops[0].name, "100.0%")
    assert json.loads(out) == json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    assert json.loads(out)["host"] == host


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
