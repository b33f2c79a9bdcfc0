"""The known files come out of the archive, all of them or none; whatever else it holds is refused or left in it."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lab.data.archive import FOLDER, IMAGES, ArchiveError, is_complete, unpack
from cifar_lab.data.files import DataError

BYTES = 3073
CLASSES = "batches.meta.txt"
CONTENTS = {name: bytes([number]) * BYTES for number, name in enumerate(IMAGES)} | {CLASSES: b"airplane\nautomobile\n"}

Member = tuple[tarfile.TarInfo, bytes]


def regular(name: str, content: bytes) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def special(name: str, kind: bytes, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def members() -> list[Member]:
    """As published: the folder, its files, and one that is not needed."""
    files = [regular(f"{FOLDER}/{name}", content) for name, content in CONTENTS.items()]
    return [special(FOLDER, tarfile.DIRTYPE), *files, regular(f"{FOLDER}/readme.html", b"<html></html>")]


def write_archive(path: Path, contents: list[Member]) -> io.FileIO:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in contents:
            archive.addfile(info, io.BytesIO(content))
    return io.FileIO(str(path))


def refusal(tmp_path: Path, contents: list[Member]) -> str:
    """The message of the error, which leaves nothing behind."""
    root = tmp_path / "root"
    root.mkdir()
    with (
        write_archive(tmp_path / "archive.tar.gz", contents) as archive,
        pytest.raises(ArchiveError) as error,
    ):
        unpack(archive, root / FOLDER, root / "temporary", BYTES)
    assert os.listdir(root) == [] and sorted(os.listdir(tmp_path)) == ["archive.tar.gz", "root"]
    return str(error.value)


def test_the_known_files_come_out_byte_for_byte_and_nothing_else(tmp_path: Path) -> None:
    with write_archive(tmp_path / "archive.tar.gz", members()) as archive:
        unpack(archive, tmp_path / FOLDER, tmp_path / "temporary", BYTES)
    assert {path.name: path.read_bytes() for path in (tmp_path / FOLDER).iterdir()} == CONTENTS
    assert sorted(os.listdir(tmp_path)) == ["archive.tar.gz", FOLDER]


def test_the_folder_appears_with_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        seen.append((tmp_path / FOLDER).exists())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    with write_archive(tmp_path / "archive.tar.gz", members()) as archive:
        unpack(archive, tmp_path / FOLDER, tmp_path / "temporary", BYTES)
    assert seen == [False] * (len(CONTENTS) + 1) + [True], "the files and their folder, then the folder's own name"


BAD: dict[str, tuple[Member, str]] = {
    "a path that climbs": (regular(f"{FOLDER}/../../escaped.bin", b"x"), ""),
    "a known name that climbs": (regular(f"../{FOLDER}/{IMAGES[0]}", b"x"), ""),
    "an absolute path": (regular("/tmp/escaped.bin", b"x"), ""),
    "a folder that climbs": (special("..", tarfile.DIRTYPE), ""),
    "a symbolic link": (special(f"{FOLDER}/{IMAGES[0]}", tarfile.SYMTYPE, "/etc/passwd"), "link"),
    "a hard link": (special(f"{FOLDER}/{IMAGES[0]}", tarfile.LNKTYPE, "/etc/passwd"), "link"),
    "a link of another name": (special("elsewhere", tarfile.SYMTYPE, "/"), "link"),
    "a device": (special(f"{FOLDER}/zero", tarfile.CHRTYPE), "device"),
    "a pipe": (special(f"{FOLDER}/{CLASSES}", tarfile.FIFOTYPE), "device"),
    "a file twice": (regular(f"{FOLDER}/{IMAGES[2]}", bytes(BYTES)), ""),
    "names that are a flood": (regular(f"{FOLDER}/{CLASSES}", bytes(1_001)), "1,001"),
    "another file that is a flood": (regular("flood", bytes(BYTES + 1)), "3,074"),
}


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("kind", list(BAD))
def test_an_archive_with_a_foreign_member_is_refused_and_writes_nothing(
    tmp_path: Path, kind: str, is_first: bool
) -> None:
    member, fact = BAD[kind]
    message = refusal(tmp_path, [member, *members()] if is_first else [*members(), member])
    assert f"'{member[0].name}'" in message and fact in message


@pytest.mark.parametrize("size", [0, BYTES - 1, BYTES + 1, 100 * BYTES])
def test_a_file_of_images_of_another_size_is_refused(tmp_path: Path, size: int) -> None:
    contents = members()
    contents[3] = regular(f"{FOLDER}/{IMAGES[2]}", bytes(size))
    message = refusal(tmp_path, contents)
    assert f"'{FOLDER}/{IMAGES[2]}'" in message and f" {size:,} " in message


@pytest.mark.parametrize("name", CONTENTS)
def test_an_archive_that_lacks_a_file_is_refused(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, [member for member in members() if not member[0].name.endswith(name)])
    assert {word.strip(",") for word in message.split()} & CONTENTS.keys() == {name}


def test_files_outside_the_folder_do_not_count(tmp_path: Path) -> None:
    message = refusal(tmp_path, [regular(name, content) for name, content in CONTENTS.items()])
    assert all(name in message for name in CONTENTS)


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"<html>" + content],
    ids=["cut", "empty", "no gzip"],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Damage) -> None:
    path, root = tmp_path / "archive.tar.gz", tmp_path / "root"
    write_archive(path, members()).close()
    path.write_bytes(damage(path.read_bytes()))
    root.mkdir()
    with io.FileIO(str(path)) as archive, pytest.raises(ArchiveError):
        unpack(archive, root / FOLDER, root / "temporary", BYTES)
    assert os.listdir(root) == []


def test_a_complete_folder_that_is_there_already_stays_and_ours_goes(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in IMAGES:
        (folder / name).write_bytes(b"t" * BYTES)
    with write_archive(tmp_path / "archive.tar.gz", members()) as archive:
        unpack(archive, folder, tmp_path / "temporary", BYTES)
    assert (folder / IMAGES[0]).read_bytes() == b"t" * BYTES and not (tmp_path / "temporary").exists()


def test_what_a_killed_process_had_unpacked_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary" / IMAGES[0]).write_bytes(b"half")
    with write_archive(tmp_path / "archive.tar.gz", members()) as archive:
        unpack(archive, tmp_path / FOLDER, tmp_path / "temporary", BYTES)
    assert (tmp_path / FOLDER / IMAGES[0]).read_bytes() == CONTENTS[IMAGES[0]]


def test_an_empty_folder_is_no_data_set_and_an_incomplete_one_is_not_touched(tmp_path: Path) -> None:
    assert not is_complete(tmp_path / "missing", BYTES)
    assert not is_complete(tmp_path, BYTES)
    (tmp_path / IMAGES[0]).write_bytes(bytes(BYTES))
    (tmp_path / IMAGES[1]).write_bytes(b"half")
    with pytest.raises(DataError, match=rf"{IMAGES[1]}, .*{IMAGES[5]}\b.* 3,073 ") as error:
        is_complete(tmp_path, BYTES)
    assert str(tmp_path) in str(error.value) and IMAGES[0] not in str(error.value)
    assert len(os.listdir(tmp_path)) == 2
