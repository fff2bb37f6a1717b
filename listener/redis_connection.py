"""The listener's one connection to Redis, made by a thread: its loop neither looks a name up nor waits to connect."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from notifymux.redis_client import RedisAddress, sync_connection
from notifymux.redis_url import Address
from notifymux.sync_connection import SyncConnection

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5  # between two tries to connect
_PROBE_SECONDS = 3.0  # between two looks at where the address leads


class ConnectingError(RedisConnectionError):
    """There is no connection yet, and no try has failed since this was raised last."""


class LastBeat(NamedTuple):
    """The last heartbeat that Redis took: its hash, and which one it was."""

    key: str
    number: int


class RedisConnection(redis.ConnectionPool):
    """A pool of one connection, for one thread besides its own.

    It is replaced if it is lost, if the server answers that it is not the primary, or if the address leads to another
    server: every few seconds a second connection looks whether this process's heartbeats are there.

    Args:
        address: of Redis.
    """

    def __init__(self, address: RedisAddress) -> None:
        super().__init__()
        self._address = address
        self._connection: SyncConnection | None = None
        self._error: Exception | None = None  # of the last try to connect, until it is raised
        self._wanted = threading.Event()
        self._wanted.set()
        self._leads_elsewhere = False
        self._found: Address | None = None  # where the primary was last, if others were asked for it
        self._last_beat: Callable[[], LastBeat | None] = lambda: None

    def start(self, last_beat: Callable[[], LastBeat | None]) -> None:
        """Connect from now on. `last_beat` returns what the primary must have."""
        self._last_beat = last_beat
        threading.Thread(target=self._run, daemon=True, name="redis connection").start()

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Return the connection; return at once.

        Raises:
            ConnectingError: there is none yet.
            redis.RedisError: the reason, once for each try that failed.
        """
        connection = self._connection
        if connection and self._is_usable(connection):
            return connection
        if connection:
            self._connection = None
            connection.disconnect()  # type: ignore[no-untyped-call]
            self._wanted.set()
        error, self._error = self._error, None
        raise error or ConnectingError("connecting")

    def release(self, connection: Any) -> None:
        """Keep the connection."""

    def _is_usable(self, connection: SyncConnection) -> bool:
        if self._leads_elsewhere or connection.is_wrong_server or not connection.is_connected:
            return False
        try:
            return not connection.can_read()  # nothing is asked: it is the end, or an answer that came too late
        except (RedisError, OSError):
            return False

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            try:
                connection = sync_connection(self._address)
            except Exception as error:  # noqa: BLE001 - `get_connection` raises it in the loop's thread
                self._error = error
                time.sleep(_RETRY_SECONDS)
                continue
            if connection.found != self._found:
                self._found = connection.found
                logger.info("Redis's primary is %s", self._found)
            self._wanted.clear()
            self._error, self._leads_elsewhere, self._connection = None, False, connection
            while not self._wanted.wait(_PROBE_SECONDS):
                self._leads_elsewhere = self._leads_elsewhere or self._is_beat_missing()

    def _is_beat_missing(self) -> bool:
        """Whether the address leads to a primary that lacks this process's last heartbeat."""
        beat = self._last_beat()
        if beat is None:
            return False
        try:
            number = _read_beats(self._address, beat.key)
        # The connection that there is may work all the same. ValueError: no host's name, or a stranger's heartbeat.
        except (RedisError, OSError, ValueError):
            return False
        return number is None or number < beat.number


def _read_beats(address: RedisAddress, key: str) -> int | None:
    """Return the number of a hash's last heartbeat, over a connection of its own; None if it has none."""
    connection = sync_connection(address)
    try:
        connection.send_command("HMGET", key, "beats")  # type: ignore[no-untyped-call]
        [number] = connection.read_response()
    finally:
        connection.disconnect()  # type: ignore[no-untyped-call]
    return None if number is None else int(number)
