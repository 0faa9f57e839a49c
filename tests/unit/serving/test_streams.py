"""Live requests: each ends exactly once, ids are a client's own, ceilings hold. And what quarantine remembers."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from edged.errors import Busy, InvalidRequest, Quarantined
from edged.protocol.limits import WireLimits
from edged.serving.door import Client
from edged.serving.outbox import Outbox
from edged.serving.peer import Peer
from edged.serving.quarantine import MAX_REMEMBERED, Quarantine
from edged.serving.streams import Stream, Streams

pytestmark = pytest.mark.aarch64


def _client(number: int = 1) -> Client:
    return Client(b"client %d" % number, number, Peer(1000), False, Outbox(1000))


def _open(streams: Streams, client: Client, id_: int | str) -> Stream:
    return streams.open(client, (), id_, "chat", b"digest", 0.0, None)


class StreamRules(RuleBasedStateMachine):
    """Random opens and ends against a plain dictionary."""

    rids = Bundle("rids")

    def __init__(self) -> None:
        super().__init__()
        self.streams = Streams(WireLimits(max_requests=6, max_requests_per_client=3))
        self.clients = [_client(number) for number in range(3)]
        self.live: dict[int, tuple[Client, int]] = {}
        self.ended: set[int] = set()

    @rule(target=rids, who=st.integers(0, 2), id_=st.integers(1, 4))
    def open_one(self, who: int, id_: int) -> int:
        client = self.clients[who]
        mine = [key for owner, key in self.live.values() if owner is client]
        try:
            stream = _open(self.streams, client, id_)
        except InvalidRequest:
            assert id_ in mine
            return -1
        except Busy:
            assert len(mine) == 3 or len(self.live) == 6
            return -1
        assert id_ not in mine
        assert stream.rid not in self.ended | set(self.live)
        self.live[stream.rid] = (client, id_)
        return stream.rid

    @rule(rid=rids)
    def end_one(self, rid: int) -> None:
        was_live = self.live.pop(rid, None)
        stream = self.streams.end(rid)
        assert (stream is None) == (was_live is None)  # whoever gets it sends the last reply: nobody gets it twice
        if stream is not None:
            assert (stream.client, stream.id) == was_live
            self.ended.add(rid)

    @invariant()
    def agrees(self) -> None:
        assert len(self.streams) == len(self.live)
        assert {stream.rid for stream in self.streams} == set(self.live)
        for client in self.clients:
            ids = {key for owner, key in self.live.values() if owner is client}
            assert {stream.id for stream in self.streams.of(client)} == ids
            for id_ in range(1, 5):
                assert (self.streams.find(client, id_) is not None) == (id_ in ids)


TestStreams = StreamRules.TestCase


def test_another_clients_request_is_never_found() -> None:
    streams = Streams(WireLimits())
    mine, other = _client(1), _client(1)  # even one that looks the same
    stream = _open(streams, mine, "x")
    assert streams.find(mine, "x") is stream
    assert streams.find(other, "x") is None
    assert streams.of(other) == []


def test_an_id_of_1_and_an_id_of_text_1_are_two() -> None:
    streams = Streams(WireLimits())
    client = _client()
    assert _open(streams, client, 1) is not _open(streams, client, "1")


def test_two_deaths_condemn_an_input_and_no_other() -> None:
    quarantine = Quarantine()
    assert not quarantine.strike(b"bad")
    quarantine.check(b"bad")
    assert quarantine.strike(b"bad")
    with pytest.raises(Quarantined, match="twice"):
        quarantine.check(b"bad")
    quarantine.check(b"good")
    assert len(quarantine) == 1


def test_quarantine_forgets_the_oldest_above_its_ceiling() -> None:
    quarantine = Quarantine()
    for _ in range(2):
        quarantine.strike(b"first")
    for number in range(MAX_REMEMBERED):
        quarantine.strike(b"%d" % number)
    quarantine.check(b"first")
    assert len(quarantine) == 0


def test_attachments_of_all_live_requests_have_a_ceiling() -> None:
    streams = Streams(WireLimits(max_pending_bytes=1000))
    first = streams.open(_client(), (), 1, "infer", b"d", 0.0, None, 700)
    with pytest.raises(Busy, match="attachments"):
        streams.open(_client(2), (), 1, "infer", b"d", 0.0, None, 301)
    _open(streams, _client(2), 2)  # what brings nothing is taken
    streams.end(first.rid)
    streams.open(_client(3), (), 1, "infer", b"d", 0.0, None, 1000)
