"""HTTP responses that are streams of server-sent events."""

import http.client
import threading
from collections.abc import Mapping
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Self


class EventStreamReader:
    """A streamed response that is read line by line in its own thread.

    A subclass implements `_on_line`, and sets the fields that it uses before it calls `__init__`.
    """

    def __init__(self, port: int, path: str, headers: Mapping[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.request("GET", path, headers=dict(headers or {}))
        self._socket = self._connection.sock
        self.response = self._connection.getresponse()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError, http.client.HTTPException):  # closed by either side
            for line in self.response:
                self._on_line(line)

    def _on_line(self, line: bytes) -> None:
        raise NotImplementedError

    @property
    def has_ended(self) -> bool:
        """Whether the response has ended, on either side."""
        return not self._thread.is_alive()

    def wait_until_ended(self, within: float = 20.0) -> None:
        """Wait until the server ends the response."""
        self._thread.join(within)
        assert not self._thread.is_alive()

    def close(self) -> None:
        with suppress(OSError):  # the server has closed it
            self._socket.shutdown(SHUT_RDWR)
        self._thread.join(5)
        self.response.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
