"""The models that are served, each by an engine process of its own, and who gets which request.

Owns the links. A model's place in the pool lasts; the link in it may be replaced by another one of the same name (a new
version): at once when both fit into memory, or with the place holding requests in between. What a message means to a
client is the router's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edged.errors import NotFound, RequestError, Unavailable
from edged.protocol import engine as wire
from edged.serving.engine_link import EngineLink, State
from edged.serving.private_asks import PrivateAsks

log = logging.getLogger(__name__)


class OpenLink(Protocol):
    """Makes a link that is not started yet; the daemon's, who knows the settings."""

    def __call__(
        self,
        name: str,
        folder: Path,
        version: str,
        *,
        on_message: Callable[[wire.ToFront], None],
        on_lost: Callable[[int, str], None],
        on_change: Callable[[], None],
    ) -> EngineLink: ...


@dataclass(slots=True, eq=False)
class Place:
    """A model's name and the link that serves it. While `holding` is not None requests wait there instead."""

    link: EngineLink
    holding: dict[int, wire.Start] | None = None


class Engines:
    """`on_message(message)` for what engines say to clients; `on_lost(link, suspect_rid, why)` when a process ended,
    with the clients' requests it had still in `link.live`."""

    def __init__(
        self,
        open_link: OpenLink,
        on_message: Callable[[wire.ToFront], None],
        on_lost: Callable[[EngineLink, int, str], None],
    ) -> None:
        self._open_link, self._on_message, self._on_lost = open_link, on_message, on_lost
        self._places: dict[str, Place] = {}
        self._retiring: dict[EngineLink, asyncio.Task[None]] = {}
        self._asks = PrivateAsks()
        self.candidates: list[EngineLink] = []
        self.changed = asyncio.Event()  # set when any link changed its state

    # ---- which models there are

    def serve(self, name: str, folder: Path, version: str = "") -> EngineLink:
        """Start an engine for one more model; the first one is the default. Returns at once."""
        assert name not in self._places, f"{name} is served already"
        link = self._open(name, folder, version)
        self._places[name] = Place(link)
        link.start()
        return link

    def __iter__(self) -> Iterator[EngineLink]:
        """The links that serve, one for each model; the default's first."""
        return iter([place.link for place in self._places.values()])

    @property
    def default(self) -> EngineLink:
        """Serves requests that name no model."""
        return next(iter(self._places.values())).link

    def serving(self, name: str) -> EngineLink:
        """The link that serves `name` now. Raises NotFound."""
        return self._place(name).link

    def trouble(self) -> str:
        """What a serving link cannot recover from; "" while all do."""
        return next(filter(None, (link.trouble() for link in self)), "")

    def is_held(self, name: str) -> bool:
        """Whether requests for `name` wait, since its engine was ended by `hold`. Raises NotFound."""
        return self._place(name).holding is not None

    # ---- requests

    def check(self, model: str | None) -> None:
        """Raises NotFound for a model that is not served."""
        self._place(model)

    def submit(self, model: str | None, start: wire.Start) -> None:
        """Hand a request to the engine of `model` (None: the default). Raises NotFound, Unavailable or Busy."""
        place = self._place(model)
        if place.holding is not None:
            place.holding[start.rid] = start
        else:
            place.link.submit(start)

    def stop_request(self, rid: int, reason: str) -> bool:
        """End a request early; True when no engine had it and the caller must end it."""
        for place in self._places.values():
            if place.holding and place.holding.pop(rid, None) is not None:
                return True
        return any(link.stop_request(rid, reason) for link in self._links() if rid in link.live)

    def waits(self, rid: int) -> bool:
        """Whether a live request has not reached an engine yet."""
        held = any(rid in link.held for link in self._links())
        return held or any(rid in (place.holding or ()) for place in self._places.values())

    async def ask(self, link: EngineLink, op: str, **fields: Any) -> wire.Done | wire.Result:
        """A question of the daemon's own to one engine, a candidate say. Fields and errors: see PrivateAsks.ask."""
        return await self._asks.ask(link, op, **fields)

    # ---- another version of a model

    async def open_candidate(self, name: str, folder: Path, version: str, limit_s: float) -> EngineLink:
        """A second engine for `name` that gets no client's request; returns when it has answered its warm-up.

        Raises NotFound when `name` is not served, Unavailable when the model cannot be loaded or `limit_s` has passed;
        nothing is left running then.
        """
        self._place(name)
        link = self._open(name, folder, version)
        link.stays = True
        self.candidates.append(link)
        link.start()
        try:
            await asyncio.wait_for(link.settled(), limit_s)
        except BaseException as error:
            await self.discard(link)
            if isinstance(error, TimeoutError):
                raise Unavailable(f"model {name} was not loaded within {limit_s:.0f} s") from None
            raise
        if link.state is not State.READY:
            error_of_load = link.unavailable()
            await self.discard(link)
            raise error_of_load
        return link

    def promote(self, candidate: EngineLink) -> None:
        """From now on `candidate` serves its name: new requests and held ones go to it. The link before, if it still
        runs, finishes what it has, then its process ends."""
        place = self._place(candidate.name)
        old, place.link = place.link, candidate
        candidate.stays = False
        self.candidates.remove(candidate)
        log.info("model switched model=%s version=%s before=%s", candidate.name, candidate.version, old.version)
        self._let_go(place, old.release_held())
        if old.state is not State.STOPPED:
            self._retiring[old] = asyncio.create_task(self._retire(old))
        self.changed.set()

    async def discard(self, candidate: EngineLink) -> None:
        """End a candidate that shall not serve."""
        self._end_live(candidate, "this engine was ended")
        await candidate.stop()
        if candidate in self.candidates:
            self.candidates.remove(candidate)

    async def hold(self, name: str, drain_s: float) -> None:
        """New requests for `name` wait; running ones get up to `drain_s` to finish; then its process ends and all its
        memory is free. `promote` or `resume` goes on. Does nothing when it is held already."""
        place = self._place(name)
        if place.holding is not None:
            return
        link = place.link
        place.holding = link.release_held()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(link.drained(), drain_s)
        self._end_live(link, f"model {name} is being replaced; send the request again")
        await link.stop()

    def resume(self, name: str, folder: Path | None = None, version: str | None = None) -> EngineLink:
        """After `hold`: start an engine for `name` again, on `folder` (None: as before); held requests go to it."""
        place = self._place(name)
        assert place.holding is not None, f"{name} is not held"
        before = place.link
        place.link = self._open(name, folder or before.folder, before.version if version is None else version)
        place.link.start()
        self._let_go(place, {})
        self.changed.set()
        return place.link

    async def stop(self) -> None:
        """End every engine; nothing is asked of them any more."""
        for task in self._retiring.values():
            task.cancel()
        await asyncio.gather(*(link.stop() for link in self._links()))

    # ---- inside

    def _place(self, model: str | None) -> Place:
        if model is None:
            return next(iter(self._places.values()))
        if model not in self._places:
            raise NotFound(f"model: {model[:64]!r} is not loaded here; loaded: {', '.join(self._places)}")
        return self._places[model]

    def _links(self) -> list[EngineLink]:
        return [*self, *self.candidates, *self._retiring]

    def _open(self, name: str, folder: Path, version: str) -> EngineLink:
        def lost(suspect_rid: int, why: str) -> None:
            self._asks.lost(link.live, why)
            self._on_lost(link, suspect_rid, why)

        link = self._open_link(
            name, folder, version, on_message=self._message, on_lost=lost, on_change=self.changed.set
        )
        return link

    def _message(self, message: wire.ToFront) -> None:
        if not self._asks.take(message):
            self._on_message(message)

    def _let_go(self, place: Place, more: dict[int, wire.Start]) -> None:
        """Hand what was held for a place to its link."""
        held = {**(place.holding or {}), **more}
        place.holding = None
        for start in held.values():
            try:
                place.link.submit(start)
            except RequestError as error:
                self._message(wire.Failed(start.rid, error.code, error.message, error.retry_after_ms))

    def _end_live(self, link: EngineLink, why: str) -> None:
        """Answer what a link still has: it ends now."""
        for rid in list(link.live):
            link.stop_request(rid, "gone")
            self._message(wire.Failed(rid, Unavailable.code, why, 1000))

    async def _retire(self, link: EngineLink) -> None:
        await link.drained()
        await link.stop()
        del self._retiring[link]
