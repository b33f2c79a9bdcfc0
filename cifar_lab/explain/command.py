"""Explain a trained network: `python -m cifar_lab.explain RUN --mistakes 16`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cifar_lab.data.files import DataError
from cifar_lab.data.photos import Resize, find_images, read_images
from cifar_lab.machine import exit_codes
from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.output import writable
from cifar_lab.terminal.printing import Complaints, note, print_table, printable
from cifar_lab.trained.arguments import Network, Overrides, check_there, folder_of, load_noting, takes_overrides

if TYPE_CHECKING:
    from cifar_lab.explain.explaining import Example, Explained
    from cifar_lab.trained import Trained

_MOST_SHOWN = 64  # images in a figure; more do not fit on a page


@takes_overrides()
def explain(
    network: Network,
    overrides: Overrides,
    pictures: Annotated[
        list[str] | None, typer.Argument(help="Image files, folders or patterns for Grad-CAM.", metavar="IMAGE")
    ] = None,
    mistakes: Annotated[
        int | None, typer.Option(min=1, max=_MOST_SHOWN, help="Grad-CAM of the test set's most confident mistakes.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer for Grad-CAM; default: the last convolution larger than 1x1.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Number of training images to measure activations on.")] = 2000,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="A run whose dead units are compared; may be repeated.", metavar="RUN|WEIGHTS"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Output folder; default: explanation/ in the run.")] = None,
    resize: Annotated[Resize, typer.Option(help="As for predict.")] = "crop",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the results, and the files.")] = False,
) -> int:
    """Draw Grad-CAM maps, first filters, activations and dead units of a trained network."""
    if pictures and mistakes:
        raise UsageError("images and --mistakes: name one of them")
    check_there([network, *(against or ())])
    complaints = Complaints()
    paths = find_images(pictures, complaints) if pictures else []
    if len(paths) > _MOST_SHOWN:
        raise UsageError(f"{len(paths):,} images; a figure has room for {_MOST_SHOWN}")
    trained = load_noting(network, overrides)
    # Options of a bare weight file apply to the first network; the others must describe themselves.
    others = [
        load_noting(path, Overrides(data_root=overrides.data_root, allow=overrides.allow)) for path in against or ()
    ]
    folder = writable(folder_of(network, "explanation"), output)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    from cifar_lab.explain.explaining import Explained, mistaken, of_files

    if mistakes:
        examples = mistaken(trained, mistakes)
        if len(examples) < mistakes:
            note(f"the test set has {len(examples)} mistakes, not {mistakes}")
    else:
        examples = of_files(trained, list(read_images(paths, resize, complaints)))
    explained = Explained(trained.label, examples)
    if folder is not None:
        _explain_pictures(trained, layer, folder, explained)
    _explain_units(trained, others, images, folder, explained, may_lack_data=bool(paths) and not others)
    _print_json(explained) if as_json else _print(explained)
    return exit_codes.FAILED if complaints.count else 0


def _explain_pictures(trained: "Trained", layer: str | None, folder: Path, explained: "Explained") -> None:
    from cifar_lab.explain.explaining import explain_examples, explain_filters

    if explained.examples:
        explained.files += explain_examples(trained, explained.examples, layer, folder)
    elif layer is not None:
        note("--layer is for Grad-CAM, which has no images; name some, or --mistakes 16")
    if (filters := explain_filters(trained, folder)) is not None:
        explained.files += filters
    else:
        note("no filters.png: the input of the first convolution is not red, green and blue")


def _explain_units(
    trained: "Trained",
    others: "Sequence[Trained]",
    count: int,
    folder: Path | None,
    explained: "Explained",
    *,
    may_lack_data: bool,
) -> None:
    from cifar_lab.explain.explaining import explain_units, measured

    try:
        if may_lack_data and trained.data_root is None and not trained.data_is_here:
            raise DataError("the data is not here; name its folder by --data-root")  # never downloaded for this
        layers, row = measured(trained, count, note)
    except (DataError, OSError) as error:
        if not may_lack_data:
            raise
        note(f"activations are left out: {error}")
        return
    explained.images = row["images"]
    networks = [row, *(measured(other, count, note)[1] for other in others)]
    if not layers:
        note("activations are left out: no activation is a module with units; function calls cannot be measured")
        return
    explained.layers, explained.networks = layers, networks
    if folder is not None:
        explain_units(explained, folder)


def _print_json(explained: "Explained") -> None:
    values = {
        "network": explained.network,
        "images": explained.images,
        "examples": [
            {"image": one.name, "true": one.true, "predicted": one.predicted, "probability": one.probability}
            for one in explained.examples
        ],
        "layers": [layer.row() for layer in explained.layers],
        "networks": explained.networks,
        "files": [str(file) for file in explained.files],
    }
    print(json.dumps(values, indent=2))


def _print(explained: "Explained") -> None:
    tables = (
        ([_example_row(example) for example in explained.examples], ("image", "true", "predicted")),
        ([_layer_row(layer.row()) for layer in explained.layers], ("layer", "activation")),
        ([_network_row(row) for row in explained.networks], ("network", "activation")),
    )
    for rows, left in tables:
        if rows:
            print_table(rows, left=left)
            print()
    for file in explained.files:
        print(f"- {file}")


def _example_row(one: "Example") -> dict[str, str]:
    answer = f"{one.predicted} {one.probability:.1%}"
    return {"image": printable(one.name), "true": one.true or "-", "predicted": answer}


def _layer_row(row: Mapping[str, Any]) -> dict[str, str]:
    numbers = {"units": f"{row['units']:,}", "mean": f"{row['mean']:.3g}", "std": f"{row['std']:.3g}"}
    shares = {name.replace("_", " "): f"{row[name]:.1%}" for name in ("negative_inputs", "zeros")}
    return {"layer": row["layer"], "activation": row["activation"], **numbers, **shares, **_units(row)}


def _network_row(row: Mapping[str, Any]) -> dict[str, str]:
    numbers = {name: f"{row[name]:,}" for name in ("images", "units")}
    return {"network": row["network"], "activation": row["activation"], **numbers, **_units(row)}


def _units(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.replace("_", " "): f"{row[f'{name}_units']:,} ({row[name]:.2%})" if row["units"] else "-"
        for name in ("negative_only", "dead")
    }


def main() -> None:
    """Entry point of the command line."""
    run_command(explain)
