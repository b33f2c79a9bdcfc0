"""Image files of every kind, and files that are not images."""

import errno
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifar_lab.data.photos import ImageFileError, find_images, read_image, read_images

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image | np.ndarray, **options: Any) -> Path:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


def refuse(name: str, reason: str) -> None:
    raise AssertionError(f"{name}: {reason}")


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "tga"])
def test_a_32x32_image_keeps_its_pixels(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"image.{ending}", PIXELS)
    for read in (read_image(path, "crop"), read_image(path, "squash")):
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, PIXELS)


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_a_photograph_is_turned_upright(tmp_path: Path, orientation: int, turned: int) -> None:
    upright = np.zeros((64, 64, 3), np.uint8)
    upright[:32, :32] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = orientation  # 6: the camera was turned, so the picture must be turned clockwise once
    path = save(tmp_path / "photo.jpg", np.rot90(upright, turned).copy(), exif=exif, quality=95, subsampling=0)
    read = read_image(path).astype(int)
    assert read[:14, :14, 0].min() > 220
    assert read[18:].max() < 40 and read[:, 18:].max() < 40


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_parts_are_white(tmp_path: Path, mode: str) -> None:
    image = np.zeros((32, 32, 4), np.uint8)
    image[:, 16:, 3] = 255  # the right half is black, the left transparent
    image[0, 0, 3] = 128
    ending = "tiff" if mode == "PA" else "png"
    made = Image.fromarray(image)
    read = read_image(save(tmp_path / f"image.{ending}", made if mode == "RGBA" else made.convert("LA")))
    assert (read[1:, :16] == 255).all()
    assert (read[:, 16:] == 0).all()
    assert abs(int(read[0, 0, 0]) - 127) <= 1


def test_palettes_keep_their_colours_and_the_transparent_one_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 0)
    first, second, white = [10, 20, 30], [200, 100, 50], [255, 255, 255]
    image.putpalette([*first, *second])
    image.paste(1, (0, 0, 16, 32))
    for name, transparency, left, right in (
        ("opaque.png", {}, second, first),
        ("number.png", {"transparency": 0}, second, white),
        ("bytes.png", {"transparency": bytes([255, 0])}, white, first),
        ("image.gif", {"transparency": 0}, second, white),
    ):
        read = read_image(save(tmp_path / name, image, **transparency))
        assert (read[0, 0].tolist(), read[0, 31].tolist()) == (left, right)


def test_grey_of_any_depth_is_grey(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65_535, 32 * 32).reshape(32, 32).round().astype(np.uint16)
    expected = np.round(ramp / 257).astype(np.uint8)
    for name in ("deep.png", "deep.tiff", "deep.pgm"):
        read = read_image(save(tmp_path / name, ramp))
        np.testing.assert_array_equal(read, np.dstack([expected] * 3))
    read = read_image(
        save(tmp_path / "big_endian.tiff", Image.frombytes("I;16B", (32, 32), ramp.astype(">u2").tobytes()))
    )
    np.testing.assert_array_equal(read[..., 0], expected)
    np.testing.assert_array_equal(read_image(save(tmp_path / "grey.png", expected))[..., 2], expected)
    bits = read_image(save(tmp_path / "bits.png", Image.fromarray(expected).convert("1")))
    assert set(np.unique(bits)) == {0, 255}


def test_cmyk_and_ycbcr_colours_are_converted(tmp_path: Path) -> None:
    cyan, red = Image.new("CMYK", (32, 32), (255, 0, 0, 0)), Image.new("RGB", (32, 32), "red").convert("YCbCr")
    for name, image, colour, apart in (
        ("print.jpg", cyan, [0, 255, 255], 4),
        ("print.tiff", cyan, [0, 255, 255], 0),
        ("video.tiff", red, [255, 0, 0], 3),
    ):
        np.testing.assert_allclose(read_image(save(tmp_path / name, image))[16, 16], colour, atol=apart)


def test_the_first_frame_of_an_animation_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    for ending, options in (("gif", {}), ("png", {}), ("webp", {"lossless": True}), ("tiff", {})):
        path = save(tmp_path / f"film.{ending}", frames[0], save_all=True, append_images=frames[1:], **options)
        assert read_image(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (31, 33), (640, 17), (1500, 1000)])
def test_any_size_becomes_32x32(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "image.png", Image.new("RGB", size, (9, 99, 200)))
    for read in (read_image(path, "crop"), read_image(path, "squash")):
        assert read.shape == (32, 32, 3)
        assert (read == (9, 99, 200)).all()


