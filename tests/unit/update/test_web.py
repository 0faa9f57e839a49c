"""Updates over real HTTP, from servers that are honest, broken, slow or hostile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import webserver
from signing import Device, Publisher

from edged.store.digests import FileDigest, hash_file
from edged.update.download import Downloader
from edged.update.errors import TooSlow, Unreachable, Untrusted
from edged.update.pace import Pace, Rates
from edged.update.transport import NotThere
from edged.update.web import WebTransport

SIZE = 300_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[webserver.Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "big.bin").write_bytes(random.Random(1).randbytes(SIZE))
    with webserver.serving(folder) as running:
        yield running


@pytest.fixture
def digest(server: webserver.Server) -> FileDigest:
    return hash_file(server.folder / "big.bin")


def downloader(server: webserver.Server, rates: Rates | None = None, attempts: int = 3) -> Downloader:
    return Downloader(WebTransport(server.url, wait_s=5), rates or Rates(), attempts=attempts, sleep=lambda _: None)


def test_a_broken_line_is_taken_up_where_it_ended(server: webserver.Server, digest: FileDigest, tmp_path: Path) -> None:
    server.tricks["big.bin"] = webserver.hangs_up_half_way
    downloader(server, attempts=2).fetch("big.bin", digest, tmp_path / "got")
    assert hash_file(tmp_path / "got") == digest
    assert len(server.asked) > 5
    assert server.sent_bytes == SIZE


def test_another_run_goes_on_where_the_last_one_ended(
    server: webserver.Server, digest: FileDigest, tmp_path: Path
) -> None:
    server.tricks["big.bin"] = webserver.hangs_up_half_way
    with pytest.raises(Unreachable):
        downloader(server, attempts=1)._continue("big.bin", digest, tmp_path / ".got.part", lambda _: None)
    had = (tmp_path / ".got.part").stat().st_size
    assert 0 < had < SIZE
    server.tricks.clear()
    downloader(server).fetch("big.bin", digest, tmp_path / "got")
    assert server.asked[-1][1] == f"bytes={had}-"
    assert server.sent_bytes == SIZE


def test_a_server_without_ranges_sends_it_all_again(
    server: webserver.Server, digest: FileDigest, tmp_path: Path
) -> None:
    (tmp_path / ".got.part").write_bytes((server.folder / "big.bin").read_bytes()[:1000])
    server.tricks["big.bin"] = webserver.without_ranges
    downloader(server).fetch("big.bin", digest, tmp_path / "got")
    assert hash_file(tmp_path / "got") == digest


def test_a_spoiled_part_is_fetched_anew_once(server: webserver.Server, digest: FileDigest, tmp_path: Path) -> None:
    for part in (bytes(1000), bytes(SIZE), bytes(SIZE + 5)):
        (tmp_path / ".got.part").write_bytes(part)
        downloader(server).fetch("big.bin", digest, tmp_path / "got")
        assert hash_file(tmp_path / "got") == digest


def test_wrong_bytes_leave_nothing_behind(server: webserver.Server, digest: FileDigest, tmp_path: Path) -> None:
    data = bytearray((server.folder / "big.bin").read_bytes())
    for bad in (bytes(SIZE), bytes(data[:-1]) + bytes([data[-1] ^ 1]), bytes(data) + b"x"):
        (server.folder / "big.bin").write_bytes(bad)
        with pytest.raises(Untrusted):
            downloader(server).fetch("big.bin", digest, tmp_path / "out" / "got")
        assert list((tmp_path / "out").iterdir()) == []


def test_a_short_file_is_not_taken(server: webserver.Server, digest: FileDigest, tmp_path: Path) -> None:
    (server.folder / "big.bin").write_bytes((server.folder / "big.bin").read_bytes()[:-1])
    with pytest.raises(Unreachable):
        downloader(server).fetch("big.bin", digest, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_endless_data_is_cut_off_at_the_signed_length(
    server: webserver.Server, digest: FileDigest, tmp_path: Path
) -> None:
    server.tricks["big.bin"] = webserver.never_ends
    with pytest.raises(Untrusted, match="longer than"):
        downloader(server).fetch("big.bin", digest, tmp_path / "out" / "got")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_slow_server_is_given_up(server: webserver.Server, digest: FileDigest, tmp_path: Path) -> None:
    server.tricks["big.bin"] = webserver.drips
    with pytest.raises(TooSlow, match="bytes/s"):
        downloader(server, Rates(least=10_000, window_s=0.2)).fetch("big.bin", digest, tmp_path / "got")


def test_the_most_rate_is_kept_by_sleeping() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(Rates(most=1000, least=900, window_s=5), lambda: now[0], sleep)
    for _ in range(20):
        pace.arrived(1000)
    assert sum(slept) == pytest.approx(20)


def test_the_least_rate_counts_only_what_the_source_took() -> None:
    now = [0.0]
    pace = Pace(Rates(least=100, window_s=10), lambda: now[0], lambda _: None)
    for _ in range(30):
        now[0] += 1
        pace.arrived(100)
    for _ in range(9):
        now[0] += 1
        pace.arrived(99)
    now[0] += 1
    with pytest.raises(TooSlow):
        pace.arrived(99)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/y", "", "gopher://x"])
def test_redirections_out_of_the_web_are_not_followed(
    server: webserver.Server, digest: FileDigest, tmp_path: Path, location: str
) -> None:
    server.tricks["big.bin"] = webserver.status(302, Location=location)
    with pytest.raises(Unreachable, match="not followed"):
        downloader(server).fetch("big.bin", digest, tmp_path / "got")


def test_redirections_are_followed_but_not_for_ever(
    server: webserver.Server, digest: FileDigest, tmp_path: Path
) -> None:
    (server.folder / "moved").write_bytes(b"")
    server.tricks["moved"] = webserver.status(302, Location="big.bin")
    downloader(server).fetch("moved", digest, tmp_path / "got")
    assert hash_file(tmp_path / "got") == digest
    server.tricks["big.bin"] = webserver.status(301, Location="big.bin")
    with pytest.raises(Unreachable, match="redirections"):
        downloader(server).fetch("big.bin", digest, tmp_path / "got2")


@pytest.mark.parametrize(("code", "kind"), [(404, NotThere), (410, NotThere), (500, Unreachable), (204, Unreachable)])
def test_status_codes(server: webserver.Server, digest: FileDigest, tmp_path: Path, code: int, kind: type) -> None:
    server.tricks["big.bin"] = webserver.status(code)
    with pytest.raises(kind):
        downloader(server).fetch("big.bin", digest, tmp_path / "got")


def test_nobody_there(tmp_path: Path, digest: FileDigest, server: webserver.Server) -> None:
    with pytest.raises(Unreachable):
        Downloader(WebTransport("http://127.0.0.1:9/"), Rates(), attempts=1).fetch("x", digest, tmp_path / "got")


def test_an_update_over_the_web(publisher: Publisher, device: Device, models: list[Path]) -> None:
    publisher.release(models[1], "2.0", 2)
    with webserver.serving(publisher.folder) as web:
        report = device.update(source=web.url)
        assert report.phase == "staged"
        fetched = [path for path, _ in web.asked if path.startswith("targets/nano/2.0/")]
    weights = hash_file(models[1] / "model.onnx.data").sha256
    assert fetched == [f"targets/nano/2.0/{weights}.model.onnx.data"]
    shared = {path.name for path in models[1].iterdir()} - {"model.onnx.data"}
    assert report.bytes_saved == sum((models[1] / name).stat().st_size for name in shared)
    same = device.slots.path("2.0") / "tokenizer.json"
    assert same.stat().st_ino == (device.slots.path("1.0") / "tokenizer.json").stat().st_ino


@pytest.mark.parametrize("trick", [webserver.drips, webserver.never_ends, webserver.status(500)])
@pytest.mark.parametrize("file", ["timestamp.json", ".snapshot.json", ".bundle.json", "model.onnx.data"])
def test_a_hostile_server_gets_nowhere(
    publisher: Publisher, device: Device, models: list[Path], file: str, trick: object
) -> None:
    publisher.release(models[1], "2.0", 2)
    with webserver.serving(publisher.folder) as web:
        web.tricks[file] = trick  # type: ignore[assignment]
        report = device.update(source=web.url, least_bytes_per_s=100_000, rate_window_s=0.2)
        assert report.phase == "failed"
        assert report.code in ("unreachable", "untrusted", "too_slow")
        assert device.slots.active == "1.0"
        web.tricks.clear()
        assert device.update(source=web.url).phase == "staged"
