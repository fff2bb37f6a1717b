"""PostgreSQL mode, the default and the rollback: each worker has a LISTEN session, and events have no ids.

What is notified while the session is away is not received, so every new session is a gap.
"""

import asyncio
import logging
import time
import uuid

import msgspec
import psycopg

from app.core.canary import CANARY_TIMEOUT_SECONDS, MUX_CHANNEL
from app.core.operator_errors import OperatorError, check_direct, check_operator
from app.core.postgres import ListenSession, Notification, canary_sql, describe, listen_sql, listening_conninfo
from app.sources.base import EventSink, GapReason, SourceStatus
from notifymux.event import Event, EventId, payload_json
from notifymux.reconnect import ReconnectState

logger = logging.getLogger(__name__)


class PostgresSource:
    """Delivers the notifications of a LISTEN session.

    Args:
        url: PostgreSQL's connection string.
        channels: what to LISTEN on.
        name: the session's `application_name`.
        canary_interval: seconds between canaries.
        sink: receives the events.
    """

    def __init__(self, url: str, channels: tuple[str, ...], name: str, canary_interval: float, sink: EventSink) -> None:
        self._url, self._conninfo = url, listening_conninfo(url, name)
        self._channels = channels
        # A channel of this worker's own, so that its canaries wake no other worker.
        self._canary_channel = f"{MUX_CHANNEL}_{uuid.uuid4().hex[:16]}"
        self._canary_interval = canary_interval
        self._sink = sink
        self._state = ReconnectState("PostgreSQL", logger)
        self._waiting_since: float | None = None  # since when a canary is awaited that hasn't come back
        self._has_started = self._is_connected = False
        self._canary_at: float | None = None

    def status(self) -> SourceStatus:
        """Return the current state. The source is connected once a canary has come back."""
        return SourceStatus(self._is_connected, self._state.reason, self._state.reconnects, canary_at=self._canary_at)

    async def run(self) -> None:
        """Deliver events until cancelled."""
        while True:
            try:
                await self._session()
            except (psycopg.Error, OSError, OperatorError) as error:
                await asyncio.sleep(self._state.failed(_with_remedy(error)))

    async def read_range(self, after: EventId, until: EventId) -> list[Event] | None:
        """Return None: PostgreSQL keeps no notifications."""

    async def _session(self) -> None:
        connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        try:
            row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
            check_direct(connection.pgconn, row[0] if row else None)
            await self._listen(ListenSession(connection.pgconn))
        finally:
            self._is_connected, self._waiting_since = False, None
            await connection.close()

    async def _listen(self, session: ListenSession) -> None:
        """Receive until the session is lost. Events are delivered in the callback that reads the socket."""
        loop, socket = asyncio.get_running_loop(), session.fileno()
        lost: asyncio.Future[None] = loop.create_future()

        def on_readable() -> None:
            try:
                self._on_notifications(session.receive())
            except Exception as error:  # noqa: BLE001 - `lost` raises it: a lost session is replaced, a bug is shown
                # At once: libpq has closed the socket, and another connection may get the same file descriptor.
                loop.remove_reader(socket)
                lost.set_exception(error)

        loop.add_reader(socket, on_readable)
        try:
            session.send(listen_sql([self._canary_channel, *self._channels], self._canary()))
            while True:
                self._waiting_since = self._waiting_since or time.monotonic()
                await asyncio.wait([lost], timeout=self._canary_interval)
                if lost.done():
                    lost.result()
                self._check_canary()
                session.send(listen_sql([self._canary_channel], self._canary()))
        finally:
            if not lost.done():
                loop.remove_reader(socket)

    def _canary(self) -> str:
        return canary_sql(self._canary_channel, "", time.time())

    def _check_canary(self) -> None:
        if self._waiting_since and time.monotonic() - self._waiting_since > CANARY_TIMEOUT_SECONDS:
            raise psycopg.OperationalError(
                f"the session's own notification did not come back within {CANARY_TIMEOUT_SECONDS:.0f} s: the network "
                "path is cut, or DB_HOST leads to a transaction pooler"
            )

    def _on_notifications(self, notifications: list[Notification]) -> None:
        at = time.time()
        if notifications and self._waiting_since is not None:
            # The session works. The canary may queue behind many notifications, so its timeout starts again.
            self._waiting_since = time.monotonic()
        events: list[Event] = []
        for channel, payload in notifications:
            if channel != self._canary_channel:
                events.append(Event(channel, msgspec.Raw(payload_json(payload)), None, at))
                continue
            self._deliver(events)
            self._on_canary()
            events = [Event(MUX_CHANNEL, msgspec.Raw(payload), None, at)]
        self._deliver(events)

    def _deliver(self, events: list[Event]) -> None:
        if events:
            self._sink.deliver(events)

    def _on_canary(self) -> None:
        self._waiting_since = None
        self._canary_at = time.monotonic()
        if self._is_connected:
            return
        self._is_connected = True
        self._state.recovered()
        logger.info("connected to %s, listening on %s", describe(self._url), ", ".join(self._channels))
        if self._has_started:
            self._sink.gap(None, GapReason.SESSION)
        else:
            self._has_started = True
            self._sink.start(None, [])


def _with_remedy(error: BaseException) -> BaseException:
    """Return the error with its remedy, if only an operator can fix it. A worker keeps trying all the same."""
    if isinstance(error, psycopg.Error):
        try:
            check_operator(error)
        except OperatorError as advice:
            return advice
    return error
