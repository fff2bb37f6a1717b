"""A subscriber of Redis with little overhead that records when each event arrived."""

import select
import threading
import time
from typing import Self

import redis

from bench.events import SERIAL, serial_marker

_LAST_EVENT_BYTES = 2048  # at the end of the data, more than one event has


class RedisMonitor:
    """Reads a channel in a thread while the block runs, and parses the data afterwards.

    Args:
        url: of Redis.
        channel: to subscribe to.
    """

    def __init__(self, url: str, channel: str) -> None:
        self._redis = redis.Redis.from_url(url)
        self._pubsub = self._redis.pubsub()  # type: ignore[no-untyped-call]
        self._pubsub.subscribe(channel)
        self._pubsub.get_message(timeout=5)
        connection = self._pubsub.connection
        assert connection
        self._socket = connection._sock  # noqa: SLF001 - read as bytes, and parsed afterwards
        self._socket.setblocking(False)
        self._chunks: list[tuple[float, bytes]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not self._stop.is_set():
            if poll.poll(100):
                self._chunks.append((time.time(), self._socket.recv(1 << 16)))

    def has(self, serial: int) -> bool:
        """Whether an event has arrived and is the last so far."""
        return serial_marker(serial) in b"".join(chunk for _, chunk in self._chunks[-2:])[-_LAST_EVENT_BYTES:]

    def arrivals(self) -> dict[int, float]:
        """Return the time of arrival of each event so far, by serial."""
        data = b"".join(chunk for _, chunk in self._chunks)
        ends: list[tuple[int, float]] = []
        size = 0
        for at, chunk in self._chunks:
            size += len(chunk)
            ends.append((size, at))
        found: dict[int, float] = {}
        index = 0
        for match in SERIAL.finditer(data):
            while ends[index][0] < match.end():
                index += 1
            found[int(match[1])] = ends[index][1]
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._pubsub.close()
        self._redis.close()
