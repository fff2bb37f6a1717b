"""PostgreSQL mode, the default and the rollback: one LISTENing session per worker, and no numbers.

What is notified while the session is away is not heard, so every new session is a gap.
"""

import asyncio
import logging
import time
import uuid

import msgspec
import psycopg

from app.core.canary import canary_sql
from app.core.config import MUX_CHANNEL
from app.core.operator_errors import OperatorError, check_direct, check_operator
from app.core.config import load_settings
from app.core.postgres import IDENTITY, Job, ListenSession, Notification, ask, connect, database_url, describe, listen_sql, listening_conninfo, look
from app.sources.base import EventSink, GapReason
from notifymux.event import Event, EventId, payload_json
from notifymux.outage import Outage

logger = logging.getLogger(__name__)

_CANARY_TIMEOUT = 4.0  # seconds until a session whose canary does not come back is given up


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
        self._url, self._name = url, name
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
            except (psycopg.Error, OSError, OperatorError, TimeoutError) as error:
                await asyncio.sleep(self._outage.failed(_advice(error)))

    async def recall(self, after: EventId, until: EventId) -> list[Event] | None:
        """None: events without numbers can't be asked for."""

    async def _session(self) -> None:
        connection, pid, start = await _in_thread(self._open)
        try:
            await self._listen(ListenSession(connection.pgconn), pid, start)
        finally:
            self.is_connected, self._unheard_since = False, None
            self.waiters = (0, 0.0)
            connection.close()

    def _open(self):
        connection = connect(listening_conninfo(database_url(_settings()), self._name))
        try:
            [[pid, start, *_]] = ask(connection.pgconn, IDENTITY, 4)
            check_direct(connection.pgconn, int(pid))
        except BaseException:
            connection.close()
            raise
        return connection, int(pid), start.decode()

    waiters = (0, 0.0)

    async def _look(self, pid: int, start: str) -> bool | None:
        conninfo = listening_conninfo(database_url(_settings()), self._name)
        at_work, *waiters = await _in_thread(lambda: look(conninfo, pid, start))
        self.waiters = tuple(waiters)
        return at_work

    async def _listen(self, session: ListenSession, pid: int, start: object) -> None:
        """Hears until the session is lost; what is heard is delivered right where it is read."""
        loop, socket = asyncio.get_running_loop(), session.fileno()
        lost: asyncio.Future[None] = loop.create_future()

        def readable() -> None:
            try:
                self._hear(session.receive())
                if session.failed:
                    logger.warning("a query failed: %s", session.failed)
                    session.failed = None
                    self._unheard_since = None
                if session.idle and self._unheard_since:
                    raise psycopg.OperationalError("answered, and its own notification was not delivered: a pooler")
            except Exception as error:  # noqa: BLE001
                loop.remove_reader(socket)
                lost.set_exception(error)

        loop.add_reader(socket, readable)
        try:
            first = True
            said = False
            sent_at = time.monotonic()
            while True:
                if session.idle:
                    self.waiters = (0, 0.0)
                    said = False
                    sent_at = time.monotonic()
                    self._unheard_since = time.monotonic()
                    session.send(
                        listen_sql(
                            [self._canary_channel, *(self._channels if first or not self.is_connected else [])],
                            self._canary(),
                        )
                    )
                    first = False
                await asyncio.wait([lost], timeout=self._interval)
                if lost.done():
                    lost.result()
                if not session.idle and time.monotonic() - sent_at > 2:
                    at_work = await self._look(pid, start)
                    if session.idle:
                        continue
                    if at_work and not said:
                        said = True
                        logger.warning("%d sessions wait for the notification lock for %.0f s", *self.waiters)
                    if at_work is False:
                        raise psycopg.OperationalError("the session did not come back within 4 s: the path is cut")
        finally:
            if not lost.done():
                loop.remove_reader(socket)

    def _canary(self) -> str:
        return canary_sql(self._canary_channel, "", time.time())

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


async def _in_thread(call):
    job = Job(call)
    while not job.done:
        await asyncio.sleep(0.02)
    if job.error:
        raise job.error
    return job.result


def _settings():
    from app.core.config import SettingsError

    try:
        return load_settings()
    except SettingsError as error:
        raise OperatorError(str(error)) from None
