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
        self.server.asked.set()
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
        self.asked, self.go_on = threading.Event(), threading.Event()

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
    """The message of the DataError: one line that names addresses, folder and other places for the data."""
    with pytest.raises(DataError) as error:
        get(root, sources, **{"console": plain_console(), **settings})
    message = str(error.value)
    assert "\n" not in message and str(root) in message and all(source in message for source in sources)
    assert "data.root=" in message and "CIFAR_LAB_DATA" in message
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
    with pytest.raises(DataError, match=re.escape(str(tmp_path / FOLDER))):
        get(tmp_path, [server.url], console=plain_console())
    assert server.ranges == [] and (tmp_path / FOLDER / NAMES[0]).read_bytes() == b"mine"


@pytest.mark.parametrize("status", [403, 404])
def test_a_missing_file_is_asked_for_once(tmp_path: Path, server: Server, status: int) -> None:
    server.replies = [refuse(status)]
    assert f" {status} " in refusal(tmp_path, server.url)
    assert len(server.ranges) == 1 and os.listdir(tmp_path) == []


def test_a_server_that_is_busy_is_asked_again(tmp_path: Path, server: Server) -> None:
    server.replies = [refuse(503), refuse(429), whole]
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)


def test_a_server_that_hangs_up_is_asked_again(tmp_path: Path, server: Server) -> None:
    server.replies = [lambda handler: None, whole]
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)
    assert server.ranges == [None, None]


def test_a_server_that_stays_busy_is_given_up(tmp_path: Path, server: Server) -> None:
    server.replies = [refuse(503)]
    assert " 503 " in refusal(tmp_path, server.url)
    assert len(server.ranges) == 3 and os.listdir(tmp_path) == []


def test_an_address_that_redirects_in_a_circle_is_refused(tmp_path: Path, server: Server) -> None:
    server.replies = [redirect]
    assert " 302 " in refusal(tmp_path, server.url)
    assert os.listdir(tmp_path) == []


def test_a_refused_connection_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        refusal(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_not_resolved_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def resolve(*arguments: object, **settings: object) -> None:
        calls.append(arguments)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    refusal(tmp_path, "http://nowhere.invalid/")
    assert len(calls) == 1 and os.listdir(tmp_path) == []


def test_a_certificate_that_is_not_trusted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untrusted = ssl.SSLCertVerificationError(1, "unverified")
    untrusted.verify_message = "self-signed"

    def connect(*arguments: object, **settings: object) -> None:
        raise urllib.error.URLError(untrusted)

    monkeypatch.setattr(urllib.request, "urlopen", connect)
    assert "(self-signed)" in refusal(tmp_path, "https://example.org/")


@pytest.mark.parametrize("source", ["nonsense", "gopher://example.org/", "http://", "http://127.0.0.1:port/"])
def test_what_is_no_address_is_refused(tmp_path: Path, source: str) -> None:
    assert "(" in refusal(tmp_path, source)
    assert os.listdir(tmp_path) == []


def test_an_empty_list_of_addresses_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path)
    assert os.listdir(tmp_path) == []


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
    assert re.search(rf" {HALF:,} .*{len(ARCHIVE):,} .* 0 s$", printed(console), re.MULTILINE)


def test_a_download_that_keeps_breaking_off_goes_on_in_the_next_call(tmp_path: Path, server: Server) -> None:
    server.replies = [cut, refuse(503), refuse(503), whole]
    assert " 503 " in refusal(tmp_path, server.url)
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
            raise urllib.error.URLError(socket.gaierror(socket.EAI_NONAME, "unknown"))
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
            if f" {HALF:,} " in texts[0]:
                raise KeyboardInterrupt

    server.replies = [cut, whole]
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, [server.url], console=Interrupted(file=io.StringIO()))
    assert os.listdir(tmp_path) == [PARTIAL] and (tmp_path / PARTIAL).stat().st_size == HALF


@pytest.mark.slow
def test_a_server_that_falls_silent_is_left_and_asked_again(tmp_path: Path, server: Server) -> None:
    server.replies = [stall, whole]
    get(tmp_path, [server.url], timeout=1, console=plain_console())
    assert is_whole(tmp_path)
    assert server.ranges[1:] == [f"bytes={HALF}-"]


