"""The load: writers that commit and roll back, a record of the commit order, and clients that receive the events."""

import json
import select
import threading
import time
from contextlib import closing, suppress
from random import Random
from typing import Any, Self

import psycopg
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.chaos.delivery_check import EventKey, Received
from tests.support.programs import Client
from tests.support.schema import install
from tests.support.waiting import wait_until

CHANNELS = ("match_change", "football_event_change")
MATCHES = (1, 2, 3)
_ABNORMAL = 1006  # the close code of a connection that ended without one

TABLE = """
CREATE TABLE chaos (writer int, serial int, match_id int);
CREATE FUNCTION chaos_notify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM notifymux.notify('match_change', json_build_object('operation', TG_OP, 'match_id', NEW.match_id,
        'data', json_build_object('w', NEW.writer, 'n', NEW.serial))::text);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_notify AFTER INSERT ON chaos FOR EACH ROW EXECUTE FUNCTION chaos_notify();
"""
INSERT = "INSERT INTO chaos SELECT %s, n, 1 + n %% 3 FROM generate_series(%s::int, %s::int) n"
NOTIFY = """
SELECT notifymux.notify('football_event_change', json_build_object('operation', 'INSERT', 'match_id', 1 + n %% 3,
    'data', json_build_object('w', %s::int, 'n', n))::text)
FROM generate_series(%s::int, %s::int) n
"""


def create_table(conninfo: str, source: str = "notify") -> None:
    """Create the table, which announces its rows by NOTIFY or by the WAL."""
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        install(connection, source)
        connection.execute(TABLE)


def match_of(event: EventKey) -> int:
    return 1 + event.serial % 3


class BackgroundThread:
    """Calls `work` in a thread until it is stopped. Lost connections to PostgreSQL are retried, other errors raised."""

    def __init__(self, name: str) -> None:
        self.stopping = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join(20)
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                try:
                    self.work()
                except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):  # PostgreSQL is away
                    self.stopping.wait(0.05)
        except BaseException as error:  # noqa: BLE001 - raised again by `stop`
            self.failure = error

    def work(self) -> None:
        raise NotImplementedError


class CommitOrder(BackgroundThread):
    """Records the commit order with a plain LISTEN session, since PostgreSQL gives every session the same order.

    `listening` is set while the session LISTENs. What is committed then is recorded, unless PostgreSQL dies first.
    """

    def __init__(self, conninfo: str) -> None:
        super().__init__("commit order")
        self._conninfo = conninfo
        self.sessions: list[list[EventKey]] = []
        self.indexes: dict[EventKey, int] = {}
        self.listening = threading.Event()

    def work(self) -> None:
        with closing(psycopg.connect(self._conninfo, autocommit=True, application_name="chaos-order")) as connection:
            for channel in CHANNELS:
                connection.execute(f"LISTEN {channel}".encode())
            self.sessions.append([])
            self.listening.set()
            pgconn = connection.pgconn
            while not self.stopping.is_set():
                select.select([pgconn.socket], [], [], 0.1)
                pgconn.consume_input()
                while notification := pgconn.notifies():
                    data = json.loads(notification.extra)["data"]
                    event = EventKey(data["w"], data["n"])
                    self.indexes[event] = len(self.indexes)
                    self.sessions[-1].append(event)


