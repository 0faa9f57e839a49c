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

from edged.errors import Busy, NotFound, RequestError, Unavailable
from edged.protocol import engine as wire
from edged.serving.engine_link import EngineLink, State
from edged.serving.loader import Loader, LoadPolicy, Shelf
from edged.serving.make_room import RETRY_MS
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
    """A model's name and the link that serves it. While `holding` is not None requests wait there instead; `loading`
    is the load they wait for, None while another version takes the place. `by_owner`: the owner had it loaded, so
    that a request may bring it back whatever the settings say."""

    link: EngineLink
    by_owner: bool = False
    holding: dict[int, wire.Start] | None = None
    loading: asyncio.Task[None] | None = None


class Engines:
    """`on_message(message)` for what engines say to clients; `on_lost(link, suspect_rid, why)` when a process ended,
    with the clients' requests it had still in `link.live`."""

    def __init__(
        self,
        open_link: OpenLink,
        on_message: Callable[[wire.ToFront], None],
        on_lost: Callable[[EngineLink, int, str], None],
        shelf: Shelf,
        policy: LoadPolicy = LoadPolicy(),
    ) -> None:
        self._loader = Loader(shelf, policy, lambda: list(self))
        self._open_link, self._on_message, self._on_lost = open_link, on_message, on_lost
        self._places: dict[str, Place] = {}
        self._retiring: dict[EngineLink, asyncio.Task[None]] = {}
        self._asks = PrivateAsks()
        self.candidates: list[EngineLink] = []
        self.changed = asyncio.Event()  # set when any link changed its state

    # ---- which models there are

    def serve(self, name: str, folder: Path, version: str = "") -> EngineLink:
        """Start an engine for one more model at once, whatever else is in memory; the first one is the default."""
        assert name not in self._places, f"{name} is served already"
        link = self._open(name, folder, version)
        self._places[name] = Place(link, by_owner=True)
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
        """Hand a request to the engine of `model` (None: the default), which is loaded for it if the owner allows.

        Raises NotFound, Unavailable or Busy.
        """
        place = self._place(model)
        if place.holding is None and place.link.state is State.UNLOADED:
            if not (place.by_owner or self._loader.policy.for_request):
                raise Unavailable(f"model {place.link.name} is not loaded, and a request does not load it here")
            self._load(place, may_evict=self._loader.policy.evict)
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

    # ---- into memory and out

    async def load(self, name: str, *, may_evict: bool = True) -> EngineLink:
        """Bring a model into memory; returns when it is ready. Raises NotFound, Busy (what is in its way has work) or
        Unavailable. Goes on when the caller leaves."""
        place = self._place(name)
        place.by_owner = True
        if place.loading is None and place.link.state is State.UNLOADED:
            self._load(place, may_evict=may_evict)
        if place.loading is not None:
            await asyncio.shield(place.loading)
        await place.link.settled()
        if place.link.state is not State.READY:
            raise place.link.unavailable()
        return place.link

    async def unload(self, name: str) -> EngineLink:
        """Take an idle model out of memory; returns when it is. Raises NotFound, and Busy when it has work."""
        place = self._place(name)
        if place.link.live or place.holding is not None:
            raise Busy(f"model {place.link.name} has work; try again when it is done", retry_after_ms=RETRY_MS)
        place.by_owner = False
        if place.link.state is not State.UNLOADED:
            place.link.unload("unloaded by an admin; a request loads it again")
        await place.link.gone()
        return place.link

    def on_disk_only(self) -> list[str]:
        """Installed models that were never loaded here: a request may, where the owner allows it."""
        return [name for name in self._loader.shelf.names() if name not in self._places]

    def free_bytes(self) -> int:
        """What another model could have of the memory now."""
        return self._loader.shelf.free_bytes()

    def _load(self, place: Place, *, may_evict: bool) -> None:
        """Begin to load; the place holds requests until its engine does."""
        self._newest(place)
        place.holding = {}
        place.loading = asyncio.create_task(self._bring(place, may_evict=may_evict))
        place.loading.add_done_callback(_retrieved)

    async def _bring(self, place: Place, *, may_evict: bool) -> None:
        try:
            await self._loader.bring(place.link, lambda: self._let_go(place, {}), may_evict=may_evict)
        except RequestError as error:
            log.warning("model not loaded model=%s: %s", place.link.name, error.message)
            held, place.holding = place.holding or {}, None
            for rid in held:
                self._message(wire.Failed(rid, error.code, error.message, error.retry_after_ms))
            raise
        finally:
            place.loading = None

    def _newest(self, place: Place) -> None:
        """An unloaded model of the store comes back in the version that is active now."""
        found = self._loader.shelf.find(place.link.name)
        if found is not None and place.link.version and found[2] != place.link.version:
            place.link = self._open(*found)

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
        if place.loading is not None:
            with contextlib.suppress(RequestError):
                await asyncio.shield(place.loading)
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
        loading = [place.loading for place in self._places.values() if place.loading is not None]
        for task in (*self._retiring.values(), *loading):
            task.cancel()
        await asyncio.gather(*(link.stop() for link in self._links()))

    # ---- inside

    def _place(self, model: str | None) -> Place:
        if model is None:
            return next(iter(self._places.values()))
        if model not in self._places:
            found = self._loader.shelf.find(model)
            if found is None:
                names = dict.fromkeys([*self._places, *self._loader.shelf.names()])
                raise NotFound(f"model: {model[:64]!r} is not installed here; there are: {', '.join(names)}")
            model = found[0]  # an alias may name a model that is served
            if model not in self._places:
                self._places[model] = Place(self._open(*found))
        return self._places[model]

    def _links(self) -> list[EngineLink]:
        return [*self, *self.candidates, *self._retiring]

    def _open(self, name: str, folder: Path, version: str) -> EngineLink:
        def lost(suspect_rid: int, why: str) -> None:
            self._asks.lost(link.live - link.held.keys(), why)
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


def _retrieved(task: asyncio.Task[None]) -> None:
    """Its failure was told to those who waited."""
    if not task.cancelled():
        task.exception()
