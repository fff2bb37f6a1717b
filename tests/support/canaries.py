"""A session that hears the listeners' own channel: how time passes for them, without a clock."""

from collections.abc import Callable
from contextlib import closing
from typing import Self

import psycopg

from notifymux.event import MUX_CHANNEL
from tests.support.waiting import wait_until


class Canaries:
    """Counts what listeners notify of themselves: each sends a canary every CANARY_INTERVAL."""

    def __init__(self, conninfo: str) -> None:
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._connection.execute(f"LISTEN {MUX_CHANNEL}")
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def pass_by(self, count: int, within: float = 20.0, what: str | Callable[[], str] = "a canary") -> None:
        """Waits until `count` more have come; `what` is said if they don't."""
        wanted = self.count + count
        wait_until(lambda: self._taken() >= wanted, within, what)

    def _taken(self) -> int:
        with closing(self._connection.notifies(timeout=0.05)) as notifications:
            self.count += sum(1 for _ in notifications)
        return self.count
