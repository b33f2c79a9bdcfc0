"""CIFAR-10's files are read pixel by pixel into the right place, and any other file is refused in one line."""

import functools
import hashlib
import itertools
import os
import pickle
import re
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from cifar_lab.data import cifar10, files
from cifar_lab.data.cifar10 import load, load_once
from cifar_lab.data.images import DataError, LabelledImages
from tests.conftest import holds
from tests.data.layouts import python2_file

COUNT = 20
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]

Batches = dict[str, tuple[np.ndarray, list[int]]]


def random_batches(seed: int = 0) -> Batches:
    """Random planes `(COUNT, 3072)` uint8 and labels for each file."""
    generator = np.random.default_rng(seed)
    return {
        name: (generator.integers(256, size=(COUNT, 3072), dtype=np.uint8), generator.integers(10, size=COUNT).tolist())
        for name in NAMES
    }


def write_binary(folder: Path, batches: Batches) -> Path:
    folder.mkdir(parents=True)
    for name, (planes, labels) in batches.items():
        content = b"".join(bytes([label]) + row.tobytes() for row, label in zip(planes, labels, strict=True))
        (folder / f"{name}.bin").write_bytes(content)
    return folder


def write_python(folder: Path, batches: Batches) -> Path:
    folder.mkdir(parents=True)
    for name, (planes, labels) in batches.items():
        batch = {"batch_label": "training batch 1 of 5", "labels": labels, "data": planes, "filenames": ["a.png"]}
        (folder / name).write_bytes(python2_file(batch))
    return folder


Writer = Callable[[Path, Batches], Path]
both_layouts = pytest.mark.parametrize(("layout", "write"), [(BINARY, write_binary), (PYTHON, write_python)])
read = functools.partial(load, verify=False, images_per_file=COUNT)
read_once = functools.partial(load_once, verify=False, images_per_file=COUNT)


def refusal(root: Path, *, verify: bool = False) -> str:
    """Return the one-line message of the DataError."""
    with pytest.raises(DataError) as error:
        load(root, verify, COUNT)
    message = str(error.value)
    assert "\n" not in message
    return message


def overwrite_first(tmp_path: Path, content: bytes) -> Path:
    """Write valid Python batches except for the first file, and return that file's path."""
    path = write_python(tmp_path / PYTHON, random_batches()) / "data_batch_1"
    path.write_bytes(content)
    return path


def first_bytes(train: LabelledImages) -> list[int]:
    return train.images[:, 0, 0, 0].tolist()


def expected_first_bytes(seed: int) -> list[int]:
    batches = random_batches(seed)
    return [int(planes[0]) for name in NAMES[:5] for planes in batches[name][0]]


@both_layouts
def test_every_byte_of_a_plane_lands_at_its_channel_row_and_column(tmp_path: Path, layout: str, write: Writer) -> None:
    batches = random_batches()
    folder = write(tmp_path / layout, batches)
    for data, names in zip(read(tmp_path), (NAMES[:5], NAMES[5:]), strict=True):
        planes = torch.from_numpy(np.concatenate([batches[name][0] for name in names]))
        assert data.images.shape == (len(planes), 32, 32, 3) and data.images.dtype == torch.uint8
        for channel, row in itertools.product(range(3), range(32)):
            start = channel * 1024 + row * 32
            assert torch.equal(data.images[:, row, :, channel], planes[:, start : start + 32])
        assert data.labels.dtype == torch.int64
        assert data.labels.tolist() == [label for name in names for label in batches[name][1]]
        assert data.images.is_contiguous()
        data.images.zero_()
    folder.rename(tmp_path / "renamed")  # now the root itself holds the files, which zeroing did not change
    assert first_bytes(read(tmp_path / "renamed")[0]) == expected_first_bytes(0)


def test_root_may_start_at_the_home_folder_and_defaults_to_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_binary(tmp_path / "data" / BINARY, random_batches(seed=1))
    write_binary(tmp_path / "cache" / "cifar_lab" / BINARY, random_batches(seed=2))
    assert files.default_root() == tmp_path / "cache" / "cifar_lab"
    for root, seed in (("~/data", 1), (None, 2)):
        assert first_bytes(read(root)[0]) == expected_first_bytes(seed)


