"""Both clients against a real daemon, and against what goes wrong on the way to one."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest
import zmq

from edged.client import (
    Accepted,
    AsyncClient,
    BadReply,
    Client,
    ConnectionLost,
    DaemonNotFound,
    Delta,
    NoReply,
    UsageError,
)
from edged.client.requests import ChatOptions
from edged.errors import InvalidRequest, NotFound, RequestError, TooLarge, Unavailable
from tests.integration.raw import Daemon, until

LONG: ChatOptions = {"max_tokens": 3000, "temperature": 1.5, "seed": 7}  # seconds of text, if nobody stops it


@pytest.fixture
def client(endless: Daemon) -> Iterator[Client]:
    with Client(endless.endpoint) as connected:
        yield connected


def idle(daemon: Daemon) -> Callable[[], bool]:
    """Whether the engine holds nothing that runs."""

    def nothing_runs() -> bool:
        status = daemon.status()
        engine = status["models"][0]["engine"]
        return not status["front"]["live_requests"] and not engine["running"] and not engine["kv"]["running_bytes"]

    return nothing_runs


class TestBlocking:
    def test_whole_and_streamed_answers_are_the_same_text(self, client: Client) -> None:
        whole = client.chat("set the lab fan to 40 percent", max_tokens=30, temperature=1.0, seed=3)
        with client.chat(
            "set the lab fan to 40 percent", max_tokens=30, temperature=1.0, seed=3, stream=True
        ) as stream:
            pieces = list(stream)
        assert "".join(pieces) == stream.text == whole.text
        assert whole.text
        assert stream.answer is not None
        assert stream.answer.usage.completion_tokens == whole.usage.completion_tokens == 30
        assert whole.finish_reason == "length"
        assert whole.accepted.prompt_tokens == whole.usage.prompt_tokens > 5
        assert whole.accepted.kv_bytes > 0
        assert whole.timings.ttft_ms is not None
        assert whole.timings.decode_tps is not None

    def test_events_tell_the_way_of_a_request(self, client: Client) -> None:
        events = list(client.chat("hello", max_tokens=5, temperature=1.0, seed=1, stream=True).events())
        assert isinstance(events[0], Accepted)
        assert events[-1].text == "".join(event.text for event in events if isinstance(event, Delta))  # type: ignore[union-attr]

    def test_a_list_of_turns_is_a_conversation(self, client: Client) -> None:
        turns = [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": [{"type": "text", "text": "again"}]},
        ]
        longer, one = client.chat(turns, max_tokens=2), client.chat("again", max_tokens=2)
        assert longer.usage.prompt_tokens > one.usage.prompt_tokens

    def test_generate_takes_raw_text(self, client: Client) -> None:
        raw = client.generate("hello", max_tokens=3)
        assert raw.usage.completion_tokens == 3
        assert raw.usage.prompt_tokens < client.chat("hello", max_tokens=3).usage.prompt_tokens

    def test_tokenize_counts_and_reads_control_tokens_as_text(self, client: Client) -> None:
        plain, control = client.tokenize("a"), client.tokenize("a<|end|>")
        assert plain.count == len(plain.tokens)
        assert control.count > plain.count + 1

    def test_what_the_daemon_says_of_itself(self, client: Client, endless: Daemon) -> None:
        assert client.ping() > 0
        hello = client.hello()
        assert hello.protocol == "edged/1"
        assert {"chat", "cancel", "status"} <= set(hello.ops)
        assert hello.limits["max_header_bytes"] > 0
        model, *others = client.models()
        assert {other.state for other in others} <= {"unloaded"}
        assert (model.name, model.state) == (hello.models[0], "ready")
        status = client.status()
        assert status.raw["front"]["pid"] == endless.pid
        assert status.models[0].raw["engine"]["kv"]["budget_bytes"] > 0

    def test_a_session_keeps_what_was_read_until_it_is_closed(self, client: Client) -> None:
        client.chat("hello there", max_tokens=4, session="s1")
        again = client.chat("hello there", max_tokens=4, session="s1")
        assert again.usage.cached_tokens > 0
        client.session_close("s1")
        with pytest.raises(NotFound, match="session"):
            client.session_close("s1")

    def test_leaving_the_loop_cancels_the_answer(self, client: Client, endless: Daemon) -> None:
        for piece in client.chat("hello", stream=True, **LONG):
            assert piece
            break
        until(idle(endless), "the cancelled answer to end")
        assert client.ping() > 0

    def test_leaving_the_with_cancels_the_answer(self, client: Client, endless: Daemon) -> None:
        with client.chat("hello", stream=True, **LONG) as stream:
            next(stream)
        until(idle(endless), "the cancelled answer to end")
        assert stream.answer is None
        with pytest.raises(UsageError, match="closed before its end"):
            stream.result()

    def test_a_cancel_keeps_the_partial_answer(self, client: Client) -> None:
        stream = client.chat("hello", stream=True, **LONG)
        first = next(stream)
        assert client.cancel(stream)
        answer = stream.result()
        assert answer.finish_reason == "cancelled"
        assert answer.text.startswith(first)
        assert answer.usage.completion_tokens < 3000
        assert not client.cancel(stream)

    def test_two_streams_and_a_ping_interleave(self, client: Client) -> None:
        one = client.chat("hello", max_tokens=40, temperature=1.0, seed=1, stream=True)
        two = client.chat("hello", max_tokens=40, temperature=1.0, seed=2, stream=True)
        texts: tuple[list[str], list[str]] = ([next(one)], [next(two)])
        assert client.ping() > 0
        texts[1].extend(two)
        texts[0].extend(one)
        for seed, text in enumerate(texts, 1):
            alone = client.chat("hello", max_tokens=40, temperature=1.0, seed=seed)
            assert "".join(text) == alone.text

    def test_the_daemons_deadline_ends_an_answer_with_what_there_is(self, client: Client) -> None:
        answer = client.chat("hello", deadline_ms=400, **LONG)
        assert answer.finish_reason == "deadline"
        assert 0 < answer.usage.completion_tokens < 3000


class TestErrors:
    def test_an_error_answer_is_an_exception_of_its_own(self, client: Client) -> None:
        with pytest.raises(InvalidRequest, match="temperature"):
            client.chat("hello", temperature=-1)
        with pytest.raises(NotFound, match="installed here"):
            client.chat("hello", model="gpt-17")
        with pytest.raises(TooLarge) as raised:
            client.chat("hello " * 9000, max_tokens=1)
        assert raised.value.max_tokens_fit
        assert not raised.value.retryable
        assert client.ping() > 0

    def test_a_request_too_large_to_be_read_is_refused_and_not_waited_for(self, client: Client) -> None:
        with pytest.raises(InvalidRequest, match="bytes"):
            client.tokenize("x" * 400_000)
        with pytest.raises(InvalidRequest, match="bytes"):
            client.chat("x" * 400_000)

    def test_nobody_there(self, short_path: Path) -> None:
        with pytest.raises(DaemonNotFound, match="edged serve"):
            Client(f"ipc://{short_path}/none.sock")
        with pytest.raises(DaemonNotFound, match="not a usable ZeroMQ endpoint"):
            Client("nonsense://x")

    def test_a_daemon_that_is_killed_is_noticed_at_once(self, daemon: Callable[..., Daemon]) -> None:
        started = daemon(ignore_eos=True)
        with Client(started.endpoint, timeout_s=300) as client:
            stream = client.chat("hello", stream=True, **LONG)
            next(stream)
            os.kill(started.pid, signal.SIGKILL)
            with pytest.raises(ConnectionLost, match="went away"):
                stream.result()
            with pytest.raises(DaemonNotFound):
                client.ping()

    def test_a_client_outlives_its_daemon(self, daemon: Callable[..., Daemon], short_path: Path) -> None:
        with Daemon(directory=short_path) as first, Client(first.ready().endpoint) as client:
            assert client.ping() > 0
            assert first.terminate() == 0
            with Daemon(directory=short_path) as second:
                second.ready()
                assert client.chat("hello", max_tokens=2).usage.completion_tokens > 0

    def test_a_daemon_that_stops_says_so(self, daemon: Callable[..., Daemon]) -> None:
        started = daemon(ignore_eos=True, drain_s=0.3)
        with Client(started.endpoint) as client:
            stream = client.chat("hello", stream=True, **LONG)
            next(stream)
            started.process.send_signal(signal.SIGTERM)
            with pytest.raises(Unavailable, match="stopping"):
                stream.result()

    def test_a_daemon_that_hangs_is_not_waited_for_forever(self, daemon: Callable[..., Daemon]) -> None:
        started = daemon()
        with Client(started.endpoint, timeout_s=1.0) as client:
            os.kill(started.pid, signal.SIGSTOP)
            try:
                for ask in (client.ping, lambda: client.chat("hello")):
                    with pytest.raises(NoReply, match="no reply within 1 s") as raised:
                        ask()
                    assert isinstance(raised.value, TimeoutError)
            finally:
                os.kill(started.pid, signal.SIGCONT)
            assert client.chat("hello", max_tokens=1).usage.completion_tokens == 1  # late replies confuse nobody

    def test_something_else_that_answers_is_named_as_such(self, short_path: Path) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.bind(f"ipc://{short_path}/x.sock")

            def answer() -> None:
                peer, _ = router.recv_multipart()
                router.send_multipart([peer, b"HTTP/1.1 400 Bad Request"])

            thread = threading.Thread(target=answer)
            thread.start()
            with Client(f"ipc://{short_path}/x.sock") as client, pytest.raises(BadReply):
                client.ping()
            thread.join()

    def test_a_silent_but_living_daemon_is_waited_for(self, short_path: Path) -> None:
        """A queue may be silent about a request for longer than the patience: pongs are enough."""
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.bind(f"ipc://{short_path}/x.sock")

            def answer() -> None:
                peer, data = router.recv_multipart()
                asked = msgpack.unpackb(data)
                end_s = time.monotonic() + 1.5
                while time.monotonic() < end_s:
                    if router.poll(50):
                        peer, data = router.recv_multipart()
                        ping = msgpack.unpackb(data)
                        assert ping["op"] == "ping"
                        router.send_multipart([peer, msgpack.packb({"v": 1, "id": ping["id"], "ev": "result"})])
                done = {"v": 1, "id": asked["id"], "ev": "done", "finish_reason": "stop", "text": "at last"}
                router.send_multipart([peer, msgpack.packb(done)])

            thread = threading.Thread(target=answer)
            thread.start()
            with Client(f"ipc://{short_path}/x.sock", timeout_s=0.5) as client:
                assert client.chat("hello").text == "at last"
            thread.join()

    def test_a_closed_client_says_so(self, endless: Daemon) -> None:
        client = Client(endless.endpoint)
        client.close()
        client.close()
        with pytest.raises(UsageError, match="closed"):
            client.ping()

    @pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
    def test_a_timeout_must_be_one(self, endless: Daemon, timeout_s: float) -> None:
        with pytest.raises(UsageError, match="timeout_s"):
            Client(endless.endpoint, timeout_s=timeout_s)


class TestAsync:
    async def test_many_requests_in_flight_keep_their_own_answers(self, endless: Daemon) -> None:
        async with AsyncClient(endless.endpoint) as client:
            texts = [f"hello number {number}" for number in range(24)]
            counts = await asyncio.gather(*(client.tokenize(text) for text in texts))
            answers = await asyncio.gather(
                *(client.chat(text, max_tokens=12, temperature=1.0, seed=number) for number, text in enumerate(texts))
            )
            assert [found.count for found in counts] == [(await client.tokenize(text)).count for text in texts]
            for number in (0, 11, 23):
                alone = await client.chat(texts[number], max_tokens=12, temperature=1.0, seed=number)
                assert answers[number].text == alone.text
                assert answers[number].usage.prompt_tokens == alone.usage.prompt_tokens

    async def test_streams_of_two_tasks_run_side_by_side(self, endless: Daemon) -> None:
        async with AsyncClient(endless.endpoint) as client:

            async def read(seed: int) -> str:
                stream = client.chat("hello", max_tokens=60, temperature=1.0, seed=seed, stream=True)
                text = "".join([piece async for piece in stream])
                assert stream.answer is not None
                assert stream.answer.text == text
                return text

            one, two = await asyncio.gather(read(1), read(2))
            assert one != two

    async def test_ping_hello_models_status_and_sessions(self, endless: Daemon) -> None:
        async with AsyncClient(endless.endpoint) as client:
            assert await client.ping() > 0
            assert (await client.hello()).protocol == "edged/1"
            assert (await client.models())[0].state == "ready"
            assert (await client.status()).raw["front"]["pid"] == endless.pid
            await client.generate("hello", max_tokens=2, session="async")
            await client.session_close("async")
            with pytest.raises(NotFound):
                await client.session_close("async")

    async def test_a_cancelled_task_cancels_its_request(self, endless: Daemon) -> None:
        async with AsyncClient(endless.endpoint) as client:
            task = asyncio.create_task(_read_all(client))
            await asyncio.to_thread(until, lambda: endless.status()["front"]["live_requests"], "the request to be live")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(until, idle(endless), "the cancelled answer to end")
            assert await client.ping() > 0

    async def test_leaving_the_async_with_cancels(self, endless: Daemon) -> None:
        async with AsyncClient(endless.endpoint) as client:
            async with client.chat("hello", stream=True, **LONG) as stream:
                async for _ in stream:
                    break
            await asyncio.to_thread(until, idle(endless), "the cancelled answer to end")

    async def test_cancel_keeps_the_partial_answer(self, endless: Daemon) -> None:
        async with AsyncClient(endless.endpoint) as client:
            stream = client.chat("hello", stream=True, **LONG)
            with pytest.raises(UsageError, match="not started"):
                await client.cancel(stream)
            await anext(stream)
            assert await client.cancel(stream)
            assert (await stream.result()).finish_reason == "cancelled"

    async def test_errors_are_the_same_exceptions(self, endless: Daemon, short_path: Path) -> None:
        async with AsyncClient(endless.endpoint) as client:
            with pytest.raises(InvalidRequest, match="top_p"):
                await client.chat("hello", top_p=2)
            with pytest.raises(InvalidRequest, match="bytes"):
                await client.tokenize("x" * 400_000)
            results = await asyncio.gather(
                client.chat("hello", max_tokens=1), client.chat("hello", seed=-1), return_exceptions=True
            )
            assert [isinstance(result, RequestError) for result in results] == [False, True]
        with pytest.raises(UsageError, match="closed"):
            await client.ping()
        with pytest.raises(DaemonNotFound):
            AsyncClient(f"ipc://{short_path}/none.sock")

    async def test_what_goes_on_talking_nonsense_is_no_longer_listened_to(self, short_path: Path) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.bind(f"ipc://{short_path}/x.sock")

            def answer() -> None:
                peer, _ = router.recv_multipart()
                for _ in range(100):
                    router.send_multipart([peer, b"HTTP/1.1 400 Bad Request"])

            async with AsyncClient(f"ipc://{short_path}/x.sock") as client:
                talking = asyncio.create_task(asyncio.to_thread(answer))
                for _ in range(2):
                    with pytest.raises(BadReply):
                        await client.ping()
                await talking
                descriptor = client._connection._socket.getsockopt(zmq.FD)  # type: ignore[union-attr]
                assert not asyncio.get_running_loop().remove_reader(descriptor), "nobody reads it any more"

    async def test_a_daemon_that_is_killed_fails_everything_in_flight(self, daemon: Callable[..., Daemon]) -> None:
        started = daemon(ignore_eos=True)
        async with AsyncClient(started.endpoint, timeout_s=300) as client:
            tasks = [asyncio.create_task(_read_all(client)) for _ in range(5)]
            await asyncio.to_thread(
                until, lambda: started.status()["front"]["live_requests"] == 5, "the requests to be live"
            )
            os.kill(started.pid, signal.SIGKILL)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [ConnectionLost] * 5
            with pytest.raises(DaemonNotFound):
                await client.ping()

    async def test_a_daemon_that_hangs_is_not_waited_for_forever(self, daemon: Callable[..., Daemon]) -> None:
        started = daemon()
        async with AsyncClient(started.endpoint, timeout_s=1.0) as client:
            await client.ping()
            os.kill(started.pid, signal.SIGSTOP)
            try:
                results = await asyncio.gather(client.ping(), client.chat("hello"), return_exceptions=True)
            finally:
                os.kill(started.pid, signal.SIGCONT)
            assert [type(result) for result in results] == [NoReply, NoReply]
            assert await client.ping() > 0


async def _read_all(client: AsyncClient) -> str:
    return "".join([piece async for piece in client.chat("hello", stream=True, **LONG)])
