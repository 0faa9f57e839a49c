"""`python -m tests.fault.update_attacks`: what thieves, broken servers, clocks and disks do to updates, one by one.

A daemon serves and customers ask all the while. Each fault must be refused with its code, in the report and in what the
daemon says; the old version goes on serving; and once the fault is gone the same release is fetched, tested and taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Timestamp

from edged.client import Client
from edged.update.bundle import Needs
from edged.update.errors import UpdateBusy
from edged.update.trust import ISSUED
from tests.fault.report import finish, parser
from tests.integration.asker import Asker
from tests.integration.box import Box, record
from tests.integration.raw import Daemon, until
from tests.unit.update import webserver
from tests.unit.update.signing import DAY_S, Device, Publisher

Changes = dict[str, Any]


class Bench:
    """A box under attack. `old` is its repository's metadata before the newest release."""

    def __init__(self, box: Box, client: Client) -> None:
        self.box, self.client, self.publisher = box, client, box.publisher
        self.device = Device(box.base, box.publisher, reserve_bytes=0)
        self.number = 0
        self.old: dict[str, bytes] = {}

    @property
    def metadata(self) -> Path:
        return self.publisher.folder / "metadata"

    @property
    def state(self) -> Path:
        return self.box.state

    def release(self, **more: Any) -> str:
        """One more release; its version."""
        self.number += 1
        self.old = self.publisher.backup()
        self.box.publish(f"{self.number}.0", self.number, **more)
        return f"{self.number}.0"

    def weights(self) -> Path:
        """The newest release's largest file, as the server has it."""
        folder = self.publisher.folder / "targets" / "nano" / f"{self.number}.0"
        return max(folder.iterdir(), key=lambda path: path.stat().st_size)

    def newest(self, role: str) -> Path:
        return max(self.metadata.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    """Other bytes in a file for a while."""
    had = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    try:
        yield
    finally:
        path.unlink() if had is None else path.write_bytes(had)


@contextmanager
def offered(bench: Bench, metadata: dict[str, bytes]) -> Iterator[Changes]:
    """Other metadata on the server for a while."""
    honest = bench.publisher.backup()
    bench.publisher.replay(metadata)
    try:
        yield {}
    finally:
        bench.publisher.replay(honest)


@contextmanager
def rollback(bench: Bench) -> Iterator[Changes]:
    bench.device.update(action="check")  # it has seen the new list
    with offered(bench, bench.old) as changes:
        yield changes


@contextmanager
def lost_cache(bench: Bench) -> Iterator[Changes]:
    bench.device.update(action="check")
    shutil.rmtree(bench.state / "update" / "trust")
    (bench.state / "update" / "floors.json").write_bytes(bytes(300))
    with offered(bench, bench.old) as changes:
        yield changes


@contextmanager
def all_memory_zeroed(bench: Bench) -> Iterator[Changes]:
    """Floors and root are zeros, and old lists are offered: nothing older than what is active is taken."""
    shutil.rmtree(bench.state / "update" / "trust")
    for path in (bench.state / "update" / "floors.json", bench.state / "models" / ".floors" / "floors.json"):
        path.write_bytes(bytes(path.stat().st_size))
    with offered(bench, bench.old) as changes:
        yield changes


@contextmanager
def freeze(bench: Bench) -> Iterator[Changes]:
    honest = bench.publisher.backup()
    bench.publisher.shift_s = -8 * DAY_S
    bench.publisher.publish()
    bench.publisher.shift_s = 0
    try:
        yield {}
    finally:
        bench.publisher.replay(honest)
        bench.publisher.publish()
        bench.publisher.publish()


@contextmanager
def clock_30_days_ahead(bench: Bench) -> Iterator[Changes]:
    yield {"shift_s": 30 * DAY_S}


def mixed(role: str) -> Callable[[Bench], contextlib.AbstractContextManager[Changes]]:
    """An old list of one role among the new ones of the others."""

    @contextmanager
    def fault(bench: Bench) -> Iterator[Changes]:
        oldest = min(bench.metadata.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))
        with replaced(bench.newest(role), oldest.read_bytes()):
            yield {}

    return fault


