"""Reads image files of any size and mode as 32x32 pixels."""

import glob
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_lab.machine.exit_codes import UsageError

Resize = Literal["crop", "squash"]
SIDE = 32  # pixels
MOST_PIXELS = 89_478_485  # Pillow warns above this limit: a quarter of a GiB at three bytes each

# Not all of Pillow's formats: its PostScript reader, for example, starts an external program on the file.
_FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TGA": (".tga",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
ENDINGS = frozenset(ending for endings in _FORMATS.values() for ending in endings)


class ImageFileError(UsageError):
    """A file cannot be used as an image; the message is the reason, without the file's name."""


def find_images(names: Sequence[str], bad: Callable[[str, str], None]) -> list[Path]:
    """Find the files of names, folders and patterns, in their order and without duplicates.

    Args:
        names: A file stands for itself, with any extension. A folder stands for all image files in it and below, by
            extension, sorted. A name that does not exist and has `*`, `?` or `[` is a pattern; `**` matches folders.
        bad: Called with a name that matches no file, and the reason.

    Raises:
        ValueError: No name matches a file.
    """
    files: dict[Path, None] = {}
    reasons = {}
    for name in names:
        try:
            files |= dict.fromkeys(_meant(name, bad))
        except ImageFileError as error:
            reasons[name] = str(error)
    if not files:
        lines = [f"{name}: {reason}" for name, reason in reasons.items()]
        raise UsageError(f"no images: {'; '.join(lines) or 'no file is named'}")
    for name, reason in reasons.items():
        bad(name, reason)
    return list(files)


def _meant(name: str, bad: Callable[[str, str], None]) -> list[Path]:
    path = Path(os.path.expanduser(name))  # leaves `~nobody` unchanged; Path.expanduser raises
    if path.is_dir():
        if files := _below(path, bad):
            return files
        raise ImageFileError(f"no file in it or below ends in {', '.join(sorted(ENDINGS))}")
    if os.path.lexists(path):
        return [path]
    if not glob.has_magic(name):
        raise ImageFileError("it does not exist")
    try:  # not `glob.glob`, which follows circular links
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    except ValueError as error:  # such as `a**b`
        raise ImageFileError(str(error)) from None
    visible = [match for match in matches if path.name.startswith(".") or not match.name.startswith(".")]
    if files := [file for match in visible for file in (_below(match, bad) if match.is_dir() else [match])]:
        return files
    raise ImageFileError("no file matches it")


def _below(folder: Path, bad: Callable[[str, str], None]) -> list[Path]:
    """Return image files, sorted; links to folders are not followed, because they may form a cycle."""
    walked = os.walk(folder, onerror=lambda error: bad(str(error.filename), _reason(error)))
    files = [Path(place, name) for place, _, names in walked for name in names]
    return sorted(file for file in files if file.suffix.lower() in ENDINGS and not file.name.startswith("."))


def read_images(
    paths: Iterable[Path], resize: Resize, bad: Callable[[str, str], None]
) -> Iterator[tuple[Path, np.ndarray]]:
    """Read images one by one with `read_image`.

    Args:
        paths: The files.
        resize: `crop` or `squash`.
        bad: Called with the name of a file that cannot be used, and the reason; the file is skipped.

    Yields:
        The file and its image, uint8 `(32, 32, 3)`.
    """
    for path in paths:
        try:
            yield path, read_image(path, resize)
        except ImageFileError as error:
            bad(str(path), str(error))


def read_image(path: Path, resize: Resize = "crop") -> np.ndarray:
    """Read an image and resize it to 32x32.

    The EXIF orientation is applied, and transparent parts become white. Grey, palette, CMYK and 16-bit images become
    8-bit RGB; colour profiles are ignored. Only the first frame of an animation is read. Pillow's bicubic filter
    resizes the image, with antialiasing. A 32x32 image keeps its pixels.

    Args:
        path: A PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, TGA or PNM file.
        resize: `crop` takes the largest centred square, without distortion; `squash` takes the whole image and may
            change its aspect ratio.

    Returns:
        uint8 `(32, 32, 3)`.

    Raises:
        ImageFileError: The file has a different format, is damaged or unreadable, or exceeds `MOST_PIXELS` pixels.
    """
    if not path.is_file():  # reading a pipe would block, and a device may have no end
        raise ImageFileError("it is a folder" if path.is_dir() else "it is not a file")
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]  # Pillow may have been built without some
    try:
        if not path.stat().st_size:
            raise ImageFileError("it is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # of `Image.open`
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # about metadata
            with Image.open(path, formats=formats) as image:  # reads only the header
                image.seek(0)
                seen = _on_white(ImageOps.exif_transpose(image))
                return resized(seen, resize)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageFileError(f"it has more than {MOST_PIXELS:,} pixels, and may be a decompression bomb") from None
    except ImageFileError:
        raise
    except Exception as error:  # damaged bytes can make a decoder raise nearly anything
        raise ImageFileError(_reason(error)) from None


def resized(image: Image.Image, resize: Resize) -> np.ndarray:
    """Resize an image to uint8 `(32, 32, 3)`; for `resize` see `read_image`."""
    function = ImageOps.fit if resize == "crop" else Image.Image.resize
    return np.array(function(image, (SIDE, SIDE), Image.Resampling.BICUBIC))


def _on_white(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, on white."""
    if image.mode == "F" or image.mode.startswith("I"):  # Pillow's own conversion clips all above 255 to white
        values = np.asarray(image)
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65_535:
            raise ImageFileError(f"its {values.dtype} values have no defined white; save it with 8 or 16 bits")
        image = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is not an image of a supported format ({', '.join(_FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split())[:200] or type(error).__name__
