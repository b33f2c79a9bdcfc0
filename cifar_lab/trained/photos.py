"""Image files of any size and mode, as the 32x32 pixels that a network is trained on."""

import glob
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Resize = Literal["crop", "squash"]
SIDE = 32  # pixels
MOST_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a GiB at three bytes each

# Not all that Pillow knows: its reader of PostScript, for one, starts another program on the file.
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


class ImageFileError(ValueError):
    """A file cannot be used as an image; the message is the reason, without the file's name."""


def find_images(names: Sequence[str], bad: Callable[[str, str], None]) -> list[Path]:
    """The files that names mean, in the order of the names, each once.

    Args:
        names: A file is itself, whatever its ending; a folder is all image files in it and below, by their endings,
            sorted; another name with `*`, `?` or `[` is a pattern, in which `**` is any folders.
        bad: Called with a name that means nothing, and why.

    Raises:
        ValueError: None of them means any file.
    """
    found: dict[Path, None] = {}
    reasons = {}
    for name in names:
        try:
            found |= dict.fromkeys(_meant(name, bad))
        except ImageFileError as error:
            reasons[name] = str(error)
    if not found:
        told = [f"{name}: {reason}" for name, reason in reasons.items()]
        raise ValueError(f"no images: {'; '.join(told) or 'no file is named'}")
    for name, reason in reasons.items():
        bad(name, reason)
    return list(found)


def _meant(name: str, bad: Callable[[str, str], None]) -> list[Path]:
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # `~nobody`, which is a file's name then
        path = Path(name)
    if path.is_dir():
        if not (files := _below(path, bad)):
            raise ImageFileError(f"no file in it or below ends in {', '.join(sorted(ENDINGS))}")
        return files
    if os.path.lexists(path):
        return [path]
    if not glob.has_magic(name):
        raise ImageFileError("it does not exist")
    # Not `glob.glob`, which follows links around in circles.
    pattern = str(path.relative_to(path.anchor))
    shown = path.name.startswith(".")
    try:
        matches = sorted(
            match for match in Path(path.anchor or ".").glob(pattern) if shown or not match.name.startswith(".")
        )
    except ValueError as error:  # such as `a**b`
        raise ImageFileError(str(error)) from None
    files = [file for match in matches for file in (_below(match, bad) if match.is_dir() else [match])]
    if not files:
        raise ImageFileError("no file is like it")
    return files


def _below(folder: Path, bad: Callable[[str, str], None]) -> list[Path]:
    """Image files, sorted; a link to a folder is not followed, as it may lead around in circles."""

    def unreadable(error: OSError) -> None:
        bad(str(error.filename), _reason(error))

    walked = os.walk(folder, onerror=unreadable)
    found = [Path(place, name) for place, _, names in walked for name in names if _is_image_name(name)]
    return sorted(found)


def _is_image_name(name: str) -> bool:
    return Path(name).suffix.lower() in ENDINGS and not name.startswith(".")


def read_images(
    paths: Iterable[Path], resize: Resize, bad: Callable[[str, str], None]
) -> Iterator[tuple[Path, np.ndarray]]:
    """Read images one after another; nothing is kept of those before.

    Args:
        paths: Of the files.
        resize: As for `read_image`.
        bad: Called with the name of a file that cannot be used, and why; the others go on.

    Yields:
        The file, and uint8 `(32, 32, 3)`.
    """
    for path in paths:
        try:
            yield path, read_image(path, resize)
        except ImageFileError as error:
            bad(str(path), str(error))


def read_image(path: Path, resize: Resize = "crop") -> np.ndarray:
    """An image as it is seen, upright and on white, at the size that networks take.

    Turned as its EXIF orientation says; transparent parts on white; grey, palettes, CMYK and 16 bits become 8 bits of
    red, green and blue, without regard to colour profiles; of an animation the first frame. It is resized by Pillow's
    bicubic filter, which, where it makes smaller, spans all pixels that become one, so that nothing aliases. A 32x32
    image keeps its pixels.

    Args:
        path: A PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, TGA or PNM file.
        resize: `crop` takes the largest square in the middle, so that nothing is distorted; `squash` takes the whole
            image, whatever its proportions.

    Returns:
        uint8 `(32, 32, 3)`.

    Raises:
        ImageFileError: It is no such file, damaged, not readable, or has more than `MOST_PIXELS`.
    """
    if not path.is_file():  # a pipe would be waited for, a device read without end
        raise ImageFileError("it is a folder" if path.is_dir() else "it is no file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Of metadata, which nothing here reads but for the orientation.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            with Image.open(path, formats=_formats()) as image:  # reads the header alone
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                return np.array(_resized(_on_white(_upright(image)), resize))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageFileError(f"it has more than {MOST_PIXELS:,} pixels, and may be a decompression bomb") from None
    except ImageFileError:
        raise
    except Exception as error:  # damaged bytes can make a decoder raise nearly anything
        raise ImageFileError(_reason(error, path)) from None


@cache
def _formats() -> list[str]:
    """Of `_FORMATS` those that this Pillow was built with."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _upright(image: Image.Image) -> Image.Image:
    image.seek(0)
    return ImageOps.exif_transpose(image)


def _on_white(image: Image.Image) -> Image.Image:
    """Any mode as RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _of_16_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")


def _of_16_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8; Pillow's own conversion would take all above 255 for white."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65_535:
        raise ImageFileError(f"its {values.dtype} values have no agreed white; save it with 8 or 16 bits")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _resized(image: Image.Image, resize: Resize) -> Image.Image:
    if resize == "squash":
        return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BICUBIC)


def _reason(error: Exception, path: Path | None = None) -> str:
    if isinstance(error, UnidentifiedImageError):
        if path is not None and not path.stat().st_size:
            return "it is empty"
        return f"it is no image of a known format ({', '.join(_FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split())[:200] or type(error).__name__