class Writer(BackgroundThread):
    """Commits about `rate` events per second in transactions of one to hundreds, some of which are rolled back."""

    def __init__(self, number: int, conninfo: str, order: CommitOrder, rate: float, rng: Random) -> None:
        super().__init__(f"writer {number}")
        self._number, self._conninfo, self._order, self._rate, self._rng = number, conninfo, order, rate, rng
        self.committed: dict[EventKey, int] = {}  # by session of the commit order
        self.uncertain: dict[EventKey, int] = {}  # COMMIT got no answer
        self._serial = 0
        self._session = 0

    def work(self) -> None:
        name = f"chaos-writer/{self._number}"
        with closing(psycopg.connect(self._conninfo, autocommit=True, application_name=name)) as connection:
            if not self._order.listening.wait(0.1):
                return
            self._session = len(self._order.sessions) - 1
            due = time.monotonic()
            while not self.stopping.is_set():
                written = self._transaction(connection)
                due = max(due + written / self._rate, time.monotonic() - 1)
                self.stopping.wait(max(0.0, due - time.monotonic()))

    def _transaction(self, connection: psycopg.Connection) -> int:
        """Run one transaction; return the number of events that it committed."""
        count = self._transaction_size()
        draw = self._rng.random()
        rolled_back, with_savepoint = draw < 0.1, 0.1 <= draw < 0.2
        events: list[EventKey] = []
        try:
            with connection.transaction(force_rollback=rolled_back):
                events += self._write(connection, count)
                if with_savepoint:
                    with connection.transaction(force_rollback=True):
                        self._write(connection, count)
                    events += self._write(connection, 1)
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
            self.uncertain |= {} if rolled_back else dict.fromkeys(events, self._session)
            raise
        if rolled_back:
            return 0
        self.committed |= dict.fromkeys(events, self._session)
        return len(events)

    def _transaction_size(self) -> int:
        draw = self._rng.random()
        if draw < 0.8:
            return 1
        if draw < 0.95:
            return self._rng.randint(2, 6)
        return self._rng.randint(20, 60) if draw < 0.99 else 250

    def _write(self, connection: psycopg.Connection, count: int) -> list[EventKey]:
        first, self._serial = self._serial + 1, self._serial + count
        connection.execute(self._rng.choice((INSERT, NOTIFY)), (self._number, first, self._serial))
        return [EventKey(self._number, serial) for serial in range(first, self._serial + 1)]


class Record:
    """What a client of a match has received: only what the check of deliveries needs."""

    def __init__(self, match: int, name: str) -> None:
        self.match, self.name = match, name
        self.received: list[Received] = []
        self.last: EventKey | None = None
        self.last_id = ""
        self.is_loaded = threading.Event()

    def add(self, message: dict[str, Any]) -> None:
        """Add a message that is no ping."""
        match message["type"]:
            case "initial-load":
                if message["recovered"]:
                    return
                if self.is_loaded.is_set():  # it could not resume, and starts again from a snapshot
                    self.received.append(Received(None, message["id"]))
                self.is_loaded.set()
            case "resync":
                self.received.append(Received(None, message["id"]))
            case _:
                event = EventKey(message["data"]["w"], message["data"]["n"])
                self.received.append(Received(event, message["id"]))
                self.last = event
        self.last_id = message["id"]

    def resyncs(self) -> int:
        return sum(event is None for event, _ in list(self.received))


class RecordingClient(Record, Client):
    """A client that connects again where its worker has died."""

    def __init__(self, port: int, match: int, name: str) -> None:
        self._is_closing = False
        Record.__init__(self, match, name)
        Client.__init__(self, port, match, name)

    def close(self) -> None:
        self._is_closing = True
        super().close()

    def _read(self) -> None:
        try:
            while True:
                with suppress(ConnectionClosed):
                    for text in self.socket:
                        self._on_message(json.loads(text))
                if self._is_closing or self.socket.close_code != _ABNORMAL:
                    return
                wait_until(self._reconnect, 10)
        finally:
            self.code = self.socket.close_code or _ABNORMAL

    def _reconnect(self) -> bool:
        try:
            self._connect(f"?last_event_id={self.last_id}")
        except (OSError, WebSocketException):
            return False
        return True

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "ping":
            self.socket.send('{"type":"pong"}')
        else:
            self.add(message)


class ListenSampler(BackgroundThread):
    """Counts the LISTEN rows of each listener in `pg_stat_activity` continuously, and keeps the maximum."""

    QUERY = """SELECT application_name, count(*) FROM pg_stat_activity
        WHERE query LIKE 'LISTEN%' AND application_name LIKE 'notifymux-listener/%' GROUP BY 1"""

    def __init__(self, conninfo: str) -> None:
        super().__init__("sampler")
        self._conninfo = conninfo
        self.max_rows: dict[str, int] = {}  # by listener

    def work(self) -> None:
        with closing(psycopg.connect(self._conninfo, autocommit=True, application_name="chaos-sampler")) as connection:
            while not self.stopping.wait(0.03):
                for name, count in connection.execute(self.QUERY).fetchall():
                    self.max_rows[name] = max(count, self.max_rows.get(name, 0))
