"""PostgreSQL mode, the default and the rollback: one LISTENing session per worker, and no numbers.

What is notified while the session is away is not heard, so every new session is a gap.
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
from app.sources.base import EventSink, GapReason
from notifymux.event import Event, EventId, payload_json
from notifymux.outage import Outage

logger = logging.getLogger(__name__)


class PostgresSource:
    """LISTENs directly.

    Args:
        url: PostgreSQL's connection string.
        channels: what to LISTEN on.
        name: the session's `application_name`.
        canary_interval: seconds.
        sink: where events go.
    """

    def __init__(self, url: str, channels: tuple[str, ...], name: str, canary_interval: float, sink: EventSink) -> None:
        self._url, self._conninfo = url, listening_conninfo(url, name)
        self._channels = channels
        # Its own, so that one worker's canary wakes no other.
        self._canary_channel = f"{MUX_CHANNEL}_{uuid.uuid4().hex[:16]}"
        self._interval = canary_interval
        self._sink = sink
        self._outage = Outage("PostgreSQL", logger)
        self._unheard_since: float | None = None
        self._started = False
        self.is_connected = self.behind = False
        self.position: EventId | None = None
        self.canary_at: float | None = None
        self.suppressed = 0

    @property
    def outage(self) -> str | None:
        """Why it isn't connected."""
        return self._outage.reason

    @property
    def reconnects(self) -> int:
        """How often PostgreSQL was away and came back."""
        return self._outage.recoveries

    async def run(self) -> None:
        """Listens until cancelled."""
        while True:
            try:
                await self._session()
            except (psycopg.Error, OSError, OperatorError) as error:
                await asyncio.sleep(self._outage.failed(_advice(error)))

    async def recall(self, after: EventId, until: EventId) -> list[Event] | None:
        """None: events without numbers can't be asked for."""

    async def _session(self) -> None:
        connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        try:
            row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
            check_direct(connection.pgconn, row[0] if row else None)
            await self._listen(ListenSession(connection.pgconn))
        finally:
            self.is_connected, self._unheard_since = False, None
            await connection.close()

    async def _listen(self, session: ListenSession) -> None:
        """Hears until the session is lost; what is heard is delivered right where it is read."""
        loop, socket = asyncio.get_running_loop(), session.fileno()
        lost: asyncio.Future[None] = loop.create_future()

        def readable() -> None:
            try:
                self._hear(session.receive())
            except Exception as error:  # noqa: BLE001 - `lost` raises it: a lost session is replaced, a bug is shown
                loop.remove_reader(socket)  # at once: libpq has closed it, and its number may soon be another's
                lost.set_exception(error)

        loop.add_reader(socket, readable)
        try:
            session.send(listen_sql([self._canary_channel, *self._channels], self._canary()))
            while True:
                self._unheard_since = self._unheard_since or time.monotonic()
                await asyncio.wait([lost], timeout=self._interval)
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
        if self._unheard_since and time.monotonic() - self._unheard_since > CANARY_TIMEOUT_SECONDS:
            raise psycopg.OperationalError(
                f"the session's own notification did not come back within {CANARY_TIMEOUT_SECONDS:.0f} s: the network "
                "path is cut, or DB_HOST leads to a transaction pooler"
            )

    def _hear(self, notifications: list[Notification]) -> None:
        at = time.time()
        if notifications and self._unheard_since is not None:
            self._unheard_since = time.monotonic()  # what comes before the canary is no sign that it doesn't
        events: list[Event] = []
        for channel, payload in notifications:
            if channel != self._canary_channel:
                events.append(Event(channel, msgspec.Raw(payload_json(payload)), None, at))
                continue
            self._deliver(events)
            self._canary_came_back()
            events = [Event(MUX_CHANNEL, msgspec.Raw(payload), None, at)]
        self._deliver(events)

    def _deliver(self, events: list[Event]) -> None:
        if events:
            self._sink.deliver(events)

    def _canary_came_back(self) -> None:
        self._unheard_since = None
        self.canary_at = time.monotonic()
        if not self.is_connected:
            self.is_connected = True
            self._outage.over()
            logger.info("connected to %s, listening on %s", describe(self._url), ", ".join(self._channels))
            if self._started:
                self._sink.gap(None, GapReason.SESSION)
            else:
                self._started = True
                self._sink.start(None, [])


def _advice(error: BaseException) -> BaseException:
    """The error with its remedy, where only an operator can mend it; a worker goes on trying all the same."""
    if isinstance(error, psycopg.Error):
        try:
            check_operator(error)
        except OperatorError as advice:
            return advice
    return error
