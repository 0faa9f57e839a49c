"""The daemon: builds the parts, starts them in order, serves, drains, stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from edged import __version__, logs, systemd
from edged.allocator import give_large_back_at_once
from edged.config import Settings
from edged.errors import ConfigError, OwnerError, RequestError
from edged.hardware.budget import Reserve
from edged.hardware.memory import own_rss_reader
from edged.protocol import engine as wire
from edged.protocol.endpoint import listen_endpoint, socket_path
from edged.protocol.limits import WireLimits
from edged.protocol.shared_ledger import SharedLedger
from edged.serving.access import make_access
from edged.serving.audit import Audit
from edged.serving.engine_link import EngineLink, State
from edged.serving.engines import Engines
from edged.serving.gate import Gate
from edged.serving.guard import Guard
from edged.serving.keyring import Keyring
from edged.serving.loader import LoadPolicy
from edged.serving.place import only_daemon
from edged.serving.router import Router
from edged.serving.stuck import HangRule
from edged.shelf import Shelf
from edged.status import describe
from edged.store.models import FoundModel, find_model
from edged.update.health import Limits
from edged.upkeep.host import HostRules
from edged.upkeep.keepers import Keepers, before_the_start

log = logging.getLogger(__name__)

LONGEST_LOAD_NOTICE_S = 30.0
LEAST_DESCRIPTORS = 1280  # for each door: what libzmq may take untold, 64 clients and as many on their way out, files


def run(settings: Settings, reload: Callable[[], Settings] | None = None) -> int:
    """Serve until told to stop; returns the exit status. Raises OwnerError for what the owner must mend first."""
    logs.set_up(settings.log_level, settings.log_format)
    endpoint = settings.endpoint or listen_endpoint()
    keyring = Keyring(settings.keys_path) if _listens_on_tcp(settings) else None
    gate = Gate(
        make_access(settings.access, own_uid=os.getuid()),
        Audit(settings.state_path / "audit.log"),
        keyring.rights if keyring is not None else lambda name: None,
    )
    _raise_fd_limit(LEAST_DESCRIPTORS * _doors(settings))
    give_large_back_at_once()
    with only_daemon(endpoint):
        state = settings.state_path
        claimed = before_the_start(state, endpoint, settings.model) if settings.follow_updates else None
        model = find_model(settings.model, state)
        return asyncio.run(_Daemon(settings, endpoint, model, gate, keyring, claimed, reload).main())


class _Daemon:
    def __init__(
        self,
        settings: Settings,
        endpoint: str,
        model: FoundModel,
        gate: Gate,
        keyring: Keyring | None,
        claimed: int | None,
        reload: Callable[[], Settings] | None,
    ) -> None:
        self._settings, self._endpoint, self._model, self._reload = settings, endpoint, model, reload
        self._gate, self._keyring, self._claimed = gate, keyring, claimed
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()

    async def main(self) -> int:
        self._start()
        feeding = asyncio.create_task(self._feed_watchdog())
        telling = asyncio.create_task(self._tell_service_manager())
        preloading = asyncio.create_task(self._preload())
        await self._stop.wait()
        if self._keepers is not None:
            await self._keepers.stop()
        await self._drain()
        for task in (feeding, telling, preloading):
            task.cancel()
        await self._engines.stop()
        self._guard.close()
        self._router.door.close()
        self._context.term()
        log.info("edged stopped")
        return 0

    def _start(self) -> None:
        context = self._context = zmq.Context()
        context.set(zmq.MAX_SOCKETS, 65535)
        limits, doors = wire_limits(self._settings), _doors(self._settings)
        self._router = Router(context, limits, describe, __version__, self._gate, doors)
        self._ledger = SharedLedger.create()
        settings = self._settings
        reserve = Reserve(settings.memory_reserve_bytes, settings.memory_reserve_fraction)
        self._engines = Engines(
            self._open_link,
            self._router.on_engine,
            self._router.on_lost,
            Shelf(settings.state_path, self._ledger, reserve),
            LoadPolicy(settings.max_loaded_models, settings.load_for_request, settings.evict_for_request),
        )
        self._router.use(self._engines)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        self._router.door.open(self._endpoint, self._keyring if self._endpoint.startswith("tcp:") else None)
        if self._settings.tcp_endpoint:
            self._router.door.open(self._settings.tcp_endpoint, self._keyring, _tcp_socket())
        rss_bytes, router = own_rss_reader(), self._router
        self._guard = Guard(
            self._router.door,
            settings.front_memory_bytes,
            lambda: rss_bytes() - router.streams.attached_bytes - router.door.unread_bytes,
            lambda client: bool(self._router.streams.of(client)),
        )
        self._guard.start()
        self._engines.serve(self._model.name, self._model.folder, self._model.version or "")
        self._keepers = self._keep()
        log.info("edged %s serving endpoint=%s model=%s", __version__, self._endpoint, self._model.folder)

    def _keep(self) -> Keepers | None:
        """Follow the store for models that are served by their names, if this daemon is the one to do so."""
        if self._claimed is None:
            return None
        settings = self._settings
        known = {"EDGED_STATE_DIR": str(settings.state_path), "EDGED_MODEL": settings.model}
        keepers = Keepers(settings.state_path, self._claimed, self._engines, self._host_rules, self._limits, known)
        self._router.on_update = keepers.desk.answer
        self._router.update_phases = keepers.phases
        return keepers

    def _host_rules(self) -> HostRules:
        return HostRules(self._settings.update_drain_s, self._settings.load_timeout_s)

    def _limits(self) -> Limits:
        settings = self._settings
        return Limits(
            load_s=settings.load_timeout_s,
            answer_s=settings.update_answer_s,
            least_speed=settings.update_least_speed,
            watch_s=settings.update_watch_s,
            watch_requests=settings.update_watch_requests,
            watch_most_s=settings.update_watch_most_s,
        )

    def _open_link(
        self,
        name: str,
        folder: Path,
        version: str,
        *,
        on_message: Callable[[wire.ToFront], None],
        on_lost: Callable[[int, str], None],
        on_change: Callable[[], None],
    ) -> EngineLink:
        settings = self._settings
        return EngineLink(
            self._context,
            name,
            engine_options(settings, FoundModel(name, folder, "")),
            HangRule(settings.hang_factor, settings.hang_floor_s),
            idle_s=settings.model_idle_s,
            beside=_directory(self._endpoint),
            on_message=on_message,
            on_lost=on_lost,
            on_change=on_change,
            version=version,
            ledger=self._ledger,
        )

    async def _preload(self) -> None:
        """The owner's list, after the default model; what cannot be loaded is told to the log."""
        await self._engines.default.settled()
        for name in self._settings.preload:
            try:
                await self._engines.load(name, may_evict=False)
            except RequestError as error:
                log.error("preload: %s", error.message)

    async def _drain(self) -> None:
        """Refuse new work, let running streams finish up to the limit, then answer what is left."""
        systemd.notify("STOPPING=1", "STATUS=draining")
        self._router.drain()
        live = len(self._router.streams)
        if live:
            log.info("draining live=%d limit_s=%.0f", live, self._settings.drain_s)
            idle = asyncio.create_task(self._router.wait_idle())
            at_once = asyncio.create_task(self._at_once.wait())
            await asyncio.wait({idle, at_once}, timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
            at_once.cancel()
        self._router.end_all("edged is stopping; try again after its restart")

    def _interrupt(self) -> None:
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    def _hangup(self) -> None:
        """Re-read the settings; take over at once what is safe to change, name what needs a restart."""
        if self._reload is None:
            return
        try:
            fresh = self._reload()
            self._gate.access = make_access(fresh.access, own_uid=os.getuid())
        except OwnerError as error:
            log.error("settings not re-read: %s", error)
            return
        changed = {name for name in Settings.model_fields if getattr(fresh, name) != getattr(self._settings, name)}
        logs.set_up(fresh.log_level, fresh.log_format)
        self._router.reconfigure(wire_limits(fresh))
        safe = {"access", "log_level", "log_format", "drain_s", *WireLimits.__dataclass_fields__}
        later = sorted(changed - safe)
        self._settings = fresh
        log.info("settings re-read changed=%s", ",".join(sorted(changed)) or "none")
        if later:
            log.warning("these take effect at the next restart: %s", ", ".join(later))

    async def _feed_watchdog(self) -> None:
        """While this loop turns and every engine serves, loads or recovers in time. Only failed recovery starves it."""
        interval_s = systemd.watchdog_interval_s()
        while interval_s is not None:
            trouble = self._engines.trouble()
            if trouble:
                log.error("recovery failed, the watchdog is not fed: %s", trouble)
            else:
                systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval_s)

    async def _tell_service_manager(self) -> None:
        """READY once the model has answered its first question, or cannot be loaded for a stated reason."""
        ready = False
        while True:
            self._engines.changed.clear()
            link = self._engines.default
            if link.state in (State.READY, State.FAILED) and not ready:
                ready = True
                systemd.notify("READY=1")
            elif not ready:
                systemd.notify(f"EXTEND_TIMEOUT_USEC={int(LONGEST_LOAD_NOTICE_S * 2e6)}")
            others = sum(other.state is State.READY for other in self._engines if other is not link)
            text = systemd.status_text(link.name, link.state.value, link.reason, link.info | link.stats, others)
            systemd.notify(f"STATUS={text}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._engines.changed.wait(), LONGEST_LOAD_NOTICE_S)


def _tcp_socket() -> int | None:
    """What systemd listens on for the service, which has no network of its own. Raises ConfigError when it does not."""
    listening = systemd.listening_socket()
    if listening is None and os.environ.get("RUNTIME_DIRECTORY"):
        raise ConfigError(
            "tcp_endpoint: systemd does not listen there yet; put its socket in place: sudo edged install"
        )
    return listening


def _listens_on_tcp(settings: Settings) -> bool:
    """Raises ConfigError for an endpoint of a kind that edged does not serve on."""
    if settings.tcp_endpoint and not settings.tcp_endpoint.startswith("tcp://"):
        raise ConfigError(f"tcp_endpoint: {settings.tcp_endpoint!r} is not of the form tcp://ADDRESS:PORT")
    return any(endpoint.startswith("tcp://") for endpoint in (settings.endpoint, settings.tcp_endpoint))


def wire_limits(settings: Settings) -> WireLimits:
    """The front's ceilings from the settings of the same names."""
    return WireLimits(**{name: getattr(settings, name) for name in WireLimits.__dataclass_fields__})


def engine_options(settings: Settings, model: FoundModel) -> dict[str, Any]:
    """What an engine is told; names are those of edged.engine.options."""
    same = (
        "provider strict_provider measure_at_load threads max_context default_max_tokens max_queue "
        "max_queue_per_client max_running tokens_per_minute_per_uid kv_share_per_uid max_priority max_sessions "
        "session_idle_s session_reread prefix_idle_s prefill_slice_ms prefill_alone_ms stream_interval_ms "
        "kv_memory_bytes memory_reserve_bytes memory_reserve_fraction load_timeout_s ignore_eos "
        "max_image_pixels max_image_bytes image_decode_s abandoned_call_s log_level log_format"
    )
    own = {"name": model.name, "folder": str(model.folder), "state_dir": str(settings.state_path)}
    return own | {name: getattr(settings, name) for name in same.split()}


def _directory(endpoint: str) -> Path | None:
    path = socket_path(endpoint)
    return path.parent if path else None


def _doors(settings: Settings) -> int:
    """How many endpoints it listens at."""
    return 2 if settings.tcp_endpoint else 1


def _raise_fd_limit(least: int) -> None:
    """The soft limit to the hard one: each connection takes a descriptor, and libzmq aborts when there are none.

    Raises ConfigError when the hard one is below `least`: too low for a front that holds.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < least:
        raise ConfigError(
            f"the hard limit of open files is {hard}; edged needs {least} to stand a flood of connections; "
            "raise it: LimitNOFILE= of the unit, or ulimit -Hn"
        )
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
