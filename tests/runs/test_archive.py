from pathlib import Path

import numpy as np
import pytest

from cifar_lab.runs import Archive, UnreadableError


def test_the_archive_keeps_losses_and_probes_in_single_precision(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    steps = {"loss": np.array([2.5, 1.25, np.inf]), "grad_norm": np.ones(3)}
    probes = {"step": np.array([0, 100]), "beta": np.array([[1e50, np.nan], [0.1, 2.0]])}
    archive.add_arrays("ab12", steps, probes)
    kept = archive.steps("ab12")
    assert kept.keys() == {"loss"}
    assert kept["loss"].dtype == np.float32
    np.testing.assert_array_equal(kept["loss"], [2.5, 1.25, np.inf])
    kept = archive.probes("ab12")
    assert kept["step"].dtype == np.int64
    np.testing.assert_array_equal(kept["beta"], np.array([[np.inf, np.nan], [0.1, 2.0]], np.float32))


def test_what_is_kept_stays_as_it_is(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.add_arrays("ab12", {"loss": np.zeros(2)}, None)
    archive.add_arrays("ab12", {"loss": np.ones(2)}, {"step": np.arange(2)})
    assert archive.steps("ab12")["loss"].tolist() == [0, 0]
    assert archive.probes("ab12")["step"].tolist() == [0, 1]


def test_what_is_not_there_and_what_is_damaged_are_told_apart(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    with pytest.raises(FileNotFoundError):
        archive.steps("ab12")
    archive.add_arrays("ab12", {"loss": np.zeros(2)}, None)
    (archive.steps_folder / "ab12.npz").write_bytes(b"PK, and no more")
    with pytest.raises(UnreadableError, match=r"ab12\.npz"):
        archive.steps("ab12")


def test_both_studies_take_less_than_five_megabytes(tmp_path: Path) -> None:
    """At random numbers, of which nothing can be compressed: 24 runs of 7,040 steps, 12 of 157 probes, 12 of 15,000."""
    archive, drawn = Archive(tmp_path), np.random.default_rng(0)
    for number in range(24):
        archive.add_arrays(f"band{number}", {"loss": drawn.normal(size=7040)}, None)
    shapes = {
        **{f"step_size_{name}": (157, 12) for name in range(7)},
        **{f"relative_{name}": (157, 4) for name in range(7)},
    }
    for number in range(12):
        probes = {name: drawn.normal(size=shape) for name, shape in shapes.items()}
        archive.add_arrays(f"probed{number}", {"loss": drawn.normal(size=15000)}, probes)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.npz")) < 5e6
