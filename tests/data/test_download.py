"""Whatever a server or a disk does, a download ends with the whole data set or with one line, and leaves no litter."""

import errno
import fcntl
import functools
import hashlib
import http.server
import io
import os
import re
import shutil
import socket
import ssl
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cifar_lab.data import download, transfer
from cifar_lab.data.cifar10 import load
from cifar_lab.data.download import fetch
from cifar_lab.data.files import RECORD_BYTES, DataError

COUNT = 2
FOLDER, PARTIAL = "cifar-10-batches-bin", "cifar-10-binary.tar.gz.partial"
NAMES = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]


def make_archive() -> bytes:
    pixels = np.random.default_rng(0)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in [*NAMES, "batches.meta.txt"]:
            records = pixels.integers(256, size=(COUNT, RECORD_BYTES), dtype=np.uint8)
            records[:, 0] %= 10
            content = records.tobytes() if name.endswith(".bin") else b"airplane\n"
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = make_archive()
HALF = len(ARCHIVE) // 2
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()

Reply = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        self.server.replies[min(len(self.server.ranges), len(self.server.replies)) - 1](self)

    def start(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next reply, and with the last one from then on; notes what ranges are asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/cifar-10-binary.tar.gz"
        self.replies: list[Reply] = [whole]
        self.ranges: list[str | None] = []
        self.go_on = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up


def whole(handler: Handler) -> None:
    """All that is asked for, from a server that knows ranges."""
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start, end = int(match[1]) if match else 0, len(ARCHIVE)
    if start >= end:
        return handler.start(416)
    ranges = {"Content_Range": f"bytes {start}-{end - 1}/{end}"} if match else {}
    handler.start(206 if match else 200, Content_Length=end - start, **ranges)
    handler.wfile.write(ARCHIVE[start:])
    return None


def without_ranges(handler: Handler) -> None:
    handler.start(200, Content_Length=len(ARCHIVE))
    handler.wfile.write(ARCHIVE)


def cut(handler: Handler) -> None:
    """Half of what is promised."""
    handler.start(200, Content_Length=len(ARCHIVE))
    handler.wfile.write(ARCHIVE[:HALF])


def stall(handler: Handler) -> None:
    """Half, then nothing until the test says so."""
    cut(handler)
    handler.wfile.flush()
    handler.server.go_on.wait(10)


def stall_at_once(handler: Handler) -> None:
    handler.server.go_on.wait(10)


def slow(handler: Handler) -> None:
    """Half, and the other half when the test says so."""
    stall(handler)
    handler.wfile.write(ARCHIVE[HALF:])


def other(handler: Handler, *, content: bytes = bytes(len(ARCHIVE)), promise: bool = True) -> None:
    handler.start(200, **({"Content_Length": len(content)} if promise else {}))
    handler.wfile.write(content)


def wrong_range(handler: Handler) -> None:
    handler.start(206, Content_Length=len(ARCHIVE), Content_Range=f"bytes 0-{len(ARCHIVE) - 1}/{len(ARCHIVE)}")
    handler.wfile.write(ARCHIVE)


def refuse(status: int) -> Reply:
    return lambda handler: handler.start(status)


def redirect(handler: Handler) -> None:
    handler.start(302, Location=handler.server.url)


@pytest.fixture(autouse=True)
def _no_proxy_and_short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_LOCK_SECONDS", 0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


def plain_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=100)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


get = functools.partial(fetch, sha256=SHA256, size=len(ARCHIVE), images_per_file=COUNT, timeout=5, waits=(0, 0))


def is_whole(root: Path) -> bool:
    """The data set is there, and nothing else."""
    load(root, verify=False, images_per_file=COUNT)
    return os.listdir(root) == [FOLDER] and sorted(os.listdir(root / FOLDER)) == sorted([*NAMES, "batches.meta.txt"])


def refusal(root: Path, *sources: str, **settings: Any) -> str:
    """The message of the DataError: one line that names addresses, folder and the ways out."""
    with pytest.raises(DataError) as error:
        get(root, sources, **{"console": plain_console(), **settings})
    message = str(error.value)
    assert "\n" not in message and str(root) in message and all(source in message for source in sources)
    assert "try again" in message and "data.root=" in message and "CIFAR_LAB_DATA" in message
    return message


def test_the_archive_becomes_a_folder_that_load_reads(tmp_path: Path, server: Server) -> None:
    root = tmp_path / "a" / "b"
    assert get(root, [server.url], console=plain_console()) == root / FOLDER
    assert is_whole(root)
    assert server.ranges == [None]


