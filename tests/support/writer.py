"""A session that notifies at a steady rate, in its own thread."""

import threading
import time
from contextlib import closing
from typing import Self

import psycopg

_INTERVAL_SECONDS = 0.05  # between two statements
_CHANNELS = ("match_change", "scoreboard_change", "gameclock_change", "football_event_change")
_NOTIFY = """
SELECT pg_notify((%(channels)s::text[])[1 + n %% 4], json_build_object('operation', 'UPDATE', 'match_id', 1 + n %% 3,
    'data', json_build_object('id', n, 'text', repeat('x', 100)))::text)
FROM generate_series(%(first)s::int, %(last)s::int) n
"""


class Writer:
    """Notifies of changes to three matches while the block runs. An error is raised when the block ends.

    Args:
        conninfo: of the database.
        per_second: notifications per second; can be changed at any time.
    """

    def __init__(self, conninfo: str, per_second: float) -> None:
        self._conninfo, self.per_second = conninfo, per_second
        self.written = 0
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            with closing(psycopg.connect(self._conninfo, autocommit=True)) as connection:
                last, due = time.monotonic(), 0.0
                while not self._stop.wait(_INTERVAL_SECONDS):
                    now = time.monotonic()
                    last, due = now, due + (now - last) * self.per_second
                    values = {"channels": list(_CHANNELS), "first": self.written + 1, "last": int(due)}
                    connection.execute(_NOTIFY, values)
                    self.written = int(due)
        except BaseException as error:  # noqa: BLE001 - raised again when the block ends
            self._failure = error
