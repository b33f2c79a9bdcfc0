"""Test whether compositions or networks differ: `python -m cifar_lab.compare RUN RUN...`, or the folder of a sweep."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs import Record, Run, UnreadableError
from cifar_lab.runs.reading import read_arrays
from cifar_lab.table import compare_folders
from cifar_lab.terminal.command import run_command
from cifar_lab.terminal.printing import note
from cifar_lab.trained import Overrides
from cifar_lab.trained.arguments import load_noting, takes_overrides

if TYPE_CHECKING:
    from cifar_lab.table.pairs import Pair


@takes_overrides(without=("model", "bn", "activation", "negative_slope", "mean", "std", "precision"))
def compare(
    paths: Annotated[list[Path], typer.Argument(help="Runs, or folders to search for runs.", metavar="RUN...")],
    overrides: Overrides,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list of pairs, instead of text.")] = False,
) -> None:
    """Test the best composition against each other one, paired by seed, or by image if each has a single run."""
    comparison = compare_folders(paths)
    from cifar_lab.table.comparison import by_name
    from cifar_lab.table.pairs import by_seed, check_comparable

    records = [record for row in comparison.rows for record in row.finished]
    if len(records) < 2:
        raise UsageError(
            f"{len(records)} finished run in {', '.join(map(str, paths))}, but a comparison needs 2; "
            "runs with the same composition and seed count once"
        )
    check_comparable(records)
    rows = by_name([row for row in comparison.rows if row.finished])
    if len(rows) == 1 or len(rows) == len(records):
        single = {name: row.finished[0] for name, row in rows.items()}
        pairs = _by_image(single if len(rows) > 1 else {f"seed={record.seed}": record for record in records}, overrides)
    else:
        pairs = by_seed(rows)
        if not pairs:
            raise UsageError("no composition shares 2 seeds with the best one; train more, or name one run of each")
        for name in rows.keys() - {one for pair in pairs for one in (pair.first, pair.second)}:
            seeds = ", ".join(str(record.seed) for record in rows[name].finished)
            note(f"{name} (seed {seeds}) is left out: it shares fewer than 2 seeds with the best composition")
    if as_json:
        print(json.dumps(list(map(asdict, pairs)), indent=2))
    else:
        print("\n".join(pair.words() for pair in pairs))


def _by_image(records: dict[str, Record], overrides: Overrides) -> "list[Pair]":
    from cifar_lab.statistics.paired import mcnemar
    from cifar_lab.table.pairs import corrected

    best, *others = sorted(records, key=lambda name: -records[name].result["test/acc"])
    labels, right = {}, {}
    for name, record in records.items():
        assert record.folder is not None  # because the run was found in a folder
        labels[name], predicted = _predictions(Run(record.folder), record, overrides)
        right[name] = predicted == labels[name]
    tested_pairs = []
    for other in others:
        if not np.array_equal(labels[best], labels[other]):
            raise UsageError(f"{records[best].folder} and {records[other].folder} were tested on different images")
        counts = int((right[best] & ~right[other]).sum()), int((right[other] & ~right[best]).sum())
        tested = mcnemar(*counts, len(right[best]))
        shares = float(right[best].mean()), float(right[other].mean())
        tested_pairs.append((best, other, shares, len(right[best]), tested, {"discordant": counts}))
    return corrected("image", tested_pairs)


def _predictions(run: Run, record: Record, overrides: Overrides) -> tuple[np.ndarray, np.ndarray]:
    """Return true and predicted classes of the test images, `(N,)`.

    Read from the run's evaluation if its confusion matrix equals that of the run's own test, else computed.
    """
    own = np.array(record.result.get("confusion_matrix", []))

    def is_own(labels: np.ndarray, predicted: np.ndarray) -> bool:
        counts = np.zeros_like(own)
        np.add.at(counts, (labels, predicted), 1)
        return np.array_equal(counts, own)

    try:
        arrays = read_arrays(run.folder / "evaluation" / "test" / "answers.npz")
        kept = arrays["labels"], arrays["logits"].argmax(1)
        if is_own(*kept):
            return kept
    except (FileNotFoundError, UnreadableError, KeyError, IndexError):
        pass
    from cifar_lab.terminal.progress import with_progress
    from cifar_lab.trained import answer

    trained = load_noting(run.folder, overrides)
    answers = answer(trained, with_progress(trained.datamodule().test_dataloader(), f"{trained.label}: test"))
    labels, predicted = answers.labels.numpy(), answers.logits.argmax(1).numpy()
    accuracy = float((labels == predicted).mean())
    if round(accuracy * len(labels)) != round(record.result["test/acc"] * len(labels)):
        note(f"{run.folder}: accuracy {accuracy:.2%} here, {record.result['test/acc']:.2%} in the run's own test")
    return labels, predicted


def main() -> None:
    """Entry point of the command line."""
    run_command(compare, loses=())


if __name__ == "__main__":
    main()