def test_a_data_set_that_is_there_is_not_fetched_again(tmp_path: Path, server: Server) -> None:
    for _ in range(2):
        get(tmp_path, [server.url], console=plain_console())
    assert len(server.ranges) == 1


def test_an_incomplete_data_set_is_neither_fetched_nor_touched(tmp_path: Path, server: Server) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / NAMES[0]).write_bytes(b"mine")
    with pytest.raises(DataError, match=r"is no complete CIFAR-10: .* remove the folder to have it fetched again"):
        get(tmp_path, [server.url], console=plain_console())
    assert server.ranges == [] and (tmp_path / FOLDER / NAMES[0]).read_bytes() == b"mine"


@pytest.mark.parametrize("status", [403, 404])
def test_a_missing_file_is_asked_for_once(tmp_path: Path, server: Server, status: int) -> None:
    server.replies = [refuse(status)]
    assert f"{server.url} answers HTTP {status}" in refusal(tmp_path, server.url)
    assert len(server.ranges) == 1 and os.listdir(tmp_path) == []


def test_a_server_that_is_busy_is_asked_again(tmp_path: Path, server: Server) -> None:
    server.replies = [refuse(503), refuse(429), whole]
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)


def test_a_server_that_stays_busy_is_given_up(tmp_path: Path, server: Server) -> None:
    server.replies = [refuse(503)]
    assert "answers HTTP 503" in refusal(tmp_path, server.url)
    assert len(server.ranges) == 3 and os.listdir(tmp_path) == []


def test_an_address_that_redirects_in_a_circle_is_refused(tmp_path: Path, server: Server) -> None:
    server.replies = [redirect]
    assert "answers HTTP 302" in refusal(tmp_path, server.url)
    assert os.listdir(tmp_path) == []


def test_a_refused_connection_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        assert "refuses the connection" in refusal(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_not_resolved_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*arguments: object, **settings: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert "has a name that cannot be resolved" in refusal(tmp_path, "http://nowhere.invalid/")
    assert os.listdir(tmp_path) == []


def test_a_certificate_that_is_not_trusted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
    untrusted.verify_message = "self-signed certificate"

    def connect(*arguments: object, **settings: object) -> None:
        raise urllib.error.URLError(untrusted)

    monkeypatch.setattr(urllib.request, "urlopen", connect)
    assert "not trusted (self-signed certificate)" in refusal(tmp_path, "https://example.org/")


@pytest.mark.parametrize("source", ["nonsense", "gopher://example.org/", "http://", "http://127.0.0.1:port/"])
def test_what_is_no_address_is_refused(tmp_path: Path, source: str) -> None:
    assert f"{source} cannot be opened (" in refusal(tmp_path, source)
    assert os.listdir(tmp_path) == []


def test_an_empty_list_of_addresses_is_refused(tmp_path: Path) -> None:
    assert "no address is given" in refusal(tmp_path)


def test_a_file_on_this_machine_is_an_address_too(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(ARCHIVE)
    get(tmp_path / "root", [path.as_uri()], console=plain_console())
    assert is_whole(tmp_path / "root")


def test_a_download_that_breaks_off_goes_on_where_it_stopped(tmp_path: Path, server: Server) -> None:
    server.replies = [cut, whole]
    console = plain_console()
    get(tmp_path, [server.url], console=console)
    assert is_whole(tmp_path)
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert f"broke off after {HALF:,} of {len(ARCHIVE):,} bytes; trying again in 0 s" in printed(console)


def test_a_download_that_keeps_breaking_off_goes_on_in_the_next_call(tmp_path: Path, server: Server) -> None:
    server.replies = [cut, refuse(503), refuse(503), whole]
    assert "answers HTTP 503" in refusal(tmp_path, server.url)
    assert os.listdir(tmp_path) == [PARTIAL] and (tmp_path / PARTIAL).read_bytes() == ARCHIVE[:HALF]
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)
    assert server.ranges[3:] == [f"bytes={HALF}-"]


def test_an_address_that_has_delivered_is_asked_again_even_when_it_is_gone(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, calls = urllib.request.urlopen, iter(range(3))

    def gone_once(*arguments: Any, **settings: Any) -> Any:
        if next(calls) == 1:
            raise urllib.error.URLError(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        return connect(*arguments, **settings)

    monkeypatch.setattr(urllib.request, "urlopen", gone_once)
    server.replies = [cut, whole]
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)


@pytest.mark.parametrize("reply", [without_ranges, wrong_range, refuse(416)])
def test_without_usable_ranges_a_broken_download_starts_anew(tmp_path: Path, server: Server, reply: Reply) -> None:
    server.replies = [cut, reply, whole]
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)
    assert server.ranges[2:] == ([] if reply is without_ranges else [None])


def test_an_interrupted_download_keeps_what_it_has(tmp_path: Path, server: Server) -> None:
    class Interrupted(Console):
        def print(self, *texts: Any, **settings: Any) -> None:
            if "broke off" in texts[0]:
                raise KeyboardInterrupt

    server.replies = [cut, whole]
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, [server.url], console=Interrupted(file=io.StringIO()))
    assert os.listdir(tmp_path) == [PARTIAL] and (tmp_path / PARTIAL).stat().st_size == HALF


