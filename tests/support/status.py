"""Who watches `/api/status/events`, as the status page does."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any, Self

from tests.support.waiting import wait_until

Message = dict[str, Any]


class Watch:
    """One watcher, read in a thread of its own; keeps every message, and when it came, on the monotonic clock."""

    def __init__(self, port: int, query: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.messages: list[tuple[float, Message]] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.request("GET", f"/api/status/events{query}", headers=dict(headers or {}))
        self._socket = self._connection.sock
        self.response = self._connection.getresponse()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError, http.client.HTTPException):  # it was cut off, or closed from here
            for line in self.response:
                if line.startswith(b"data: "):
                    self.messages.append((time.monotonic(), json.loads(line[6:])))

    @property
    def latest(self) -> Message:
        """The last message."""
        return wait_until(lambda: self.messages)[-1][1]

    def shows(self, condition: Callable[[Message], object], since: float, within: float) -> Message:
        """Waits for a message that meets a condition, `within` seconds after a time on the monotonic clock."""

        def found() -> Message:
            return next((message for at, message in list(self.messages) if at >= since and condition(message)), {})

        message = wait_until(found, since + within + 1 - time.monotonic(), lambda: json.dumps(self.latest)[:2000])
        at = next(at for at, shown in self.messages if shown is message)
        assert at - since <= within, f"it took {at - since:.1f} s: {json.dumps(message)[:2000]}"
        return message

    def ended(self, within: float = 20.0) -> None:
        """Waits until the other side ends it."""
        self._thread.join(within)
        assert not self._thread.is_alive()

    def close(self) -> None:
        with suppress(OSError):  # the other side was faster
            self._socket.shutdown(SHUT_RDWR)
        self._thread.join(5)
        self.response.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
