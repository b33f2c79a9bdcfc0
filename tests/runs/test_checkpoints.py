import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cifar_lab.runs import CheckpointError, first_whole, read_checkpoint, write_checkpoint

CHECKPOINT = {"epoch": 3, "state_dict": {"weight": torch.arange(1000.0)}, "lr": [1e-3, None, True, "word"]}


class _Code:
    """Creates a folder when unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.victim),)


def test_a_checkpoint_is_read_back_and_the_previous_one_is_kept(tmp_path: Path) -> None:
    path, previous = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "checkpoints" / "previous.ckpt"
    write_checkpoint(CHECKPOINT, path, previous)
    assert not previous.exists()
    write_checkpoint({**CHECKPOINT, "epoch": 4}, path, previous)
    assert read_checkpoint(path)["epoch"] == 4
    assert read_checkpoint(previous)["epoch"] == 3
    assert torch.equal(read_checkpoint(path)["state_dict"]["weight"], CHECKPOINT["state_dict"]["weight"])  # type: ignore[index]
    assert sorted(path.parent.iterdir()) == [path, previous]


def test_every_flipped_bit_of_the_weights_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(CHECKPOINT, path)
    whole = path.read_bytes()
    begin = whole.index(torch.arange(1000.0).numpy().tobytes())
    for at in range(begin, begin + 4000, 97):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        assert torch.load(path, weights_only=True)["epoch"] == 3  # torch does not notice the damage
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            read_checkpoint(path)


def test_code_in_a_checkpoint_is_refused_without_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # makes Lightning and torch.load(path) run the code
    path, victim = tmp_path / "last.ckpt", tmp_path / "victim"
    torch.save({"state_dict": {}, "callbacks": _Code(victim)}, path)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_checkpoint(path)
    assert not victim.exists()


def test_a_zip_bomb_and_a_file_without_a_dictionary_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(50_000_000))
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match=r"last\.ckpt.* list$"):
        read_checkpoint(path)


def test_the_first_undamaged_checkpoint_is_chosen_and_the_reasons_are_reported(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    assert first_whole([last, previous]) == (None, [])
    write_checkpoint(CHECKPOINT, previous)
    assert first_whole([last, previous]) == (previous, [])
    last.write_bytes(b"")
    path, (reason,) = first_whole([last, previous])
    assert path == previous
    assert str(last) in reason
