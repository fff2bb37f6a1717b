"""Clients of several matches: one connection by WebSocket, or one event stream."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from tests.support.event_stream import EventStreamReader
from tests.support.programs import Client, ReceivedMessages
from tests.support.waiting import wait_until


class Connection(Client):
    """A WebSocket client of as many matches as it asks for."""

    def __init__(self, port: int, name: str = "c", query: str = "", **options: Any) -> None:
        super().__init__(port, None, name, query, **options)

    def _path(self, match: object, name: str) -> str:
        return f"ws/{name}/"

    def send(self, kind: str, **fields: Any) -> None:
        """Send a request."""
        self.socket.send(json.dumps({"type": kind, **fields}))

    def subscribe(self, *matches: object) -> None:
        """Subscribe to matches, each from a snapshot."""
        for match in matches:
            self.send("subscribe", match_id=match)

    def wait_for(self, count: int, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Wait for some messages of a type with these fields; return all of them."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.of_type(kind) if fields.items() <= each.items()]

        wait_until(lambda: len(found()) >= count, 20.0, lambda: f"{count} {kind} {fields}: {self.messages[-20:]}")
        return found()


class EventStreamOfSeveral(ReceivedMessages, EventStreamReader):
    """An event stream for several matches, which keeps every message and every line."""

    def __init__(
        self, port: int, parameters: list[tuple[str, object]], headers: Mapping[str, str] | None = None
    ) -> None:
        self.lines: list[str] = []
        ReceivedMessages.__init__(self)
        EventStreamReader.__init__(self, port, f"/api/matches/events?{urlencode(parameters)}", headers)

    def _on_line(self, line: bytes) -> None:
        self.lines.append(line.decode().rstrip("\n"))
        if line.startswith(b"data: "):
            self.messages.append(json.loads(line[6:]))

    def with_id_lines(self) -> list[tuple[str | None, dict[str, Any]]]:
        """Return the messages, each with its `id:` line, or None."""
        found: list[tuple[str | None, dict[str, Any]]] = []
        event_id: str | None = None
        for line in list(self.lines):
            name, _, value = line.partition(": ") if ": " in line else line.partition(":")
            if name == "id":
                event_id = value
            elif name == "data":
                found.append((event_id, json.loads(value)))
                event_id = None
        return found