@pytest.mark.parametrize("reply", [stall, stall_at_once])
def test_a_server_that_falls_silent_is_left_and_asked_again(tmp_path: Path, server: Server, reply: Reply) -> None:
    server.replies = [reply, whole]
    start = time.perf_counter()
    get(tmp_path, [server.url], timeout=0.3, console=plain_console())
    assert 0.3 <= time.perf_counter() - start < 3
    assert is_whole(tmp_path)
    assert server.ranges[1:] == [f"bytes={HALF}-" if reply is stall else None]


def test_a_server_that_stays_silent_is_given_up(tmp_path: Path, server: Server) -> None:
    server.replies = [stall_at_once]
    assert "sent nothing for 0.2 s" in refusal(tmp_path, server.url, timeout=0.2, waits=[0])
    assert len(server.ranges) == 2 and os.listdir(tmp_path) == []


def test_another_file_is_refused_with_both_digests(tmp_path: Path, server: Server) -> None:
    server.replies = [other]
    found = hashlib.sha256(bytes(len(ARCHIVE))).hexdigest()
    assert f"sent another file: sha256 {found}, expected {SHA256}" in refusal(tmp_path, server.url)
    assert len(server.ranges) == 1 and os.listdir(tmp_path) == []


def test_a_page_in_the_archives_place_is_refused_by_its_size(tmp_path: Path, server: Server) -> None:
    server.replies = [functools.partial(other, content=b"<html>")]
    assert f"offers another file: 6 bytes, expected {len(ARCHIVE):,}" in refusal(tmp_path, server.url)
    assert len(server.ranges) == 1 and os.listdir(tmp_path) == []


def test_a_server_that_does_not_stop_is_left(tmp_path: Path, server: Server) -> None:
    server.replies = [functools.partial(other, content=ARCHIVE + b"x", promise=False)]
    assert f"sent another file: more than {len(ARCHIVE):,} bytes" in refusal(tmp_path, server.url)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("left", [b"x" * HALF, b"x" * len(ARCHIVE), ARCHIVE + b"x"], ids=["half", "all", "more"])
def test_what_an_earlier_call_left_wrong_is_fetched_anew(tmp_path: Path, server: Server, left: bytes) -> None:
    (tmp_path / PARTIAL).write_bytes(left)
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)
    assert server.ranges[-1] is None


def test_what_a_killed_process_left_is_used_or_removed(tmp_path: Path, server: Server) -> None:
    (tmp_path / PARTIAL).write_bytes(ARCHIVE)
    unpacked = tmp_path / "cifar-10-binary.tar.gz.unpacked"
    unpacked.mkdir()
    (unpacked / NAMES[0]).write_bytes(b"half")
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)
    assert server.ranges == []


@pytest.mark.parametrize("bad", [refuse(404), cut, other, stall_at_once])
def test_the_next_address_helps_where_the_first_does_not(tmp_path: Path, server: Server, bad: Reply) -> None:
    server.replies = [bad, whole]
    get(tmp_path, [server.url, f"{server.url}?copy"], timeout=0.2, waits=(), console=plain_console())
    assert is_whole(tmp_path)


def test_all_addresses_that_fail_are_named_with_their_reasons(tmp_path: Path, server: Server) -> None:
    server.replies = [refuse(404), other]
    message = refusal(tmp_path, server.url, f"{server.url}?copy", waits=())
    assert f"{server.url} answers HTTP 404 (Not Found); {server.url}?copy sent another file" in message


