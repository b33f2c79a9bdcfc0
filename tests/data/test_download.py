"""Whatever a server or disk does, a download ends with the whole data set or one error line, and no leftover files."""

import errno
import functools
import hashlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cifar_lab.data import download
from cifar_lab.data.archives import CIFAR10
from cifar_lab.data.cifar10 import load
from cifar_lab.data.download import fetch
from cifar_lab.data.files import RECORD_BYTES, DataError
from tests.conftest import on_a_terminal

COUNT = 2
FOLDER = CIFAR10.folder
NAMES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin", "batches.meta.txt"]


def make_archive() -> bytes:
    """Return an archive as published, plus members that are not needed, one with a path outside the folder."""
    pixels = np.random.default_rng(0)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in [*NAMES, "readme.html", "../../escaped.bin"]:
            records = pixels.integers(256, size=(COUNT, RECORD_BYTES), dtype=np.uint8)
            records[:, 0] %= 10
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = records.nbytes
            archive.addfile(info, io.BytesIO(records.tobytes()))
    return buffer.getvalue()


ARCHIVE = make_archive()
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()

Reply = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        self.server.num_requests += 1
        self.server.asked.set()
        (whole if self.path == "/good" else self.server.reply)(self)

    def start(self, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Serves the archive at `/good` and `reply` at every other path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url, self.good = (f"http://127.0.0.1:{self.server_port}/{name}" for name in ("archive", "good"))
        self.reply: Reply = whole
        self.num_requests = 0
        self.asked, self.go_on = threading.Event(), threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up


def send(handler: Handler, content: bytes = ARCHIVE, promised: int | None = None) -> None:
    handler.start(Content_Length=len(content) if promised is None else promised)
    handler.wfile.write(content)


whole: Reply = send
cut: Reply = functools.partial(send, content=ARCHIVE[:1000], promised=len(ARCHIVE))


def stall(handler: Handler) -> None:
    """Send part of the archive, and the rest when the test sets `go_on`."""
    cut(handler)
    handler.wfile.flush()
    handler.server.go_on.wait(10)
    handler.wfile.write(ARCHIVE[1000:])


def endless(handler: Handler) -> None:
    handler.start()  # sends no Content-Length
    handler.wfile.write(ARCHIVE + b"x")


# Replies that do not deliver the archive, with the fact that the error line names.
BAD: dict[str, tuple[Reply, str]] = {
    "missing": (lambda handler: handler.start(404), "404"),
    "busy": (lambda handler: handler.start(503), "503"),
    "redirects in a circle": (lambda handler: handler.start(302, Location=handler.server.url), "302"),
    "hangs up": (lambda handler: None, ""),
    "breaks off": (cut, "1,000"),
    "falls silent": (stall, ""),
    "another file": (functools.partial(send, content=b"<html>"), hashlib.sha256(b"<html>").hexdigest()),
    "more than the file": (endless, f"{len(ARCHIVE) + 1:,}"),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


def get(root: Path, sources: list[str], sha256: str = SHA256, timeout: float = 5) -> None:
    (archive,) = CIFAR10.archives
    fetch(CIFAR10._replace(archives=(archive._replace(checksum=f"sha256:{sha256}"),)), root, sources, timeout=timeout)


def is_whole(root: Path) -> bool:
    """Check that the folder holds the data set and nothing else."""
    load(root, verify=False, images_per_file=COUNT)
    return os.listdir(root) == [FOLDER] and sorted(os.listdir(root / FOLDER)) == sorted(NAMES)


def refusal(root: Path, *sources: str, timeout: float = 5) -> str:
    """Return the DataError's one-line message, which names the addresses, the folder and other places for the data."""
    with pytest.raises(DataError) as error:
        get(root, list(sources), timeout=timeout)
    message = str(error.value)
    assert "\n" not in message
    for fact in (root, *sources, "data.root=", "CIFAR_LAB_DATA"):
        assert str(fact) in message
    return message


def test_the_archive_is_downloaded_once_into_a_folder_that_load_reads(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch)
    root = tmp_path / "a" / "b"
    for _ in range(2):
        get(root, [server.url])
    assert is_whole(root) and os.listdir(tmp_path) == ["a"]
    assert server.num_requests == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert all(fact in output.err for fact in ("170 MB", server.url, str(root), "━"))


@pytest.mark.parametrize("kind", BAD)
def test_a_server_without_the_archive_is_refused_and_the_next_address_is_tried(
    tmp_path: Path, server: Server, kind: str
) -> None:
    server.reply, fact = BAD[kind]
    is_silent = kind == "falls silent"
    message = refusal(tmp_path, server.url, f"{server.url}?copy", timeout=0.1 if is_silent else 5)
    assert message.count(fact) >= 2
    assert os.listdir(tmp_path) == []
    get(tmp_path, [server.url, server.good], timeout=1 if is_silent else 5)
    assert is_whole(tmp_path)


@pytest.mark.parametrize(
    ("sources", "fact"),
    [
        *(([source], "") for source in ("nonsense", "gopher://example.org/", "http://", "http://127.0.0.1:port/")),
        (["http://127.0.0.1:1/"], os.strerror(errno.ECONNREFUSED)),
        ([], ""),
    ],
)
def test_an_invalid_address_and_a_refused_connection_are_refused(tmp_path: Path, sources: list[str], fact: str) -> None:
    assert fact in refusal(tmp_path, *sources)
    assert os.listdir(tmp_path) == []


def test_a_folder_with_files_stays_untouched_and_nothing_is_downloaded(tmp_path: Path, server: Server) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / NAMES[0]).write_bytes(b"mine")
    get(tmp_path, [server.url])
    assert server.num_requests == 0
    assert os.listdir(tmp_path) == [FOLDER] and (tmp_path / FOLDER / NAMES[0]).read_bytes() == b"mine"


def test_files_of_a_killed_process_are_replaced_even_from_a_local_archive(tmp_path: Path) -> None:
    (archive := tmp_path / "archive.tar.gz").write_bytes(ARCHIVE)
    tmp_path /= "root"
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / f"{FOLDER}.partial" / FOLDER).mkdir(parents=True)
    (tmp_path / f"{FOLDER}.partial" / FOLDER / "half").touch()
    (tmp_path / ".cifar-10.lock").touch()
    get(tmp_path, [archive.as_uri()])
    assert is_whole(tmp_path)


def test_a_folder_that_cannot_be_created_is_refused_before_the_download(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").touch()
    assert os.strerror(errno.ENOTDIR) in refusal(tmp_path / "file" / "root", server.url)
    assert server.num_requests == 0


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
@pytest.mark.parametrize("step", [(download, "progress"), (tarfile, "open")])
def test_a_full_disk_or_an_interruption_leaves_nothing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], error: BaseException
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(step[0], step[1], fail)
    with pytest.raises((DataError, KeyboardInterrupt), match=r"No space|^$"):
        get(tmp_path, [server.url])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fails", [False, True])
def test_one_of_two_concurrent_downloads_waits_and_takes_over_if_the_other_fails(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    server.reply = (lambda handler: (stall(handler), handler.wfile.write(b"x"))[0]) if fails else stall
    waiting = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(get, tmp_path, [server.url], sha256="another" if fails else SHA256)
        assert server.asked.wait(30)
        monkeypatch.setattr(download, "note", lambda text: waiting.set())
        second = pool.submit(get, tmp_path, [server.good])
        assert waiting.wait(30)
        server.go_on.set()
    assert second.result() is None and is_whole(tmp_path)
    assert server.num_requests == 1 + fails
    assert (SHA256 in str(first.exception())) == fails
