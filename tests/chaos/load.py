"""The load: writers that commit and roll back, the order of what they commit, and clients that hear it."""

import json
import select
import threading
import time
from contextlib import closing
from random import Random
from typing import Any, Self

import psycopg
from websockets.exceptions import ConnectionClosed

from tests.chaos.delivery_check import Seen, Token
from tests.support.programs import Client

CHANNELS = ("match_change", "football_event_change")
MATCHES = (1, 2, 3)

TABLE = """
CREATE TABLE chaos (writer int, serial int, match_id int);
CREATE FUNCTION chaos_notify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_notify('match_change', json_build_object('operation', TG_OP, 'match_id', NEW.match_id,
        'data', json_build_object('w', NEW.writer, 'n', NEW.serial))::text);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_notify AFTER INSERT ON chaos FOR EACH ROW EXECUTE FUNCTION chaos_notify();
"""
INSERT = "INSERT INTO chaos SELECT %s, n, 1 + n %% 3 FROM generate_series(%s::int, %s::int) n"
NOTIFY = """
SELECT pg_notify('football_event_change', json_build_object('operation', 'INSERT', 'match_id', 1 + n %% 3,
    'data', json_build_object('w', %s::int, 'n', n))::text)
FROM generate_series(%s::int, %s::int) n
"""


def make_table(conninfo: str) -> None:
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        connection.execute(TABLE)


def match_of(token: Token) -> int:
    return 1 + token.serial % 3


class Worker:
    """A thread that runs until it is ended, and passes on what it raised."""

    def __init__(self, name: str) -> None:
        self.ending = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self.ending.set()
        self._thread.join(20)
        if self.failure:
            raise self.failure

    def _guarded(self) -> None:
        try:
            while not self.ending.is_set():
                try:
                    self.work()
                except psycopg.OperationalError:  # PostgreSQL is away
                    self.ending.wait(0.05)
        except BaseException as error:  # noqa: BLE001 - raised again by `end`
            self.failure = error

    def work(self) -> None:
        raise NotImplementedError


class Order(Worker):
    """A plain LISTEN session of the test's own: PostgreSQL gives every session the same order.

    `open` is set while it LISTENs: what is committed then, it hears, unless PostgreSQL dies first.
    """

    def __init__(self, conninfo: str) -> None:
        super().__init__("order")
        self._conninfo = conninfo
        self.lives: list[list[Token]] = []
        self.places: dict[Token, int] = {}
        self.open = threading.Event()

    def work(self) -> None:
        with closing(psycopg.connect(self._conninfo, autocommit=True, application_name="chaos-order")) as connection:
            for channel in CHANNELS:
                connection.execute(f"LISTEN {channel}".encode())
            self.lives.append([])
            self.open.set()
            pgconn = connection.pgconn
            while not self.ending.is_set():
                select.select([pgconn.socket], [], [], 0.1)
                pgconn.consume_input()
                while note := pgconn.notifies():
                    data = json.loads(note.extra)["data"]
                    token = Token(data["w"], data["n"])
                    self.places[token] = len(self.places)
                    self.lives[-1].append(token)


class Writer(Worker):
    """One session that commits about `rate` events a second in transactions of one to hundreds, some rolled back."""

    def __init__(self, number: int, conninfo: str, order: Order, rate: float, rng: Random) -> None:
        super().__init__(f"writer {number}")
        self._number, self._conninfo, self._order, self._rate, self._rng = number, conninfo, order, rate, rng
        self.committed: dict[Token, int] = {}
        self.uncertain: dict[Token, int] = {}
        self._serial = 0
        self._life = 0

    def work(self) -> None:
        name = f"chaos-writer/{self._number}"
        with closing(psycopg.connect(self._conninfo, autocommit=True, application_name=name)) as connection:
            if not self._order.open.wait(0.1):
                return
            self._life = len(self._order.lives) - 1
            due = time.monotonic()
            while not self.ending.is_set():
                written = self._transaction(connection)
                due = max(due + written / self._rate, time.monotonic() - 1)
                self.ending.wait(max(0.0, due - time.monotonic()))

    def _transaction(self, connection: psycopg.Connection) -> int:
        """One transaction; how many events it committed."""
        count = self._size()
        fate = self._rng.random()
        rolled_back, in_part = fate < 0.1, 0.1 <= fate < 0.2
        tokens: list[Token] = []
        try:
            with connection.transaction(force_rollback=rolled_back):
                tokens += self._write(connection, count)
                if in_part:
                    with connection.transaction(force_rollback=True):
                        self._write(connection, count)
                    tokens += self._write(connection, 1)
        except psycopg.OperationalError:
            self.uncertain |= {} if rolled_back else dict.fromkeys(tokens, self._life)
            raise
        if rolled_back:
            return 0
        self.committed |= dict.fromkeys(tokens, self._life)
        return len(tokens)

    def _size(self) -> int:
        draw = self._rng.random()
        if draw < 0.8:
            return 1
        if draw < 0.95:
            return self._rng.randint(2, 6)
        return self._rng.randint(20, 60) if draw < 0.99 else 250

    def _write(self, connection: psycopg.Connection, count: int) -> list[Token]:
        first, self._serial = self._serial + 1, self._serial + count
        connection.execute(self._rng.choice((INSERT, NOTIFY)), (self._number, first, self._serial))
        return [Token(self._number, serial) for serial in range(first, self._serial + 1)]


class Witness(Client):
    """A client that keeps what the ledger needs, and not every message."""

    def __init__(self, port: int, match: int, name: str) -> None:
        self.match, self.name = match, name
        self.seen: list[Seen] = []
        self.last: Token | None = None
        self.is_loaded = threading.Event()
        super().__init__(port, match, name)

    def _read(self) -> None:
        try:
            for text in self.socket:
                self._note(json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            self.code = self.socket.close_code or 1006

    def _note(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "ping":
                self.socket.send('{"type":"pong"}')
            case "initial-load":
                self.is_loaded.set()
            case "resync":
                self.seen.append(Seen(None, message["id"]))
            case _:
                token = Token(message["data"]["w"], message["data"]["n"])
                self.seen.append(Seen(token, message["id"]))
                self.last = token


class Sampler(Worker):
    """Looks all the time how many rows each listener has in `pg_stat_activity` that LISTEN."""

    ROWS = """SELECT application_name, count(*) FROM pg_stat_activity
        WHERE query LIKE 'LISTEN%' AND application_name LIKE 'notifymux-listener/%' GROUP BY 1"""

    def __init__(self, conninfo: str) -> None:
        super().__init__("sampler")
        self._conninfo = conninfo
        self.most: dict[str, int] = {}
        self.samples = 0

    def work(self) -> None:
        with closing(psycopg.connect(self._conninfo, autocommit=True, application_name="chaos-sampler")) as connection:
            while not self.ending.wait(0.03):
                for name, count in connection.execute(self.ROWS).fetchall():
                    self.most[name] = max(count, self.most.get(name, 0))
                self.samples += 1