def test_a_connection_that_falls_silent_is_left_and_the_server_asked_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, answers = http.client.HTTPResponse.read1, iter([None, b""])

    def falling_silent(response: http.client.HTTPResponse, size: int) -> bytes:
        content = read(response, size)
        if not content and next(answers) is None:  # the end of the first answer, which is only half of the archive
            raise TimeoutError
        return content

    monkeypatch.setattr(http.client.HTTPResponse, "read1", falling_silent)
    server.replies = [cut, whole]
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)
    assert server.ranges[1:] == [f"bytes={HALF}-"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first connection is waited for 0.05 s, all others as long as they are to be."""
    connect, timeouts = urllib.request.urlopen, iter([0.05])

    def hurried(*arguments: Any, timeout: float) -> Any:
        return connect(*arguments, timeout=next(timeouts, timeout))

    monkeypatch.setattr(urllib.request, "urlopen", hurried)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_says_nothing_is_left_and_asked_again(tmp_path: Path, server: Server) -> None:
    server.replies = [stall_at_once, whole]
    get(tmp_path, [server.url], console=plain_console())
    assert is_whole(tmp_path)
    assert server.ranges == [None, None]


def test_a_server_that_stays_silent_is_given_up(tmp_path: Path, server: Server) -> None:
    server.replies = [stall_at_once]
    assert " 0.05 s" in refusal(tmp_path, server.url, timeout=0.05, waits=[0])
    assert os.listdir(tmp_path) == []


def test_another_file_is_refused_with_both_digests(tmp_path: Path, server: Server) -> None:
    server.replies = [other]
    found = hashlib.sha256(bytes(len(ARCHIVE))).hexdigest()
    assert re.findall(r"[0-9a-f]{64}", refusal(tmp_path, server.url)) == [found, SHA256]
    assert len(server.ranges) == 1 and os.listdir(tmp_path) == []


def test_a_page_in_the_archives_place_is_refused_by_its_size(tmp_path: Path, server: Server) -> None:
    server.replies = [functools.partial(other, content=b"<html>")]
    assert re.search(rf" 6 .* {len(ARCHIVE):,};", refusal(tmp_path, server.url))
    assert len(server.ranges) == 1 and os.listdir(tmp_path) == []


def test_a_server_that_does_not_stop_is_left(tmp_path: Path, server: Server) -> None:
    server.replies = [functools.partial(other, content=ARCHIVE + b"x", promise=False)]
    assert f" {len(ARCHIVE):,} " in refusal(tmp_path, server.url)
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


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("bad", [refuse(404), cut, other, stall_at_once])
def test_the_next_address_helps_where_the_first_does_not(tmp_path: Path, server: Server, bad: Reply) -> None:
    server.replies = [bad, whole]
    get(tmp_path, [server.url, f"{server.url}?copy"], waits=(), console=plain_console())
    assert is_whole(tmp_path)


def test_all_addresses_that_fail_are_named_with_their_reasons(tmp_path: Path, server: Server) -> None:
    server.replies = [refuse(404), other]
    message = refusal(tmp_path, server.url, f"{server.url}?copy", waits=())
    url = re.escape(server.url)
    assert re.search(rf"{url} .*404.*; {url}\?copy .*{SHA256}", message)


def test_an_archive_with_a_foreign_member_leaves_nothing(tmp_path: Path, server: Server) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"))
    content = buffer.getvalue()
    server.replies = [functools.partial(other, content=content)]
    digest = hashlib.sha256(content).hexdigest()
    message = refusal(tmp_path / "root", server.url, sha256=digest, size=len(content))
    assert "'../escaped'" in message
    assert os.listdir(tmp_path) == ["root"] and os.listdir(tmp_path / "root") == []


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_fetched(tmp_path: Path, server: Server) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert os.strerror(errno.ENOTDIR) in refusal(tmp_path / "file" / "root", server.url)
    assert server.ranges == []


def test_a_disk_without_room_is_said_before_anything_is_fetched(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    settings = {"size": 170_000_000, "images_per_file": 10_000}
    assert re.findall(r"\d+ MB", refusal(tmp_path, server.url, **settings)) == ["354 MB", "0 MB"]
    assert server.ranges == [] and os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_gets_its_room_back(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    assert os.strerror(errno.ENOSPC) in refusal(tmp_path, server.url)
    assert os.listdir(tmp_path) == []


def start_two(tmp_path: Path, server: Server, pool: ThreadPoolExecutor, **first: Any) -> list[Any]:
    """A fetch that has half of the archive, and one that waits for it; then the server goes on."""
    futures = [pool.submit(get, tmp_path, [server.url], console=plain_console(), **first)]
    assert server.asked.wait(30)
    says_that_it_waits = threading.Event()

    class Noted(Console):
        def print(self, *texts: Any, **settings: Any) -> None:
            says_that_it_waits.set()

    futures.append(pool.submit(get, tmp_path, [server.url], console=Noted(file=io.StringIO())))
    assert says_that_it_waits.wait(30)
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
    assert f" {HALF:,} " in str(failed.exception()) and succeeded.result() == tmp_path / FOLDER
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
    assert f" {HALF:,} " in refusal(tmp_path, server.url, waits=())
    assert os.listdir(tmp_path) == [PARTIAL]


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
    assert " 503 " in refusal(tmp_path, server.url)
    assert os.listdir(tmp_path) == []


def test_away_from_a_terminal_progress_is_lines(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_LINE_SECONDS", 0.0)
    console = plain_console()
    get(tmp_path, [server.url], console=console)
    first, *others = printed(console).splitlines()
    assert "0 MB" in first and server.url in first and str(tmp_path) in first
    assert others and all(re.match(r"0\.0 .*0\.0 MB, \d+\.\d MB/s", line) for line in others)


def test_a_line_comes_every_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(transfer.time, "monotonic", lambda: now)
    console = plain_console()
    with transfer._Progress(console, 21_000_000) as progress:
        for second in range(22):
            now = float(second)
            progress.move(1_000_000 * second)
    assert [line.split()[0] for line in printed(console).splitlines()] == ["5.0", "10.0", "15.0", "20.0"]


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
    assert output.out == "" and server.url in output.err