@contextmanager
def fast_forward(bench: Bench) -> Iterator[Changes]:
    """A stolen online key counts up to the sky; the root's holders give new online keys, and counting starts anew."""
    timestamp: Metadata[Timestamp] = Metadata.from_bytes((bench.metadata / "timestamp.json").read_bytes())
    timestamp.signed.version = 2**40
    timestamp.signed.unrecognized_fields[ISSUED] += 5 * 365 * int(DAY_S)
    timestamp.sign(bench.publisher.online)
    with replaced(bench.metadata / "timestamp.json", timestamp.to_bytes()):
        yield {}
    publisher = bench.publisher
    old, publisher.online = publisher.online, CryptoSigner.generate_ed25519()
    for role in ("snapshot", "timestamp"):
        publisher.repository.rotate(
            role, [old.public_key.keyid], [publisher.online.public_key], None, publisher.roots[:2]
        )
    publisher.publish()


@contextmanager
def endless_list(bench: Bench) -> Iterator[Changes]:
    path = bench.metadata / "timestamp.json"
    honest = path.read_bytes()
    with path.open("wb") as opened:
        opened.truncate(1 << 40)
    try:
        yield {}
    finally:
        path.write_bytes(honest)


def server(trick: Any, end: str = ".data") -> Callable[[Bench], contextlib.AbstractContextManager[Changes]]:
    """A web server that does this to the weights; it is asked for all of them."""

    @contextmanager
    def fault(bench: Bench) -> Iterator[Changes]:
        with webserver.serving(bench.publisher.folder) as web:
            web.tricks[end] = trick
            yield {"source": web.url, "least_bytes_per_s": 1_000_000, "rate_window_s": 0.3}

    return fault


@contextmanager
def no_server(bench: Bench) -> Iterator[Changes]:
    yield {"source": "http://127.0.0.1:9/"}


@contextmanager
def one_of_two_signatures(bench: Bench) -> Iterator[Changes]:
    text = json.loads(bench.newest("targets").read_bytes())
    text["signatures"] = text["signatures"][:1]
    with replaced(bench.newest("targets"), json.dumps(text).encode()):
        yield {}


@contextmanager
def ten_rotations_then_the_first_keys(bench: Bench) -> Iterator[Changes]:
    """The root walks ten versions on; then its first keys, all stolen, sign an eleventh."""
    publisher = bench.publisher
    stolen = list(publisher.roots)
    for _ in range(10):
        old, new = publisher.roots.pop(0), CryptoSigner.generate_ed25519()
        publisher.roots.append(new)
        publisher.repository.rotate("root", [old.public_key.keyid], [new.public_key], None, [old, *publisher.roots])
        publisher.publish()
    bench.device.update(action="check")
    version = publisher.repository.root.version + 1
    publisher.repository.rotate("root", [], [CryptoSigner.generate_ed25519().public_key], None, publisher.roots)
    forged = publisher.repository.draft_of("root")
    assert forged is not None
    forged.signatures.clear()
    for key in stolen:
        forged.sign(key, append=True)
    with replaced(bench.metadata / f"{version}.root.json", forged.to_bytes()):
        yield {}
    shutil.rmtree(publisher.folder / "pending", ignore_errors=True)


@contextmanager
def revoked_key(bench: Bench) -> Iterator[Changes]:
    publisher = bench.publisher
    stolen, fresh = publisher.signers[0], CryptoSigner.generate_ed25519()
    publisher.signers[0] = fresh
    publisher.repository.rotate(
        "targets", [stolen.public_key.keyid], [fresh.public_key], None, [*publisher.roots[:2], *publisher.signers]
    )
    publisher.publish()
    metadata = Metadata.from_bytes(bench.newest("targets").read_bytes())
    metadata.signatures.pop(fresh.public_key.keyid, None)
    metadata.sign(stolen, append=True)
    with replaced(bench.newest("targets"), metadata.to_bytes()):
        yield {}


