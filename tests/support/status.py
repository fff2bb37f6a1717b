"""A client of `/api/status/events`, as the status page is one."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.event_stream import EventStreamReader
from tests.support.waiting import wait_until

Message = dict[str, Any]


class StatusStream(EventStreamReader):
    """Collects every message together with the time of its arrival on the monotonic clock."""

    def __init__(self, port: int, query: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.messages: list[tuple[float, Message]] = []
        super().__init__(port, f"/api/status/events{query}", headers)

    def _on_line(self, line: bytes) -> None:
        if line.startswith(b"data: "):
            self.messages.append((time.monotonic(), json.loads(line[6:])))

    @property
    def latest(self) -> Message:
        """The last message; waits for the first."""
        return wait_until(lambda: self.messages)[-1][1]

    def wait_for_message(self, condition: Callable[[Message], object], since: float, within: float) -> Message:
        """Wait for a message that meets a condition; assert that it arrives at most `within` seconds after `since`.

        `since` is a time on the monotonic clock; earlier messages don't count.
        """

        def found() -> Message:
            return next((message for at, message in list(self.messages) if at >= since and condition(message)), {})

        message = wait_until(found, since + within + 1 - time.monotonic(), lambda: json.dumps(self.latest)[:2000])
        at = next(at for at, shown in self.messages if shown is message)
        assert at - since <= within, f"it took {at - since:.1f} s: {json.dumps(message)[:2000]}"
        return message
