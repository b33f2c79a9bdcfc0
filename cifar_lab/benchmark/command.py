"""Compare the speed of hand-written loops and `cifar_lab.train`: `python -m cifar_lab.benchmark --model cnn`."""

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifar_lab.machine import exit_codes
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.output import check_writable
from cifar_lab.terminal.process import UNWRITABLE

if TYPE_CHECKING:
    from cifar_lab.benchmark.comparison import Comparison


NETWORKS = ("speed_cnn", "cnn", "vgg_a", "resnet14")


def benchmark(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides for every loop, such as augment=randaugment or trainer=cpu.")
    ] = None,
    model: Annotated[
        Literal["speed_cnn", "cnn", "vgg_a", "resnet14", "all"],
        typer.Option(help="Network; speed_cnn trains with Muon, vgg_a with BatchNorm."),
    ] = "all",
    batch_size: Annotated[str, typer.Option(help="Images per step; several values joined by commas.")] = "128",
    rounds: Annotated[int, typer.Option(min=1, help="Maximum number of turns per loop.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.01, help="Approximate length of a turn, if time permits.")] = 1.5,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Time limit; slow networks get fewer and shorter turns.")
    ] = 10,
    variants: Annotated[
        bool, typer.Option("--variants", help="Compare the best loop in other precisions, layouts, ... instead.")
    ] = False,
    to: Annotated[
        float | None,
        typer.Option(min=1, max=99.9, help="Train a fast recipe for this test accuracy in percent, and a plain loop."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Recipe for --to, such as experiment=fast_94; default: by accuracy.")
    ] = "",
    check_gpu: Annotated[
        bool, typer.Option("--gpu-check", help="Check fast runs on a GPU instead; at most five minutes.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for benchmark.json and benchmark.png.")] = Path(
        "outputs/benchmark"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> int:
    """Time the report's way, plain loops and cifar_lab.train in turns, after checking that they train alike."""
    if check_gpu:
        from cifar_lab.benchmark.gpu_check import gpu_check

        return gpu_check(overrides or [])
    check_writable(output)
    if to is not None:
        from cifar_lab.benchmark.to_accuracy import benchmark_to

        return benchmark_to(to, recipe, overrides or [], output, as_json)
    sizes = [int(size) for size in batch_size.split(",") if size.isdecimal() and int(size)]
    if len(sizes) != len(batch_size.split(",")):
        raise UsageError(f"--batch-size {batch_size}: expected positive integers joined by commas")
    from cifar_lab.benchmark.budget import Budget
    from cifar_lab.benchmark.comparison import compare, contest_of, describe_host

    networks = itertools.product(NETWORKS if model == "all" else [model], sizes)
    contests = [contest_of(name, overrides or [], size, rounds, seconds, variants) for name, size in networks]
    budget = Budget(60 * minutes, len(contests))
    host = describe_host()
    if not as_json:
        print(_host_line(host), flush=True)
    comparisons = []
    for contest in contests:
        comparison = compare(contest, host, budget)
        comparisons.append(comparison)
        if not as_json:
            _show(comparison)
    results = {"host": host, "comparisons": [comparison.plain() for comparison in comparisons]}
    _write(results, output)
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        print(f"- {output / 'benchmark.json'}, {output / 'benchmark.png'}")
    astray = [line for comparison in comparisons for line in comparison.astray]
    for line in astray:
        print(f"error: {line}", file=sys.stderr)
    return exit_codes.FAILED if astray else 0


def _host_line(host: dict[str, Any]) -> str:
    peaks = ", ".join(f"{name} {flops / 1e9:,.0f} GFLOP/s" for name, flops in host["matmul_flops"].items())
    return f"{host['device_name']}, {host['cpu_count']} cores, {host['threads']} threads; best matmul: {peaks}"


def _show(comparison: "Comparison") -> None:
    from cifar_lab.terminal.printing import print_table

    print(f"\n{comparison.title}")
    print_table([_cells(row) for row in comparison.plain()["loops"]], left=("loop", "precision", "layout"))
    apart = ", ".join(f"{name} {share:.1%}" for name, share in comparison.apart().items())
    print(f"largest difference of the first {comparison.check_steps} losses from the plain loop's: {apart}", flush=True)


def _cells(row: dict[str, Any]) -> dict[str, str]:
    def times(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return {
        "loop": row["name"],
        "precision": row["precision"],
        "layout": row["memory_format"],
        "images/s": f"{row['images_per_second']:,.0f}",
        "from": f"{row['images_per_second_low']:,.0f}",
        "to": f"{row['images_per_second_high']:,.0f}",
        "x report": times(row["ratio_to_report"]),
        "x best": times(row["ratio_to_best"]),
        **{phase: f"{share:.1%}" for phase, share in row["shares"].items()},
        "GFLOP/s": f"{row['flops_per_second'] / 1e9:,.0f}",
        "of matmul": f"{row['share_of_matmul']:.0%}",
        "MB": f"{row['memory_bytes'] / 1e6:,.0f}",
    }


def _write(results: dict[str, Any], folder: Path) -> None:
    from cifar_lab.benchmark import figures
    from cifar_lab.runs.files import replacing, write_figure

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "benchmark.json") as file:
        file.write(json.dumps(results, indent=2) + "\n")
    speeds = {one["title"]: {row["name"]: row for row in one["loops"]} for one in results["comparisons"]}
    write_figure(lambda: figures.loop_speeds(speeds, _host_line(results["host"])), folder / "benchmark.png", 120)


def main() -> None:
    """Run the command."""
    run_command(benchmark, loses=UNWRITABLE)