@contextmanager
def disk_full_before_the_start(bench: Bench) -> Iterator[Changes]:
    yield {"reserve_bytes": 2**49}


def spoiled(how: Callable[[bytes], bytes]) -> Callable[[Bench], contextlib.AbstractContextManager[Changes]]:
    """The weights as the server has them, changed."""

    @contextmanager
    def fault(bench: Bench) -> Iterator[Changes]:
        path = bench.weights()
        with replaced(path, how(path.read_bytes())):
            yield {}

    return fault


FAULTS: dict[str, tuple[Callable[[Bench], contextlib.AbstractContextManager[Changes]], set[str]]] = {
    "rollback": (rollback, {"untrusted"}),
    "slow server": (server(webserver.drips), {"too_slow"}),
    "freeze": (freeze, {"expired"}),
    "mix-and-match of snapshot": (mixed("snapshot"), {"untrusted"}),
    "mix-and-match of targets": (mixed("targets"), {"untrusted"}),
    "fast-forward": (fast_forward, {"expired", "untrusted"}),
    "endless list": (endless_list, {"untrusted"}),
    "endless weights": (server(webserver.never_ends), {"untrusted"}),
    "no server": (no_server, {"unreachable"}),
    "1 of 2 signatures": (one_of_two_signatures, {"untrusted"}),
    "10 root rotations, then the first keys": (ten_rotations_then_the_first_keys, {"untrusted"}),
    "revoked key": (revoked_key, {"untrusted"}),
    "lost cache": (lost_cache, {"untrusted"}),
    "all memory zeroed": (all_memory_zeroed, {"up_to_date"}),
    "clock 30 days ahead": (clock_30_days_ahead, {"expired"}),
    "disk full before the start": (disk_full_before_the_start, {"no_space"}),
    "one bit of the weights": (spoiled(lambda data: data[:-1] + bytes([data[-1] ^ 1])), {"untrusted"}),
    "weights cut short": (spoiled(lambda data: data[: len(data) // 2]), {"unreachable", "untrusted"}),
}

OVER_THE_LINE = {"slow server", "endless weights", "one bit of the weights", "weights cut short"}
"""These need weights that the device cannot take from a version it has."""


def run(count: int, seconds: float) -> int:
    """The first `count` faults, then two updaters at once, a release for other hardware, and a clock far behind."""
    started_s = time.monotonic()
    failures: list[str] = []
    told: dict[str, str] = {}
    with Daemon(follow_updates=False, ignore_eos=True) as reference:
        golden = record(reference.ready())
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-attacks-"))
        box = stack.enter_context(Box(Path(folder), golden))
        bench = Bench(box, box.client())
        bench.release()
        _taken(bench)
        with Asker(bench.client.endpoint, clients=2, tokens=60, pause_s=0.2) as asker:
            extra: dict[str, Callable[[Bench], str]] = {
                "two updaters": _two_updaters,
                "other hardware": _other_hardware,
                "clock 25 years back": _clock_25_years_back,
            }
            for name in [*list(FAULTS)[:count], *extra]:
                if time.monotonic() - started_s > seconds:
                    failures.append(f"{name}: not reached within {seconds:.0f} s")
                    continue
                try:
                    told[name] = extra[name](bench) if name in extra else _suffer(bench, name)
                    _taken(bench)
                except AssertionError as error:
                    failures.append(f"{name}: {error}")
        failures += [f"lost: {line}" for line in asker.lost]
        streams = len(asker.answered)
    return finish(
        "update_attacks", started_s, failures, faults=len(told), refused=told, streams=streams, lost=len(asker.lost)
    )


def _suffer(bench: Bench, name: str) -> str:
    """One fault while a new release waits; what the box said of it."""
    fault, codes = FAULTS[name]
    before = bench.box.slots.active
    bench.release()
    if name in OVER_THE_LINE:
        _forget_local_copies(bench)
    with fault(bench) as changes:
        report = bench.device.update(**{"shipped": (), **changes})
        said = report.code or report.phase
        assert said in codes, f"{said!r}: {report.message}"
        shown = bench.client.update("status")
        assert (shown["last"]["code"] or shown["last"]["phase"]) == said, f"the status says {shown['last']}"
        assert shown["active"] == bench.box.slots.active == before, f"active was {before}, is {shown['active']}"
        _answers(bench)
    return f"{said}: {report.message}"[:160]


def _two_updaters(bench: Bench) -> str:
    bench.release()
    descriptor = os.open(bench.state / "update" / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        bench.device.update()
    except UpdateBusy as error:
        _answers(bench)
        return f"busy: {error}"
    finally:
        os.close(descriptor)
    raise AssertionError("two updaters were at work")


def _other_hardware(bench: Bench) -> str:
    before = bench.box.slots.active
    bench.release(needs=Needs(architectures=("riscv64",)))
    report = bench.device.update()
    assert (report.phase, bench.box.slots.active) == ("up_to_date", before), report
    why = next(iter(report.passed))["detail"]
    assert "riscv64" in why, why
    bench.release()
    return f"passed over: {why}"


def _clock_25_years_back(bench: Bench) -> str:
    """Seen from the other side: a publisher who lives 25 years ahead of this machine's clock, whose root of trust is
    brought to the box. Lists that expired by the time it has seen are refused, though its clock would believe them."""
    ahead = Publisher(bench.box.base / "ahead", shift_s=25 * 365 * DAY_S)
    bench.publisher = bench.box.publisher = ahead
    bench.device = Device(bench.box.base, ahead, reserve_bytes=0)
    bench.release()
    _taken(bench)
    ahead.shift_s += 10 * DAY_S
    ahead.publish()
    bench.device.update(action="check")
    bench.release(publish=False)
    ahead.shift_s -= 18 * DAY_S
    ahead.publish()  # newer by its number, and expired for a day by the time that was seen
    report = bench.device.update()
    assert report.code == "expired", report
    assert "clock is" in report.message, report.message
    assert bench.client.update("status")["last"]["code"] == "expired"
    _answers(bench)
    ahead.shift_s += 18 * DAY_S
    ahead.publish()
    return f"expired: {report.message}"


def _forget_local_copies(bench: Bench) -> None:
    """New weights, so that they must come over the line."""
    bench.publisher.replay(bench.old)
    folder = bench.box.base / f"{bench.number}.0"
    shutil.rmtree(bench.publisher.folder / "targets" / "nano" / f"{bench.number}.0")
    shutil.rmtree(bench.publisher.folder / "pending", ignore_errors=True)
    with (folder / "model.onnx.data").open("ab") as weights:
        weights.write(os.urandom(4096))  # beyond what the graph refers to
    golden = bench.box.golden
    bench.publisher.release(folder, f"{bench.number}.0", bench.number, golden=golden)


def _taken(bench: Bench) -> None:
    """The fault is gone: the same release comes, is tested and serves."""
    version = f"{bench.number}.0"
    report = bench.device.update()
    assert report.phase == "staged", f"the rerun: {report.phase} {report.code} {report.message}"
    until(lambda: bench.client.models()[0].raw.get("version") == version, f"{version} to serve", 120)
    until(lambda: not bench.client.update("status").get("testing"), "the watch to end", 60)


def _answers(bench: Bench) -> None:
    wanted = bench.box.golden[0]
    assert bench.client.chat(wanted.prompt, max_tokens=wanted.max_tokens).text == wanted.answer, "answers otherwise"


def main() -> int:
    given = parser(__doc__ or "", count=len(FAULTS), seconds=1500).parse_args()
    return run(given.count, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