def test_a_complete_layout_is_preferred_and_the_binary_one_if_both_are_complete(tmp_path: Path) -> None:
    write_python(tmp_path / PYTHON, random_batches(seed=1))
    assert first_bytes(read(tmp_path)[0]) == expected_first_bytes(1)
    folder = write_binary(tmp_path / BINARY, random_batches(seed=2))
    assert first_bytes(read(tmp_path)[0]) == expected_first_bytes(2)
    (folder / "test_batch.bin").unlink()
    assert first_bytes(read(tmp_path)[0]) == expected_first_bytes(1)


def test_a_folder_without_data_is_refused_with_a_remedy(tmp_path: Path) -> None:
    facts = (BINARY, "data_batch_1.bin", "test_batch.bin", PYTHON, "data.root=", "CIFAR_LAB_DATA", "data=synthetic")
    for root in (tmp_path, tmp_path / "nowhere"):
        holds(refusal(root), root, *facts)


@both_layouts
@pytest.mark.parametrize("inside", [False, True])
def test_missing_files_are_named(tmp_path: Path, layout: str, write: Writer, inside: bool) -> None:
    folder = write(tmp_path / layout, random_batches())
    suffix = ".bin" if layout == BINARY else ""
    for name in ("data_batch_3", "test_batch"):
        (folder / f"{name}{suffix}").unlink()
    message = refusal(folder if inside else tmp_path)
    assert str(folder) in message and f"data_batch_3{suffix}, test_batch{suffix}" in message
    assert "data_batch_1" not in message and "data_batch_5" not in message


@pytest.mark.parametrize("size", [0, 61_460 - 3073, 61_460 - 1, 61_460 + 1, 61_460 + 3073])
def test_a_binary_file_of_another_size_is_refused_with_both_sizes(tmp_path: Path, size: int) -> None:
    path = write_binary(tmp_path / BINARY, random_batches()) / "data_batch_4.bin"
    path.write_bytes(bytes(size))
    holds(refusal(tmp_path), path, f" {size:,} ", " 61,460;")


@both_layouts
@pytest.mark.parametrize("label", [10, 255])
def test_labels_that_are_not_a_class_are_refused(tmp_path: Path, layout: str, write: Writer, label: int) -> None:
    batches = random_batches()
    batches["data_batch_2"][1][7] = label
    folder = write(tmp_path / layout, batches)
    message = refusal(tmp_path)
    assert str(folder / "data_batch_2") in message and "labels" in message and re.search(r"\b0\b.*\b9\b", message)


