"""What others do meanwhile, until it is ended: `python -m tests.isolation.load KIND PORT CONNINFO`."""

import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

import psycopg

from tests.http.raw_client import RawClient
from tests.isolation.program import CHANNEL

MATCH = "busy"
NOTIFY = """
SELECT pg_notify(%(channel)s, json_build_object('match_id', %(match)s::text, 'operation', 'UPDATE',
    'data', json_build_object('filler', repeat('x', %(size)s::int)))::text || repeat(' ', n))
FROM generate_series(1, %(count)s::int) n
"""  # PostgreSQL drops a notification that equals another of its transaction


def publish(conninfo: str, rate: float, channel: str, size: int, batch: int) -> None:
    """Commits `rate` events a second, `batch` at a time."""
    values = {"channel": channel, "match": MATCH, "size": size, "count": batch}
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        due = time.monotonic()
        while True:
            connection.execute(NOTIFY, values)
            due = max(due + batch / rate, time.monotonic() - 0.1)  # what can't be caught up is given up
            time.sleep(max(0.0, due - time.monotonic()))


def call_back(_: int, conninfo: str) -> None:
    """Twenty events a second for a callback that takes one."""
    publish(conninfo, 20, CHANNEL, 100, 1)


def stick(port: int, conninfo: str) -> None:
    """A client that never reads 700 KB/s, and comes back when it is closed."""
    threading.Thread(target=publish, args=(conninfo, 100, "match_change", 7000, 1), daemon=True).start()
    while True:
        with suppress(OSError, AssertionError), RawClient(port, window=4096).enter(MATCH, "stuck") as stranger:
            gone = select.poll()
            gone.register(stranger.socket, 0)
            gone.poll()


def flood(port: int, conninfo: str) -> None:
    """10,000 events a second, and a client that reads them."""
    threading.Thread(target=publish, args=(conninfo, 10_000, "match_change", 100, 10), daemon=True).start()
    while True:
        with suppress(OSError, AssertionError), RawClient(port).enter(MATCH, "reads") as stranger:
            while stranger.socket.recv(1 << 18):
                pass
        sys.stderr.write("the client that reads was closed\n")


CALLBACK = "callback"
KINDS: dict[str, Callable[[int, str], None]] = {CALLBACK: call_back, "never reads": stick, "10,000/s": flood}

if __name__ == "__main__":
    KINDS[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
