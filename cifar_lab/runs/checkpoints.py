"""Checkpoints, written completely or not at all, and read only if they are intact and contain no code."""

import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lab.machine.exit_codes import UsageError
from cifar_lab.runs.files import replacing

if TYPE_CHECKING:
    from torch import nn


_BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first bytes of files of torch before 1.6


class CheckpointError(UsageError):
    """A checkpoint is damaged, or contains more than plain values and tensors."""


def write_checkpoint(checkpoint: dict[str, Any], path: Path, previous: Path | None = None) -> None:
    """Write a checkpoint; `path` or `previous` is complete even if the process is killed.

    Args:
        checkpoint: Plain values and tensors.
        path: Its folder is created, but no folder above it: a run's folder may have been moved.
        previous: New path of the checkpoint that was at `path`; None to discard it.

    Raises:
        OSError: The file cannot be written; the old file is kept.
    """
    import torch

    path.parent.mkdir(exist_ok=True)
    # Not directly into the file, because torch's error does not report that the disk is full.
    contents = io.BytesIO()
    torch.save(checkpoint, contents)
    with replacing(path, "wb", durable=True, keep=previous) as file:
        file.write(contents.getbuffer())


def write_weights(model: "nn.Module", path: Path) -> None:
    """Write a network's plain state dict, contiguous and on the CPU; the same weights give the same bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_checkpoint(state, path)


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, also of torch before 1.6, with tensors at `map_location` as in `torch.load`.

    Raises:
        CheckpointError: The file is damaged, or not a checkpoint; the message names it.
        FileNotFoundError: The file does not exist.
    """
    import torch

    with path.open("rb") as file:  # a file that cannot be opened is not damaged
        is_zip = file.read(len(_BEFORE_ZIP)) != _BEFORE_ZIP
    try:
        if is_zip:
            _check_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused below
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes can make the unpickler raise nearly anything
        if match := re.search(r"GLOBAL ([\w.]+)", str(error)):
            how = "its author can save the state dict alone, torch.save(model.state_dict(), FILE)"
            raise CheckpointError(f"{path} contains Python objects ({match[1]}), which may run code; {how}") from None
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path} is damaged, or not a checkpoint: {words}") from None
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it contains a {type(checkpoint).__name__}")
    return checkpoint


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        # torch stores without compression, so no entry can expand beyond the file. It does not check CRCs itself.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError(f"{path} is not a checkpoint: parts of it are compressed")
        if archive.testzip() is not None:
            raise CheckpointError(f"{path} is damaged: its contents do not match their checksums")


def first_whole(
    paths: Iterable[Path], check: Callable[[Path], object] = read_checkpoint
) -> tuple[Path | None, list[str]]:
    """Return the first existing checkpoint for which `check` does not raise a `UsageError`.

    Returns:
        Its path, or None; and the distinct reasons why those before it cannot be used.
    """
    reasons: dict[str, None] = {}
    for path in paths:
        if path.exists():
            try:
                check(path)
            except UsageError as error:
                reasons[str(error)] = None
            else:
                return path, list(reasons)
    return None, list(reasons)
