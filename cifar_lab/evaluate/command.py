"""Evaluate trained networks: `python -m cifar_lab.evaluate RUN`."""

import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cifar_lab.evaluate import corruptions
from cifar_lab.machine import exit_codes
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.output import writable
from cifar_lab.trained.arguments import Networks, Overrides, folder_of, load_noting, takes_overrides, with_runs_below

if TYPE_CHECKING:
    from cifar_lab.evaluate.evaluating import Settings


@takes_overrides()
def evaluate(
    networks: Networks,
    overrides: Overrides,
    split: Annotated[Literal["test", "val"], typer.Option(help="val: the images held out of training.")] = "test",
    tta: Annotated[
        Literal["flip", "flip_translate"] | None,
        typer.Option(help="Test-time augmentation: average the logits over mirror images, or also over translations."),
    ] = None,
    reestimate_bn: Annotated[
        bool, typer.Option("--reestimate-bn", help="Estimate the BatchNorm statistics again on the training images.")
    ] = False,
    test_set: Annotated[
        Literal["cifar10_1"] | None,
        typer.Option(help="For CIFAR-10 networks: the 2,000 images of CIFAR-10.1 v6 as the test set."),
    ] = None,
    corrupted: Annotated[
        Path | None,
        typer.Option("--corruptions", help="For CIFAR-10 networks: the folder of CIFAR-10-C, to evaluate on it too."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Output folder, with a subfolder for each of several networks; default: evaluation/ in the run, or "
            "next to the weight file."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list of results, instead of text.")] = False,
) -> int:
    """Evaluate trained networks: accuracy, calibration, mistakes; exit with 1 if one cannot be evaluated."""
    paths = with_runs_below(networks)
    outputs = _outputs(paths, output)
    if split == "val" and (test_set or corrupted):
        raise UsageError("--split val: --test-set and --corruptions are test images; leave one of them out")
    if corrupted is not None:
        corruptions.files(corrupted)
    from cifar_lab.evaluate.evaluating import Settings

    settings = Settings(split, tta, reestimate_bn, test_set, corrupted)
    results = []
    for path, place in zip(paths, outputs, strict=True):
        try:
            results.append(_evaluate(path, overrides, settings, place, quiet=as_json))
        except (UsageError, OSError) as error:
            if len(paths) == 1:
                raise
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        gc.collect()  # the network and its images form a cycle, and the next one may need the memory
    if as_json:
        print(json.dumps(results, indent=2))
    elif len(results) > 1:
        _compare(results)
    return 0 if len(results) == len(paths) else exit_codes.FAILED


def _outputs(paths: Sequence[Path], output: Path | None) -> list[Path | None]:
    """Return the output folder of each network under `--output`; several keep the relative paths of their networks."""
    if output is None or len(paths) == 1:
        return [output] * len(paths)
    places = [folder_of(path, "evaluation").resolve() for path in paths]
    above = os.path.commonpath([place.parent.parent for place in places])
    return [output / place.relative_to(above) for place in places]


def _evaluate(
    path: Path, overrides: Overrides, settings: "Settings", output: Path | None, *, quiet: bool
) -> dict[str, Any]:
    from cifar_lab.evaluate.evaluating import evaluate as measure
    from cifar_lab.evaluate.evaluating import write

    folder = writable(folder_of(path, "evaluation") / settings.name, output)
    evaluation = measure(load_noting(path, overrides), settings)
    files = [] if folder is None else write(evaluation, folder)
    result = {**evaluation.result, "files": [os.path.relpath(file) for file in files]}
    if not quiet:
        _show(result)
    return result


def _show(result: dict[str, Any]) -> None:
    from cifar_lab.terminal.printing import print_table

    own, images = result["own_test_acc"], result["images"]
    note = ""
    if own is not None:
        is_same = round(own * images) == round(result["acc"] * images)
        note = ", as in the run's own test" if is_same else f", {own:.2%} in the run's own test"
    top5 = f", top-5 {result['acc_top5']:.2%}" if "acc_top5" in result else ""
    scaled = "no temperature: no held-out images to fit it on" if result["split"] == "test" else ""
    if result["temperature"] is not None:
        scaled = f"ECE {result['ece_scaled']:.2%}, Brier {result['brier_scaled']:.4f}, NLL {result['nll_scaled']:.4f}"
        scaled += f"; temperature {result['temperature']:.3f}, fitted on {result['temperature_fitted_on']}"
    lines = {
        "network": f"{result['network']}: {result['architecture']}, {result['precision']}",
        f"{result['split']} accuracy": f"{result['acc']:.2%} (95 % interval {result['acc_low']:.2%} to "
        f"{result['acc_high']:.2%}, {images:,} images of {result['data']}){note}{top5}",
        "loss": f"{result['loss']:.4f}, cross-entropy {result['nll']:.4f} nats",
        "calibration": f"ECE {result['ece']:.2%}, Brier {result['brier']:.4f}, NLL {result['nll']:.4f}",
        **({"  scaled": scaled} if scaled else {}),
        **({"  note": result["calibration_note"]} if result["calibration_note"] else {}),
        **({"folder": os.path.dirname(result["files"][0])} if result["files"] else {}),
    }
    for name, text in lines.items():
        print(f"{name:14} {text}")
    rows = [
        {name: f"{value:.2%}" if isinstance(value, float) else f"{value}" for name, value in row.items()}
        for row in result["per_class"]
    ]
    print_table(rows, left=("class",))
    if "corruptions" in result:
        print_table(corruptions.by_severity(result["corruptions"]), left=("corruption",))


def _compare(results: list[dict[str, Any]]) -> None:
    from cifar_lab.terminal.printing import print_table

    names = {"acc": "accuracy", "acc_low": "from", "acc_high": "to", "ece": "ECE", "ece_scaled": "ECE scaled"}
    rows = [
        {"network": one["network"] + (" *" if one["calibration_note"] else "")}
        | {name: "-" if one[key] is None else f"{one[key]:.2%}" for key, name in names.items()}
        | {"NLL": f"{one['nll']:.4f}"}
        for one in results
    ]
    print_table(rows, left=("network",))
    for note in dict.fromkeys(one["calibration_note"] for one in results if one["calibration_note"]):
        print(f"* {note}")


def main() -> None:
    """Entry point of the command line."""
    run_command(evaluate)
