"""One function per figure of the benchmark; where two sides are compared they take turns."""

from __future__ import annotations

import itertools
import operator
import statistics
import threading
import time
from dataclasses import dataclass
from typing import Any

from edged.bench.peers import BareLoop, Peer

TTFT_PAIRS = 3  # for each repeat
THINK_S = 3.0  # between an answer and the next turn of a session
WORDS = "set the kitchen lamp to forty percent and tell me which sensor is warmest now please "


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. `bar` is the aim as text; `met` whether the value keeps to it (None: no bar)."""

    name: str
    value: float
    unit: str
    bar: str = ""
    met: bool | None = None
    detail: dict[str, float] | None = None


def prompt_text(peer: Peer, tokens: int) -> str:
    """Text of about `tokens` tokens by the model's own tokenizer."""
    per_word = peer.call("tokenize", text=WORDS * 8)["count"] / len((WORDS * 8).split())
    words = (WORDS * (tokens // 8)).split()
    return " ".join(words[: max(1, int(tokens / per_word))])


def speed(bare: BareLoop, peer: Peer, repeats: int, max_tokens: int, bar: float) -> list[Figure]:
    """Decode rate and time to first token of both, one client, the same prompt, in turn.

    A busy host is fast and slow by turns, so neighbours are compared: the ratio is the median of the pairs' ratios,
    what is added the median of their differences. First tokens are taken from more and shorter answers than the rate.
    """
    text = prompt_text(peer, 64)
    bare_runs, daemon_runs = [], []
    lengths = [max_tokens] * (repeats + 1) + [2] * (TTFT_PAIRS * repeats)
    for number, tokens in enumerate(lengths):
        asked = f"{number} {text}"  # the daemon shall not find the last prompt's beginning in its cache
        bare_run = bare.run("chat", text=asked, max_tokens=tokens, capacity=512)
        daemon_run = _chat(peer, asked, tokens)
        if number:  # the first of each only warms up
            bare_runs.append(bare_run)
            daemon_runs.append(daemon_run)
    bare_tps, daemon_tps = (_column(runs[:repeats], "decode_tps") for runs in (bare_runs, daemon_runs))
    bare_ms, daemon_ms = ([ttft_s * 1000 for ttft_s in _column(runs, "ttft_s")] for runs in (bare_runs, daemon_runs))
    ratio = statistics.median(map(operator.truediv, daemon_tps, bare_tps))
    added_ms = statistics.median(map(operator.sub, daemon_ms, bare_ms))
    rates = _medians(bare_tps=bare_tps, daemon_tps=daemon_tps)
    firsts = _medians(bare_ms=bare_ms, daemon_ms=daemon_ms)
    return [
        Figure("decode ratio", ratio, "", f"≥ {bar}", ratio >= bar, rates),
        Figure("added TTFT", added_ms, "ms", "≤ 5", added_ms <= 5, firsts),
    ]


def ping_while_reading(peer: Peer, other: Peer) -> Figure:
    """p99 of `ping` while another client's 1,000-token prompt is read."""
    reading = threading.Event()
    times_ms: list[float] = []

    def read() -> None:
        for _ in range(_repeats_for(peer, 1000)):
            _chat(peer, f"{time.monotonic_ns()} {long_text}", 1)
        reading.set()

    long_text = prompt_text(peer, 1000)
    thread = threading.Thread(target=read)
    thread.start()
    while not reading.is_set():
        started_s = time.perf_counter()
        other.call("ping")
        times_ms.append((time.perf_counter() - started_s) * 1000)
        time.sleep(0.005)
    thread.join()
    p99 = _quantile(times_ms, 0.99)
    return Figure(
        "ping p99", p99, "ms", "≤ 10", p99 <= 10, {"p50_ms": _quantile(times_ms, 0.5), "pings": len(times_ms)}
    )


def gap_while_reading(peer: Peer, other: Peer) -> Figure:
    """p95 of the gap between tokens of a running stream while another client's 1,000-token prompt is read."""
    stamps: list[float] = []
    started = threading.Event()
    stop = threading.Event()

    def stream() -> None:
        turns = [_user(prompt_text_short)]  # with logprobs each token is sent, also one that has no text
        request = other.send("chat", messages=turns, max_tokens=2000, logprobs=1, stream=True)
        for now_s, reply in other.replies(request):
            if reply["ev"] == "delta":
                stamps.append(now_s)
                started.set()
                if stop.is_set():
                    other.send("cancel", target=request)
                    stop.clear()

    prompt_text_short, long_text = prompt_text(peer, 32), prompt_text(peer, 1000)
    thread = threading.Thread(target=stream)
    thread.start()
    started.wait(60)
    windows, turns_ms = [], []
    for _ in range(min(10, _repeats_for(peer, 1000))):
        before_s = time.perf_counter()
        turns_ms += _reading_turns_ms(peer, f"{time.monotonic_ns()} {long_text}")
        windows.append((before_s, time.perf_counter()))
    stop.set()
    thread.join()
    gaps_ms = [
        (right - left) * 1000
        for before_s, after_s in windows
        for left, right in itertools.pairwise(at for at in stamps if before_s <= at <= after_s)
    ]
    reading_ms = statistics.median(after_s - before_s for before_s, after_s in windows) * 1000
    p95 = _quantile(gaps_ms, 0.95)
    turn_ms = _quantile(turns_ms, 0.95)  # one slice of the prompt and one step of the stream, as its reader saw them
    allowed = turn_ms + 10  # deltas are gathered for up to 10 ms
    detail = {"turn_p95_ms": turn_ms, "gaps": len(gaps_ms), "reading_ms": reading_ms}
    return Figure("token gap p95 while reading", p95, "ms", f"≤ {allowed:.0f}", p95 <= allowed, detail)


def _reading_turns_ms(peer: Peer, text: str) -> list[float]:
    """How far apart the reports of a prompt's reading came, from `accepted` to the first token."""
    request = peer.send("chat", messages=[_user(text)], max_tokens=1, stream=True)
    told_s = [now_s for now_s, reply in peer.replies(request) if reply["ev"] in ("accepted", "progress", "done")]
    return [(right - left) * 1000 for left, right in itertools.pairwise(told_s)]


def second_turn(bare: BareLoop, peer: Peer, repeats: int, *, full_size: bool) -> Figure:
    """TTFT of a session's second turn with 1,000 tokens behind it ÷ TTFT of its new tokens alone.

    Every other time the second turn is asked at once: the engine had no time to read its own answer again, which is
    then a part of that turn (see `session_reread`); told as `at_once_ratio`.
    """
    behind, question = prompt_text(peer, 1000), prompt_text(peer, 32)
    ids = peer.call("tokenize", text=behind)["tokens"]
    new_ids = peer.call("tokenize", text=question)["tokens"]
    with_s, at_once_s, alone_s, bare_with_s, bare_alone_s = list[float](), list[float](), [], [], []
    for repeat in range(max(2, repeats)):
        name = f"bench-{repeat}"
        first = [_user(f"{repeat} {behind}")]
        answer = peer.call("chat", messages=first, max_tokens=8, session=name)["text"]
        turns = [*first, {"role": "assistant", "content": answer}, _user(question)]
        thinks = repeat % 2 == 0
        time.sleep(THINK_S if thinks else 0.0)
        (with_s if thinks else at_once_s).append(_chat_turns(peer, turns, 1, session=name)["ttft_s"])
        peer.call("session.close", session=name)
        alone_s.append(_chat(peer, f"{time.monotonic_ns()} {question}", 1)["ttft_s"])
        bare_with_s.append(bare.run("append", behind=ids, new=new_ids, capacity=2048)["ttft_s"])
        bare_alone_s.append(bare.run("append", behind=[], new=new_ids, capacity=512)["ttft_s"])
    ratio = statistics.median(with_s) / statistics.median(alone_s)
    bare_ratio = statistics.median(bare_with_s) / statistics.median(bare_alone_s)
    most = 1.3 if full_size else 1.1 * bare_ratio
    detail = {
        "second_turn_ms": statistics.median(with_s) * 1000,
        "alone_ms": statistics.median(alone_s) * 1000,
        "at_once_ratio": statistics.median(at_once_s) / statistics.median(alone_s),
        "bare_ratio": bare_ratio,
    }
    return Figure("second turn TTFT ratio", ratio, "", f"≤ {most:.2f}", ratio <= most, detail)


def cancel(peer: Peer, repeats: int) -> Figure:
    """From sending `cancel` to the `done` that follows the freeing of the KV memory, half while reading a prompt."""
    long_text = prompt_text(peer, 1000)
    times_ms = []
    for repeat in range(repeats):
        request = peer.send(
            "chat", messages=[_user(f"{time.monotonic_ns()} {long_text}")], max_tokens=1000, stream=True
        )
        sent_s = 0.0
        for now_s, reply in peer.replies(request):
            wanted = "accepted" if repeat % 2 else "delta"
            if reply["ev"] == wanted and not sent_s:
                sent_s = time.perf_counter()
                peer.send("cancel", target=request)
            elif reply["ev"] == "done":
                times_ms.append((now_s - sent_s) * 1000)
    engine = _fresh_stats(peer)
    slice_ms = engine["slice_tokens"] / engine["prefill_tps"] * 1000
    allowed = max(slice_ms, 1000 / engine["decode_tps"]) + 50
    worst = max(times_ms)
    return Figure("cancel to KV freed", worst, "ms", f"≤ {allowed:.0f}", worst <= allowed, {"slice_ms": slice_ms})


def _chat(peer: Peer, text: str, max_tokens: int) -> dict[str, float]:
    return _chat_turns(peer, [_user(text)], max_tokens)


def _chat_turns(peer: Peer, turns: list[dict[str, str]], max_tokens: int, **more: Any) -> dict[str, float]:
    started_s = time.perf_counter()
    first_s = last_s = 0.0
    tokens = 0
    for now_s, reply in peer.replies(peer.send("chat", messages=turns, max_tokens=max_tokens, stream=True, **more)):
        if reply["ev"] == "delta" and not first_s:
            first_s = now_s
        elif reply["ev"] == "done":
            last_s, tokens = now_s, reply["usage"]["completion_tokens"]
    first_s = first_s or last_s
    decode_tps = (tokens - 1) / (last_s - first_s) if tokens > 1 and last_s > first_s else 0.0
    return {"ttft_s": first_s - started_s, "decode_tps": decode_tps}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _fresh_stats(peer: Peer) -> dict[str, Any]:
    engine: dict[str, Any] = peer.status()["models"][0]["engine"]
    return engine


def _repeats_for(peer: Peer, tokens: int) -> int:
    """Enough prompts for a few seconds of reading."""
    tps = _fresh_stats(peer).get("prefill_tps") or 100.0
    return max(1, min(50, int(3.0 * tps / tokens)))


def _column(runs: list[dict[str, float]], name: str) -> list[float]:
    return [run[name] for run in runs]


def _medians(**columns: list[float]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in columns.items()}


def _quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")
