"""Sessions and memory by way of the wire: what is kept, what is refused, who waits, and that the ceiling holds.

On a small random model made here: its answers are nonsense and depend on every token before them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.raw import Daemon, Peer, chat

pytest.importorskip("onnx", reason="tools/make_synthetic.py needs the extra `synthetic`")

TOOL = Path(__file__).parents[2] / "tools" / "make_synthetic.py"
LONG = "the quick brown fox jumps over the lazy dog again and again until the sun goes down "


def made(folder: Path, shape: str) -> Path:
    command = [sys.executable, str(TOOL), shape, str(folder / shape), "--quiet", "--vocab", "512"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / shape


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("models"), "tiny")


@pytest.fixture(scope="module")
def served(tiny: Path) -> Iterator[Daemon]:
    with Daemon(tiny, ignore_eos=True, default_max_tokens=16, max_sessions=8) as daemon:
        yield daemon.ready()


@pytest.fixture
def peer(served: Daemon) -> Iterator[Peer]:
    with Peer(served.endpoint) as peer:
        yield peer


def turns(*texts: str) -> list[dict[str, str]]:
    """A conversation: the user begins."""
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def events_of(peer: Peer, **fields: Any) -> dict[str, dict[str, Any]]:
    return {event["ev"]: event for event in peer.events(peer.send("chat", stream=True, **fields))}


def kv(daemon: Daemon) -> dict[str, int]:
    found: dict[str, int] = daemon.model()["engine"]["kv"]
    return found


def finished(daemon: Daemon) -> int:
    """Requests that the engine has ended, as status knows it: about a second late."""
    return int(daemon.model()["engine"].get("finished", 0))


def test_the_second_turn_of_a_session_reuses_the_first_and_answers_the_same(peer: Peer) -> None:
    first = peer.ask("chat", messages=turns(LONG * 3), session="two turns", max_tokens=12)
    assert first["usage"]["cached_tokens"] == 0
    again = turns(LONG * 3, first["text"], "and then?")
    events = events_of(peer, messages=again, session="two turns", max_tokens=12)
    assert events["accepted"]["session"] == "two turns"
    assert events["accepted"]["cached_tokens"] > 0.7 * first["usage"]["prompt_tokens"]
    assert events["done"]["usage"]["cached_tokens"] == events["accepted"]["cached_tokens"]
    peer.ask("session.close", session="two turns")
    in_session = peer.ask("chat", messages=again, session="fresh", max_tokens=12)
    assert in_session["usage"]["cached_tokens"] == 0
    kept = peer.ask("chat", messages=again, session="fresh", max_tokens=12)
    assert kept["usage"]["cached_tokens"] == kept["usage"]["prompt_tokens"] - 2
    assert kept["text"] == in_session["text"]
    peer.ask("session.close", session="fresh")


def test_a_shared_beginning_is_reused_without_a_session(peer: Peer) -> None:
    system = {"role": "system", "content": "You are a patient box. " + LONG}
    peer.ask("chat", messages=[system, *turns("who?")], max_tokens=4)
    second = peer.ask("chat", messages=[system, *turns("what?")], max_tokens=4)
    assert second["usage"]["cached_tokens"] > 0.5 * second["usage"]["prompt_tokens"]


def test_a_closed_session_is_gone_and_closing_it_again_says_so(peer: Peer) -> None:
    peer.ask("chat", **chat(LONG), session="short-lived", max_tokens=4)
    assert peer.ask("session.close", session="short-lived")["ev"] == "result"
    assert peer.ask("session.close", session="short-lived")["code"] == "not_found"
    assert peer.ask("chat", **chat(LONG), session="short-lived", max_tokens=4)["usage"]["cached_tokens"] == 0


def test_a_second_request_of_a_busy_session_waits_and_then_reuses_it(peer: Peer) -> None:
    slow = peer.send("chat", **chat(LONG), session="busy", max_tokens=400, stream=True)
    peer.until_event(slow, "accepted")
    second = peer.send("chat", **chat(LONG), session="busy", max_tokens=4, stream=True)
    other = peer.ask("chat", **chat("someone else"), session="free", max_tokens=4)
    assert other["ev"] == "done"  # nobody else waits for it
    assert peer.until_event(second, "queued")["position"] == 1
    assert peer.last(slow)["usage"]["completion_tokens"] == 400
    accepted = peer.until_event(second, "accepted")
    assert accepted["cached_tokens"] == accepted["prompt_tokens"] - 2
    assert peer.last(second)["ev"] == "done"


def test_a_thousand_sessions_are_served_and_the_oldest_make_room(served: Daemon, peer: Peer) -> None:
    names = [f"s{number}" for number in range(1000)]
    for start in range(0, len(names), 50):
        requests = [peer.send("chat", **chat("hi"), session=name, max_tokens=1) for name in names[start : start + 50]]
        for request in requests:
            assert peer.last(request)["ev"] == "done"
    served.until(lambda: served.model()["engine"]["running"] == 0, "the engine to idle")
    engine = served.until(lambda: served.model()["engine"], "its figures")
    assert engine["idle_slots"] <= 8
    assert engine["book_errors"] == 0
    assert peer.ask("session.close", session="s0")["code"] == "not_found"
    assert peer.ask("session.close", session=names[-1])["ev"] == "result"


def test_clients_that_hold_sessions_and_vanish_leave_only_what_others_may_take(served: Daemon) -> None:
    for number in range(10):
        with Peer(served.endpoint) as leaver:
            leaver.ask("chat", **chat(LONG), session=f"left {number}", max_tokens=4)
            leaver.send("chat", **chat(LONG), session=f"left {number}", max_tokens=3000, stream=True)
    served.until(lambda: kv(served)["running_bytes"] == 0, "the vanished clients' requests to end")
    assert served.model()["engine"]["idle_slots"] <= 8
    with Peer(served.endpoint) as peer:
        assert peer.ask("chat", **chat(LONG), max_tokens=4)["ev"] == "done"


@pytest.mark.parametrize("tokens", [2**63, 2**64 - 1, 2**31])
def test_a_request_for_absurdly_many_tokens_is_refused_by_name(peer: Peer, tokens: int) -> None:
    error = peer.ask("chat", **chat("hi"), max_tokens=tokens)
    assert error["code"] == "invalid_request"
    assert "max_tokens" in error["message"]


def test_more_tokens_than_the_context_is_too_large_with_what_fits(served: Daemon, peer: Peer) -> None:
    error = peer.ask("chat", **chat("hi"), max_tokens=2**31 - 1)
    assert (error["code"], error["retryable"]) == ("too_large", False)
    most = error["max_tokens_fit"]
    assert most == served.model()["context_tokens"]
    assert peer.ask("chat", **chat(LONG * 400), max_tokens=8)["max_tokens_fit"] == most


def test_old_turns_are_dropped_whole_when_the_client_allows_it(tiny: Path) -> None:
    with Daemon(tiny, ignore_eos=True, max_context=256) as daemon, Peer(daemon.ready().endpoint) as peer:
        system = {"role": "system", "content": "Be brief."}
        history = [system, *turns(*[LONG] * 9)]
        refused = peer.ask("chat", messages=history, max_tokens=16)
        assert (refused["code"], refused["max_tokens_fit"]) == ("too_large", 256)
        events = events_of(peer, messages=history, max_tokens=16, overflow="truncate_oldest")
        accepted = events["accepted"]
        assert accepted["dropped_turns"] in (2, 4, 6, 8)  # question and answer together
        assert accepted["prompt_tokens"] + 16 <= 256
        short = [system, *history[1 + accepted["dropped_turns"] :]]
        assert events_of(peer, messages=short, max_tokens=16)["accepted"]["prompt_tokens"] == accepted["prompt_tokens"]
        fits = events_of(peer, messages=turns("hi"), max_tokens=16, overflow="truncate_oldest")
        assert not fits["accepted"]["dropped_turns"]
        hopeless = peer.ask("chat", messages=turns(LONG * 20), max_tokens=16, overflow="truncate_oldest")
        assert hopeless["code"] == "too_large"


def test_a_small_ceiling_makes_clients_wait_and_is_never_passed(tiny: Path) -> None:
    """2 KiB a token: one MiB is 512 tokens, two of the smallest slots."""
    ceiling_bytes = 2**20
    with Daemon(tiny, ignore_eos=True, kv_memory_bytes=ceiling_bytes) as daemon, Peer(daemon.ready().endpoint) as peer:
        error = peer.ask("chat", **chat("hi"), max_tokens=2000)
        assert (error["code"], error["max_tokens_fit"]) == ("too_large", 512)
        assert peer.ask("chat", **chat("hi"), max_tokens=512 - 60)["ev"] == "done"
        requests = [peer.send("chat", **chat(f"number {n}"), max_tokens=150, stream=True) for n in range(8)]
        booked = []
        while finished(daemon) < 9:
            now = kv(daemon)
            booked.append(now["running_bytes"] + now["idle_bytes"])
            time.sleep(0.05)
        seen = [list(peer.events(request)) for request in requests]
        assert all(events[-1]["ev"] == "done" for events in seen)
        assert sum(events[0]["ev"] == "queued" for events in seen) >= 6
        assert sum(event["ev"] == "accepted" and event["kv_bytes"] <= ceiling_bytes for e in seen for event in e) == 8
        assert 0 < max(booked) <= ceiling_bytes
        assert daemon.model()["engine"]["book_errors"] == 0


def test_idle_sessions_are_given_back_after_their_time(tiny: Path) -> None:
    with Daemon(tiny, session_idle_s=1.5, prefix_idle_s=0.5) as daemon, Peer(daemon.ready().endpoint) as peer:
        peer.ask("chat", **chat("hi"), session="a", max_tokens=2)
        peer.ask("chat", **chat("hi"), max_tokens=2)
        daemon.until(lambda: finished(daemon) == 2, "the figures of both")
        daemon.until(lambda: kv(daemon)["idle_bytes"] == 0, "idle memory to be given back")
        assert peer.ask("session.close", session="a")["code"] == "not_found"


def test_a_longrope_model_is_capped_even_where_the_owner_asks_for_more(tmp_path: Path) -> None:
    """Past the limit its answers would be wrong without an error (see test_prefix_reuse)."""
    model = made(tmp_path, "tiny-longrope")
    with Daemon(model, max_context=1024, ignore_eos=True) as daemon, Peer(daemon.ready().endpoint) as peer:
        assert daemon.model()["context_tokens"] == 256
        error = peer.ask("chat", **chat("hi"), max_tokens=256)
        assert (error["code"], error["max_tokens_fit"]) == ("too_large", 256)
        assert peer.ask("chat", **chat("hi"), max_tokens=200)["usage"]["completion_tokens"] == 200


@pytest.mark.skipif(os.getuid() != 0, reason="only root may connect as another user")
def test_another_users_session_of_the_same_name_is_not_seen(served: Daemon) -> None:
    with Peer(served.endpoint) as peer:
        peer.ask("chat", **chat(LONG), session="private", max_tokens=4)
    served.socket.parent.chmod(0o755)
    served.directory.chmod(0o755)
    served.socket.chmod(0o666)
    code = (
        "import os, sys, msgpack, zmq; os.setgid(65534); os.setuid(65534)\n"
        "s = zmq.Context.instance().socket(zmq.REQ); s.connect(sys.argv[1])\n"
        "def ask(**m):\n"
        "    s.send(msgpack.packb({'v': 1, 'id': 1, **m})); assert s.poll(60000), 'no reply'\n"
        "    return msgpack.unpackb(s.recv())\n"
        "m = [{'role': 'user', 'content': sys.argv[2]}]\n"
        "print(ask(op='session.close', session='private').get('code'))\n"
        "r = ask(op='chat', messages=m, session='private', max_tokens=4)\n"
        "print(r['usage']['cached_tokens'] if 'usage' in r else r['code'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, served.endpoint, LONG], capture_output=True, text=True, timeout=90
    )
    assert done.stdout.split() in (["not_found", "0"], ["unauthorized", "unauthorized"]), done.stdout + done.stderr
    with Peer(served.endpoint) as peer:
        assert peer.ask("session.close", session="private")["ev"] == "result"