def test_an_archive_with_a_foreign_member_leaves_nothing(tmp_path: Path, server: Server) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"))
    content = buffer.getvalue()
    server.replies = [functools.partial(other, content=content)]
    digest = hashlib.sha256(content).hexdigest()
    message = refusal(tmp_path / "root", server.url, sha256=digest, size=len(content))
    assert "its member '../escaped' leads out of its folder" in message
    assert os.listdir(tmp_path) == ["root"] and os.listdir(tmp_path / "root") == []


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_fetched(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "Not a directory" in refusal(tmp_path / "file" / "root", server.url)
    assert server.ranges == []


def test_a_disk_without_room_is_said_before_anything_is_fetched(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    settings = {"size": 170_000_000, "images_per_file": 10_000}
    assert "354 MB are needed and 0 MB are free" in refusal(tmp_path, server.url, **settings)
    assert server.ranges == [] and os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_gets_its_room_back(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    assert "No space left on device" in refusal(tmp_path, server.url)
    assert os.listdir(tmp_path) == []


def start_two(tmp_path: Path, server: Server, pool: ThreadPoolExecutor, **first: Any) -> list[Any]:
    """A fetch that has half of the archive, and one that waits for it; then the server goes on."""
    futures = [pool.submit(get, tmp_path, [server.url], console=plain_console(), **first)]
    while not server.ranges:
        time.sleep(0.01)
    console = plain_console()
    futures.append(pool.submit(get, tmp_path, [server.url], console=console))
    while "waiting" not in printed(console):
        time.sleep(0.01)
    server.go_on.set()
    return futures


def test_of_two_fetches_at_once_one_downloads_and_the_other_waits(tmp_path: Path, server: Server) -> None:
    server.replies = [slow]
    with ThreadPoolExecutor(2) as pool:
        futures = start_two(tmp_path, server, pool)
    assert [future.result() for future in futures] == [tmp_path / FOLDER] * 2
    assert is_whole(tmp_path)
    assert len(server.ranges) == 1


def test_the_fetch_that_waits_goes_on_where_the_other_failed(tmp_path: Path, server: Server) -> None:
    server.replies = [stall, whole]
    with ThreadPoolExecutor(2) as pool:
        failed, succeeded = start_two(tmp_path, server, pool, waits=())
    assert "broke off" in str(failed.exception()) and succeeded.result() == tmp_path / FOLDER
    assert is_whole(tmp_path)
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_lock_on_a_file_that_its_owner_has_just_removed_does_not_count(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = fcntl.flock, iter(range(2))

    def remove_once(file: io.FileIO, operation: int) -> None:
        if next(calls) == 0:
            (tmp_path / PARTIAL).unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_once)
    server.replies = [cut]
    assert "broke off" in refusal(tmp_path, server.url, waits=())
    assert os.listdir(tmp_path) == [PARTIAL], "what was downloaded has a name"


def without_locks(*arguments: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_where_files_have_no_locks_two_fetches_at_once_both_end_well(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", without_locks)
    both = threading.Barrier(2)

    def together(handler: Handler) -> None:
        both.wait(5)
        whole(handler)

    server.replies = [together]
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: get(tmp_path, [server.url], console=plain_console()), range(2)))
    assert folders == [tmp_path / FOLDER] * 2 and len(server.ranges) == 2
    assert is_whole(tmp_path)


def test_where_files_have_no_locks_a_failure_leaves_nothing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", without_locks)
    server.replies = [cut, refuse(503)]
    assert "answers HTTP 503" in refusal(tmp_path, server.url)
    assert os.listdir(tmp_path) == []


def test_away_from_a_terminal_progress_is_lines(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_LINE_SECONDS", 0.0)
    console = plain_console()
    get(tmp_path, [server.url], console=console)
    first, *others = printed(console).splitlines()
    assert first == f"fetching CIFAR-10 (0 MB) from {server.url} into {tmp_path}"
    assert others and all(re.match(r"\d\.\d of 0\.0 MB, \d+\.\d MB/s", line) for line in others)


def drip(handler: Handler) -> None:
    handler.start(200, Content_Length=len(ARCHIVE))
    for start in range(0, len(ARCHIVE), len(ARCHIVE) // 20):
        handler.wfile.write(ARCHIVE[start : start + len(ARCHIVE) // 20])
        time.sleep(0.01)


def test_a_line_comes_every_few_seconds_at_most(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_LINE_SECONDS", 0.05)
    server.replies = [drip]
    console = plain_console()
    start = time.monotonic()
    get(tmp_path, [server.url], console=console)
    assert 1 <= len(printed(console).splitlines()[1:]) <= (time.monotonic() - start) / 0.05


def test_a_short_download_away_from_a_terminal_is_one_line(tmp_path: Path, server: Server) -> None:
    console = plain_console()
    get(tmp_path, [server.url], console=console)
    assert len(printed(console).splitlines()) == 1


def test_on_a_terminal_progress_is_a_bar(tmp_path: Path, server: Server) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    get(tmp_path, [server.url], console=console)
    assert "━" in printed(console) and f"{len(ARCHIVE) / 1e3:.1f} kB" in printed(console)


def test_progress_goes_to_standard_error(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    get(tmp_path, [server.url])
    output = capsys.readouterr()
    assert output.out == "" and "fetching CIFAR-10" in output.err
