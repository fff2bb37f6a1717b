"""Somebody who writes: a session that notifies at a steady rate, in a thread of its own."""

import threading
import time
from contextlib import closing
from typing import Self

import psycopg

_EVERY = 0.05  # seconds between two writes
_CHANNELS = ("match_change", "scoreboard_change", "gameclock_change", "football_event_change")
_NOTIFY = """
SELECT pg_notify((%(channels)s::text[])[1 + n %% 4], json_build_object('operation', 'UPDATE', 'match_id', 1 + n %% 3,
    'data', json_build_object('id', n, 'text', repeat('x', 100)))::text)
FROM generate_series(%(first)s::int, %(last)s::int) n
"""


class Writer:
    """Notifies of the changes of three matches, until it is ended; what it raised is raised then.

    Args:
        conninfo: of the database.
        per_second: how often; it can be changed.
    """

    def __init__(self, conninfo: str, per_second: float) -> None:
        self._conninfo, self.per_second = conninfo, per_second
        self.written = 0
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(20)
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                last, due = time.monotonic(), 0.0
                while not self._ending.wait(_EVERY):
                    now = time.monotonic()
                    last, due = now, due + (now - last) * self.per_second
                    values = {"channels": list(_CHANNELS), "first": self.written + 1, "last": int(due)}
                    connection.execute(_NOTIFY, values)
                    self.written = int(due)
        except BaseException as error:  # noqa: BLE001 - raised again at the end
            self._failure = error