def test_crop_takes_the_middle_and_squash_the_whole_image(tmp_path: Path) -> None:
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, :64], wide[:, 64:128], wide[:, 128:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    path = save(tmp_path / "wide.png", wide)
    assert (read_image(path, "crop")[:, 1:-1] == (0, 255, 0)).all()
    squashed = read_image(path, "squash")
    assert squashed[:, :9, 0].min() > 200 and squashed[:, 12:20, 1].min() > 200 and squashed[:, 23:, 2].min() > 200


def test_downscaling_averages_pixels(tmp_path: Path) -> None:
    fine = np.indices((256, 256)).sum(0) % 2 * 255  # every second pixel; subsampling would pick either colour
    read = read_image(save(tmp_path / "fine.png", fine.astype(np.uint8)))
    np.testing.assert_allclose(read, 127.5, atol=2)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (9460, 9460)])  # Pillow: an error, a warning
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, width: int, height: int) -> None:
    path = save(tmp_path / "bomb.png", PIXELS)
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(path.read_bytes()[:12] + header + struct.pack(">I", zlib.crc32(header)) + path.read_bytes()[33:])
    tracemalloc.start()
    with pytest.raises(ImageFileError, match="89,478,485"):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def bad_files(folder: Path) -> dict[str, str]:
    """Write unusable files, and return the fact that each reason names, if there is one."""
    pixels = RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    whole, photo = (save(folder / name, pixels).read_bytes() for name in ("whole.png", "photo.jpg"))
    contents = {
        "empty.png": (b"", ""),
        "text.png": (b"not an image", "PNG"),
        "cut.png": (whole[: len(whole) // 2], "truncated"),
        "cut.jpg": (photo[: len(photo) // 2], "truncated"),
        "bent.png": (whole[:100] + bytes(100) + whole[200:], "broken"),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "PNG"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to("nowhere")
    save(folder / "float.tiff", np.full((32, 32), 0.5, np.float32))
    save(folder / "deep.tiff", np.full((32, 32), 70_000, np.int32))
    others = {"folder.png": "", "pipe.png": "", "dangling.png": "", "float.tiff": "float32", "deep.tiff": "int32"}
    return {**{name: fact for name, (_, fact) in contents.items()}, **others}


def test_a_file_that_is_not_an_image_gives_a_line_and_the_rest_is_read(tmp_path: Path) -> None:
    told: dict[str, str] = {}
    expected = bad_files(tmp_path)
    paths = [tmp_path / name for name in (*expected, "whole.png")]
    read = list(read_images(paths, "crop", lambda name, reason: told.update({Path(name).name: reason})))
    assert [path.name for path, _ in read] == ["whole.png"]
    assert told.keys() == expected.keys()
    for name, fact in expected.items():
        assert told[name] and fact in told[name], told[name]
        assert "\n" not in told[name] and str(tmp_path) not in told[name]


def test_a_file_without_read_permission_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "image.png")

    path = save(tmp_path / "image.png", PIXELS)
    monkeypatch.setattr(Image, "open", denied)
    with pytest.raises(ImageFileError, match=f"(?i)^{os.strerror(errno.EACCES)}$"):
        read_image(path)


def test_files_folders_and_patterns_are_found_in_order_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["b/2.png", "b/1.JPG", "b/c/3.webp", "b/notes.txt", "b/.hidden.png", "a.png", "odd_ending.dat"]
    for name in (*names, "image[1].png", "~nobody.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("b/c/around").symlink_to(tmp_path / "b")

    def found(*names: str) -> list[str]:
        relative = [str(path) for path in find_images(names, refuse)]
        absolute = find_images([str(tmp_path / name) for name in names], refuse)
        assert relative == [str(path.relative_to(tmp_path)) for path in absolute]
        return relative

    assert found("b") == ["b/1.JPG", "b/2.png", "b/c/3.webp"]
    assert found("b/*.png", "a.png", "b/2.png") == ["b/2.png", "a.png"]
    assert found("**/*.webp") == ["b/c/3.webp"]
    assert found("[ab]*") == ["a.png", "b/1.JPG", "b/2.png", "b/c/3.webp"]
    assert found("b/.*") == ["b/.hidden.png"]
    for name in ("odd_ending.dat", "image[1].png", "~nobody.png"):
        assert found(name) == [name]


def test_names_without_images_give_a_line_each_and_an_error_if_no_name_has_any(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "a.png").touch()
    (tmp_path / "nothing").mkdir()
    names = [str(tmp_path / name) for name in ("a.png", "x.png", "*.gif", "nothing", "a**b.png")]
    assert find_images(names, lambda name, reason: told.append(name)) == [tmp_path / "a.png"]
    assert told == names[1:]
    with pytest.raises(ValueError, match=r"x\.png: .*\*\.gif: .*nothing: .*\.png.*a\*\*b\.png: "):
        find_images(names[1:], refuse)


def test_a_format_missing_from_pillow_does_not_affect_other_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "image.png", PIXELS)
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    np.testing.assert_array_equal(read_image(path), PIXELS)
