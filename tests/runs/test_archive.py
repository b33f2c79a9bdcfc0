from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from cifar_lab.runs import Archive, Record, UnreadableError
from cifar_lab.runs.reading import read_arrays
from cifar_lab.runs.record import Numbers

PROBES = {"loss": np.ones(2), "seconds": np.ones(2)}


def _record(
    folder: Path, steps: Mapping[str, np.ndarray], probes: Mapping[str, np.ndarray] | None = None, name: str = "ab12"
) -> Record:
    """Return a record with step losses, and with probes if given."""
    numbers = Numbers(*(folder / file for file in ("metrics.csv", "steps.npz", "probes.npz", "dead_units.csv")))
    folder.mkdir()
    for path, arrays in ((numbers.steps, steps), (numbers.probes, probes)):
        if arrays is not None:
            np.savez(path, **arrays)  # type: ignore[arg-type]
    return Record("finished", identity=name, folder=folder, numbers=numbers)


def test_the_archive_keeps_losses_and_probes_in_single_precision(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    steps = {"loss": np.array([2.5, 1.25, np.inf]), "grad_norm": np.ones(3)}
    probes = {**PROBES, "step": np.array([0, 100]), "beta": np.array([[1e50, np.nan], [0.1, 2.0]])}
    archive.add_arrays(_record(tmp_path / "run", steps, probes))
    numbers = archive.numbers("ab12")
    kept = read_arrays(numbers.steps)
    assert kept.keys() == {"loss"}
    assert kept["loss"].dtype == np.float32
    np.testing.assert_array_equal(kept["loss"], [2.5, 1.25, np.inf])
    kept = read_arrays(numbers.probes)
    assert kept["step"].dtype == np.int64
    np.testing.assert_array_equal(kept["beta"], np.array([[np.inf, np.nan], [0.1, 2.0]], np.float32))


def test_kept_results_stay_unchanged(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.add_arrays(_record(tmp_path / "a", {"loss": np.zeros(2)}))
    archive.add_arrays(_record(tmp_path / "b", {"loss": np.ones(2)}, {**PROBES, "step": np.arange(2)}))
    numbers = archive.numbers("ab12")
    assert read_arrays(numbers.steps)["loss"].tolist() == [0, 0]
    assert read_arrays(numbers.probes)["step"].tolist() == [0, 1]


def test_missing_and_damaged_numbers_are_none_but_damaged_curves_of_the_archive_are_an_error(tmp_path: Path) -> None:
    run = _record(tmp_path / "run", {"loss": np.zeros(2)})
    kept = Record("finished", numbers=run.numbers)
    assert (run.metrics, kept.metrics, run.probes) == (None, None, None)
    assert run.numbers is not None
    run.numbers.probes.write_bytes(b"PK, and no more")
    run.numbers.metrics.write_text("no table\n")
    run, kept = (Record("finished", folder=folder, numbers=run.numbers) for folder in (tmp_path, None))
    assert (run.metrics, run.probes, kept.probes) == (None, None, None)
    with pytest.raises(UnreadableError, match=r"metrics\.csv"):
        _ = kept.metrics


@pytest.mark.parametrize("name", ["0123456789012345", "12345678901234e5"])
def test_a_fingerprint_that_looks_like_a_number_is_kept_as_text(tmp_path: Path, name: str) -> None:
    run = _record(tmp_path / "run", {"loss": np.zeros(2)}, name=name)
    assert run.numbers is not None
    run.numbers.dead_units.write_text(f"fingerprint,images\n{name},2000\n")
    assert run.dead_units == {"fingerprint": name, "images": 2000}
