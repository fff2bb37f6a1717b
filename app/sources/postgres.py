"""PostgreSQL mode, the default and the rollback: each worker has a LISTEN session, and events have no ids.

What is notified while the session is away is not received, so every new session is a gap.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from functools import partial

import msgspec
import psycopg

from app.core.listen_session import ListenSession, Notification
from app.core.operator_errors import with_remedy
from app.core.postgres import describe, listening_conninfo
from app.core.postgres_connect import (
    SESSION_ERRORS,
    Backend,
    Inspection,
    LockWait,
    OpenSession,
    connected_url,
    inspect,
    open_session,
    retry_delay,
)
from app.core.session_health import SessionHealth
from app.core.session_health import describe as describe_wait
from app.sources.base import EventSink, SourceStatus
from app.sources.canary_session import CanarySession
from notifymux.background_call import in_background
from notifymux.event import MUX_CHANNEL, Event, EventId, payload_json
from notifymux.reconnect import ReconnectState, one_line
from notifymux.sequence_tracker import GapReason
from notifymux.stream_reader import Take

logger = logging.getLogger(__name__)

_CHECK_SECONDS = 0.25  # between two checks of a session on which nothing arrives


class PostgresSource:
    """Delivers the notifications of a LISTEN session.

    Args:
        url: returns PostgreSQL's connection string. It is called in a thread before every connect.
        channels: what to LISTEN on.
        name: the session's `application_name`.
        canary_interval: seconds between canaries.
        sink: receives the events.
    """

    def __init__(
        self, url: Callable[[], str], channels: tuple[str, ...], name: str, canary_interval: float, sink: EventSink
    ) -> None:
        self._url, self._name, self._channels = url, name, channels
        # A channel of this worker's own, so that its canaries wake no other worker.
        self._canary_channel = f"{MUX_CHANNEL}_{uuid.uuid4().hex[:16]}"
        self._canary_interval = canary_interval
        self._sink = sink
        self._state = ReconnectState("PostgreSQL", logger)
        self._last_backend: Backend | None = None  # of the last session, which the next one ends
        self._health: SessionHealth | None = None
        self._has_started = self._is_connected = False
        self._canary_at: float | None = None
        self._canary_failure: str | None = None  # why the last canary failed

    def status(self) -> SourceStatus:
        """Return the current state. The source is connected once a canary has come back."""
        lock_wait, stall = LockWait(), None
        if self._health:
            lock_wait = self._health.lock_wait
            stall = describe_wait(lock_wait) if lock_wait.sessions else self._health.problem
        return SourceStatus(
            self._is_connected,
            self._state.reason,
            self._state.reconnects,
            canary_at=self._canary_at,
            stall=stall,
            lock_wait=lock_wait,
        )

    async def run(self) -> None:
        """Deliver events until cancelled."""
        while True:
            try:
                await self._session()
            except SESSION_ERRORS as error:
                await asyncio.sleep(retry_delay(self._state, error))

    async def read_range(self, after: EventId, until: EventId, take: Take) -> bool:  # noqa: ARG002 - as the protocol has it
        """Return False: PostgreSQL keeps no notifications."""
        return False

    async def _session(self) -> None:
        opening = in_background(partial(self._open, self._last_backend))
        try:
            server, opened = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unused)
            raise
        self._last_backend = opened.backend
        self._health = SessionHealth(partial(self._inspect, opened.backend), logger)
        try:
            pgconn = opened.connection.pgconn
            session = CanarySession(
                ListenSession(pgconn),
                self._health,
                canary_channel=self._canary_channel,
                channels=self._channels,
                interval=self._canary_interval,
                deliver=partial(self._on_notifications, server),
                fail=self._on_failure,
            )
            await self._listen(session, pgconn.socket)
        finally:
            self._is_connected, self._health = False, None
            opened.connection.close()

    def _open(self, replaced: Backend | None) -> tuple[str, OpenSession]:
        url = self._url()
        opened = open_session(listening_conninfo(url, self._name), replaced)
        return describe(connected_url(url, opened.connection)), opened

    def _inspect(self, backend: Backend) -> Inspection:
        return inspect(listening_conninfo(self._url(), self._name), backend)

    async def _listen(self, session: CanarySession, socket: int) -> None:
        """Receive until the session is lost. Events are delivered in the callback that reads the socket."""
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[None] = loop.create_future()

        def step() -> None:
            try:
                session.step(time.monotonic())
            except Exception as error:  # noqa: BLE001 - `lost` raises it: a lost session is replaced, a bug is shown
                # At once: libpq has closed the socket, and another connection may get the same file descriptor.
                loop.remove_reader(socket)
                lost.set_exception(error)

        loop.add_reader(socket, step)
        try:
            while not lost.done():
                step()
                await asyncio.wait([lost], timeout=_CHECK_SECONDS)
            lost.result()
        finally:
            if not lost.done():
                loop.remove_reader(socket)

    def _on_notifications(self, server: str, notifications: list[Notification]) -> None:
        at = time.time()
        events: list[Event] = []
        for each in notifications:
            if each.channel != self._canary_channel:
                events.append(Event(each.channel, msgspec.Raw(payload_json(each.payload)), None, at))
                continue
            self._deliver(events)
            self._on_canary(server)
            events = [Event(MUX_CHANNEL, msgspec.Raw(each.payload), None, at)]
        self._deliver(events)

    def _deliver(self, events: list[Event]) -> None:
        if events:
            self._sink.deliver(events)

    def _on_canary(self, server: str) -> None:
        self._canary_at, self._canary_failure = time.monotonic(), None
        if self._is_connected:
            return
        self._is_connected = True
        self._state.recovered()
        logger.info("connected to %s, listening on %s", server, ", ".join(self._channels))
        if self._has_started:
            self._sink.gap(None, GapReason.SESSION)
        else:
            self._has_started = True
            self._sink.start(None, [])

    def _on_failure(self, error: psycopg.Error) -> None:
        failure = one_line(with_remedy(error))
        if failure != self._canary_failure:
            logger.warning("a canary failed: %s; the session is kept, and a canary follows every second", failure)
        self._canary_failure = failure


def _close_unused(opening: "asyncio.Future[tuple[str, OpenSession]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        _, opened = opening.result()
        opened.connection.close()
