"""The other load on the worker, until the process is killed: `python -m tests.isolation.load NAME PORT CONNINFO`."""

import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

import psycopg

from tests.http.raw_client import RawClient

CHANNEL = "player_match_change"  # on which the callback is registered

MATCH = "busy"
# The trailing spaces make the payloads differ: PostgreSQL drops a notification that equals another of its transaction.
NOTIFY = """
SELECT pg_notify(%(channel)s, json_build_object('match_id', %(match)s::text, 'operation', 'UPDATE',
    'data', json_build_object('filler', repeat('x', %(size)s::int)))::text || repeat(' ', n))
FROM generate_series(1, %(count)s::int) n
"""


def notify(conninfo: str, rate: float, channel: str, size: int, batch: int) -> None:
    """Notify `rate` times per second, with `batch` notifications per transaction. Does not return."""
    values = {"channel": channel, "match": MATCH, "size": size, "count": batch}
    with closing(psycopg.connect(conninfo, autocommit=True)) as connection:
        due = time.monotonic()
        while True:
            connection.execute(NOTIFY, values)
            due = max(due + batch / rate, time.monotonic() - 0.1)  # a larger delay is not made up for
            time.sleep(max(0.0, due - time.monotonic()))


def slow_callback(_: int, conninfo: str) -> None:
    """20 events per second for a callback that takes one second for each."""
    notify(conninfo, 20, CHANNEL, 100, 1)


def never_reading_client(port: int, conninfo: str) -> None:
    """700 KB per second for a client that never reads, and reconnects when it is closed."""
    threading.Thread(target=notify, args=(conninfo, 100, "match_change", 7000, 1), daemon=True).start()
    while True:
        with suppress(OSError, AssertionError), RawClient(port, window=4096).open_websocket(MATCH, "stuck") as client:
            poll = select.poll()
            poll.register(client.socket, 0)  # reports only that the server has closed the connection
            poll.poll()


def busy_match(port: int, conninfo: str) -> None:
    """10,000 events per second, and a client that reads them."""
    threading.Thread(target=notify, args=(conninfo, 10_000, "match_change", 100, 10), daemon=True).start()
    while True:
        with suppress(OSError, AssertionError), RawClient(port).open_websocket(MATCH, "reads") as client:
            while client.socket.recv(1 << 18):
                pass
        sys.stderr.write("the client that reads was closed\n")


CALLBACK = "callback"
LOADS: dict[str, Callable[[int, str], None]] = {
    CALLBACK: slow_callback,
    "never reads": never_reading_client,
    "10,000/s": busy_match,
}

if __name__ == "__main__":
    LOADS[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