class Call:
    """Pickled as a function call, which an unrestricted unpickler makes."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.call = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


PLANES, LABELS = random_batches()["data_batch_1"]
# A dtype's pickled state can claim that objects are plain bytes. Copying such an array follows addresses from the file.
# This one is the address of None, so following it does no harm here.
OBJECTS = Call(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0))
POINTER_STATE = (1, (1,), OBJECTS, False, struct.pack("P", id(None)))
POINTER = Call(np.empty(0).__reduce__()[0], np.ndarray, (0,), "b", state=POINTER_STATE)
OTHER_KINDS = [
    # These labels would fit into a byte only by wrapping around.
    *((PLANES, [label, *LABELS[1:]], "labels") for label in (-1, -250, 256, 259, 2**31 - 1)),
    (PLANES[:-1], LABELS, "(19, 3072)"),
    (PLANES[:, :-1], LABELS, "(20, 3071)"),
    (PLANES.reshape(COUNT, 3, 32, 32), LABELS, "(20, 3, 32, 32)"),
    (PLANES, LABELS[:-1], "(19,)"),
    (PLANES, [[label] for label in LABELS], "(20, 1)"),
    (PLANES, [], "(0,)"),
    (PLANES, ["cat"] * COUNT, "(20,)"),
    (PLANES, 3, "()"),
    *((PLANES.astype(kind), LABELS, "") for kind in (np.float32, np.int8, np.int64)),
    *((PLANES, labels, "") for labels in (np.zeros(COUNT), [True] * COUNT, [2.5] * COUNT, [LABELS, 3])),
    (PLANES, [POINTER] * COUNT, "O8"),
]
VALID = python2_file({"data": PLANES, "labels": LABELS})
FOREIGN = [
    *(VALID[:size] for size in (0, 1, 2, 5, 20, 100, len(VALID) // 2, len(VALID) - 1)),
    *(b"<!DOCTYPE html><html>404</html>", b"\x1f\x8b\x08\x00" + bytes(100), bytes(1000), bytes(range(256)) * 8),
    *(python2_file(value) for value in ([PLANES, LABELS], None, 7, {"data": PLANES}, {"labels": LABELS})),
    pickle.dumps({"data": 1, "labels": 2}),
]
BEYOND_ARRAYS = ("frombuffer", "ndarray.tofile", "dtype.__class__", "load", "save", "fromfile", "load\nall")


def named_in_numpy(name: str) -> bytes:
    """Return a pickle of a global in numpy."""
    return b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(name)]) + name.encode() + b"\x93."


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        *((python2_file({"data": images, "labels": labels}), fact) for images, labels, fact in OTHER_KINDS),
        *((content, "") for content in FOREIGN),
        *((named_in_numpy(name), f"numpy.{name.split()[0]}") for name in BEYOND_ARRAYS),
    ],
    ids=lambda value: value or "any" if isinstance(value, str) else f"{len(value)} bytes {value[:8]!r}",
)
def test_damaged_and_foreign_pickles_and_images_and_labels_of_a_wrong_type_are_refused(
    tmp_path: Path, content: bytes, fact: str
) -> None:
    path = overwrite_first(tmp_path, content)
    message = refusal(tmp_path)
    assert message.startswith(f"{path} ") and fact in message


def attacks(marker: Path) -> dict[str, bytes]:
    """Return pickles that create the marker file when an unrestricted unpickler reads them."""
    python = f"open({str(marker)!r}, 'w').close()"
    evil = Call(os.system, f"touch '{marker}'")
    array = np.empty(1, object)
    array[0] = evil
    values = {
        "os.system": evil,
        "builtins.eval": Call(eval, python),
        "builtins.exec": Call(exec, python),
        "method": Call(getattr(marker, "touch")),  # noqa: B009 - a bound method is pickled as a call of getattr
        "in an object array": array,
        "in a structured array": np.array([(1, evil)], dtype=[("a", "i4"), ("b", "O")]),
        "among the labels": {b"data": PLANES, b"labels": [*LABELS[1:], evil]},
        "under another key": {b"data": PLANES, b"labels": LABELS, b"batch_label": evil},
    }
    pickles = {
        f"{name}, protocol {protocol}": pickle.dumps(value, protocol)
        for name, value in values.items()
        for protocol in (0, 2, 4)
    }
    return {**pickles, "the opcode that needs no reduce": f"(S'touch \"{marker}\"'\nios\nsystem\n.".encode()}


@pytest.mark.parametrize("kind", attacks(Path()))
def test_a_pickle_with_a_call_is_refused_without_calling(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    content = attacks(marker)[kind]
    pickle.loads(content)
    assert marker.exists()  # the attack works on an unrestricted unpickler
    marker.unlink()
    path = overwrite_first(tmp_path, content)
    assert refusal(tmp_path).startswith(f"{path} ")
    assert not marker.exists()


def test_ten_bytes_cannot_fill_the_memory(tmp_path: Path) -> None:
    # The bytes ask to memoize the value under index 2,147,483,647; Python's C unpickler allocates memory for all
    # indices.
    overwrite_first(tmp_path, b"\x80\x02Nr\xff\xff\xff\x7f.")
    tracemalloc.start()
    refusal(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def records(batches: Batches, names: list[str]) -> np.ndarray:
    return np.concatenate([np.column_stack([np.uint8(batches[name][1]), batches[name][0]]) for name in names])


def test_the_digest_is_the_sha256_of_the_sorted_sha256_of_the_records() -> None:
    rows = records(random_batches(), NAMES[:1])
    each = sorted(hashlib.sha256(row.tobytes()).hexdigest() for row in rows)
    found = cifar10.digest(rows)
    assert found == hashlib.sha256(bytes.fromhex("".join(each))).hexdigest()
    assert cifar10.digest(rows[::-1].copy()) == found
    assert cifar10.digest(np.concatenate([rows, rows[:1]])) != found, "an image comes twice"
    rows[7, 1500] ^= 1
    assert cifar10.digest(rows) != found


def test_images_of_the_right_digest_are_accepted_and_others_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = random_batches()
    folder = write_binary(tmp_path / BINARY, batches)
    published = dict(cifar10.DIGESTS)
    found = {split: cifar10.digest(records(batches, names)) for split, names in files.FILES.items()}
    for split in published:
        for each in published:
            monkeypatch.setitem(cifar10.DIGESTS, each, published[each] if each == split else found[each])
        message = refusal(tmp_path, verify=True)
        assert f" {split} " in message and str(folder) in message and "data.verify=false" in message
        assert re.findall(r"[0-9a-f]{64}", message) == [found[split], published[split]]
    monkeypatch.setattr(cifar10, "DIGESTS", found)
    assert len(load(tmp_path, verify=True, images_per_file=COUNT)[0].labels) == 5 * COUNT


def test_a_file_of_the_python_layout_with_a_wrong_md5_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_python(tmp_path / PYTHON, random_batches())
    found = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in NAMES}
    monkeypatch.setattr(cifar10, "MD5", found)
    assert len(load(tmp_path, verify=True, images_per_file=COUNT)[0].labels) == 5 * COUNT
    monkeypatch.setattr(cifar10, "MD5", {**found, "test_batch": "0" * 32})
    monkeypatch.setattr(cifar10, "_read_pickle", pytest.fail)
    holds(refusal(tmp_path, verify=True), "test_batch", found["test_batch"], "0" * 32, "data.verify=false")


def test_the_published_md5s_equal_torchvisions() -> None:
    published = torchvision.datasets.CIFAR10
    assert dict([*published.train_list, *published.test_list]) == cifar10.MD5


@both_layouts
def test_files_are_read_again_only_after_a_change(tmp_path: Path, layout: str, write: Writer) -> None:
    folder = write(tmp_path / layout, random_batches())
    first = read_once(tmp_path)
    assert read_once(folder)[0].images is first[0].images
    shutil.rmtree(folder)
    write(folder, random_batches(seed=1))
    assert first_bytes(read_once(tmp_path)[0]) == expected_first_bytes(1)


def test_a_changed_file_with_its_old_time_is_read_again(tmp_path: Path) -> None:
    path = write_binary(tmp_path / BINARY, random_batches()) / "test_batch.bin"
    before, status = read_once(tmp_path), path.stat()
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    while path.stat().st_ctime_ns == status.st_ctime_ns:  # the system's clock ticks every few milliseconds
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = read_once(tmp_path)
    assert not torch.equal(before[1].images, after[1].images)


def test_images_are_read_again_to_verify_them_and_memory_holds_only_one_data_set(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_binary(tmp_path / name / BINARY, random_batches())
    first, _, again = (read_once(tmp_path / name)[0].images for name in ("one", "other", "one"))
    assert again is not first
    with pytest.raises(DataError, match=r"data\.verify=false"):
        load_once(tmp_path / "one", verify=True, images_per_file=COUNT)


@pytest.mark.data
@pytest.mark.parametrize("layout", [BINARY, PYTHON])
def test_the_published_images_have_their_published_sizes_means_and_deviations(layout: str) -> None:
    root = Path(os.environ["CIFAR_LAB_DATA"]).expanduser()
    if not (root / layout).is_dir():
        pytest.skip(f"no {layout} in {root}")
    # The test's copy may order the images differently, so its files may differ from the published ones.
    train, test = load(root / layout, verify=layout == BINARY)
    assert train.images.shape == (50_000, 32, 32, 3) and test.images.shape == (10_000, 32, 32, 3)
    assert train.labels.bincount().tolist() == [5_000] * 10 and test.labels.bincount().tolist() == [1_000] * 10
    # Count the pixels of each value 0 to 255: sums of integers, so the digits are exact.
    counts = [train.images[..., channel].flatten().bincount(minlength=256).double() for channel in range(3)]
    values = torch.arange(256, dtype=torch.float64) / 255
    means = [(count * values).sum() / count.sum() for count in counts]
    stds = [(count @ (values - mean) ** 2 / count.sum()).sqrt() for count, mean in zip(counts, means, strict=True)]
    assert [f"{mean:.4f}" for mean in means] == ["0.4914", "0.4822", "0.4465"]
    assert [f"{std:.4f}" for std in stds] == ["0.2470", "0.2435", "0.2616"]
