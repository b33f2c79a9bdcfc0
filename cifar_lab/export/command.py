"""Export a trained network: `python -m cifar_lab.export RUN --format onnx`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_lab.export.kinds import Format, Input, check_installed
from cifar_lab.machine import exit_codes
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.output import check_writable
from cifar_lab.trained.arguments import Network, Overrides, check_there, folder_of, load_noting, takes_overrides

if TYPE_CHECKING:
    from cifar_lab.export.writing import Exported, Images


@takes_overrides(without=("precision",))
def export(
    network: Network,
    overrides: Overrides,
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="Format of a file; may be repeated. Default: all formats.")
    ] = None,
    takes: Annotated[
        Input,
        typer.Option("--input", help="Input of a graph: uint8 (N, 32, 32, 3), or float32 (N, 3, 32, 32) from 0 to 1."),
    ] = Input.UINT8,
    output: Annotated[
        Path | None,
        typer.Option(help="Output folder; default: export/ in the run, or <name>-export next to a weight file."),
    ] = None,
    # float32 resolves logits of about 10 to 1e-6, and a different order of summation loses about 10 times as much.
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest accepted difference of a logit between file and network.")
    ] = 1e-4,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: the files, and the images of the comparison.")
    ] = (False),
) -> int:
    """Export a trained network to files, compare each with it and write a model card; exit with 1 if one differs."""
    kinds = list(dict.fromkeys(formats or Format))
    check_installed(kinds)
    check_there([network])
    folder = folder_of(network, "export") if output is None else output
    check_writable(folder)

    from cifar_lab.export import card, writing
    from cifar_lab.export.formats import on_cpu

    overrides = replace(overrides, precision="32-true")  # the precision of the files
    trained = on_cpu(load_noting(network, overrides))
    compared = writing.images(trained)
    done = []
    for exported in writing.export(trained, kinds, takes, folder, compared, tolerance, overrides):
        done.append(exported)
        _show(exported, compared, as_json)
    succeeded = [exported for exported in done if exported.problem is None]
    page = card.write(trained, succeeded, compared, tolerance, folder, overrides) if succeeded else None
    if as_json:
        print(json.dumps(_plain(done, compared, tolerance, page), indent=2))
    elif page is not None:
        print(f"{'model card':{_WIDTH}}  {page}")
    return 0 if len(succeeded) == len(done) else exit_codes.FAILED


_WIDTH = max(map(len, Format))


def _show(exported: "Exported", compared: "Images", as_json: bool) -> None:
    if exported.problem is not None:
        print(f"error: {exported.kind}: {exported.problem}", file=sys.stderr)
    elif not as_json:
        print(
            f"{exported.kind:{_WIDTH}}  {exported.path}  {exported.size / 1e6:,.1f} MB, largest difference "
            f"{exported.difference:.1e} on {compared.words} (batches of 1 and {len(compared.pixels)})",
            flush=True,
        )


def _plain(done: Sequence["Exported"], compared: "Images", tolerance: float, page: Path | None) -> dict[str, Any]:
    files = [
        {
            "format": exported.kind,
            "path": str(exported.path) if exported.problem is None else None,
            "input": exported.takes,
            "bytes": exported.size,
            "sha256": exported.sha256 or None,
            # JSON has no NaN.
            "difference": None if exported.difference != exported.difference else exported.difference,
            "problem": exported.problem,
        }
        for exported in done
    ]
    on = {"images": len(compared.pixels), "generated": compared.generated, "tolerance": tolerance}
    return {"files": files, "compared": on, "card": None if page is None else str(page)}


def main() -> None:
    """Entry point of the command line."""
    run_command(export)
