"""Thousands of WebSocket clients in one process: `python -m tests.storm.clients PORT CLIENTS MATCHES`.

Takes one command per line and answers each with one line of JSON:

- `come`: everybody connects, 500 a second; answers when all are served.
- `storm keep`, `storm lose`: everybody's connection is dropped, and all come back within a second, with their last id
  or without; answers when all are served.
- `state`: who has which number of its match.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from typing import Any, cast

import uvloop

_HEAD = (
    "GET /api/matches/ws/id/{match}/{name}/{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_PONG = b"\x8a\x84\0\0\0\0"
_ANSWER = b"\x81\x8f\0\0\0\0" + b'{"type":"pong"}'
_ARRIVALS = 500  # clients a second


class Viewer:
    """One client: it has the number of its match, from the snapshot and every update since."""

    def __init__(self, crowd: "Clients", name: int) -> None:
        self.crowd, self.name, self.match = crowd, name, str(name % crowd.matches)
        self.number = -1
        self.last: str | None = None
        self.served = False
        self._line: Line | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tries = 0

    def come(self, delay: float) -> None:
        """Connects after `delay` seconds."""
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, self._dial)

    def drop(self, *, keep: bool) -> None:
        """Lets go of the connection."""
        self.served, self._tries = False, 0
        self.last = self.last if keep else None
        line, self._line = self._line, None
        if line and line.transport:
            line.transport.abort()

    def _dial(self) -> None:
        self._line = Line(self)
        self.crowd.spawn(self._connect(self._line))

    async def _connect(self, line: "Line") -> None:
        query = f"?last_event_id={self.last}" if self.last else ""
        line.head = _HEAD.format(match=self.match, name=self.name, query=query).encode()
        try:
            await asyncio.get_running_loop().create_connection(lambda: line, "127.0.0.1", self.crowd.port)
        except OSError:
            self.lost(line, "no connection")

    def lost(self, line: "Line", why: str) -> None:
        """Comes back, unless it has already."""
        if line is not self._line:
            return
        self.crowd.losses[why] += 1
        self.served = False
        self._tries += 1
        self.come(random.uniform(0.1, min(2.0, 0.2 * 2**self._tries)))

    def hear(self, line: "Line", text: bytes) -> None:
        """Takes a message in."""
        message = json.loads(text)
        if message["type"] == "ping":
            line.send(_ANSWER)
        elif line is self._line:
            self.last = message["id"] or self.last
            self._apply(message)

    def _apply(self, message: dict[str, Any]) -> None:
        if message["type"] in {"initial-load", "resync"}:
            if not message.get("recovered"):
                self.crowd.errors += message["data"] is None
                self.number = message["data"]["n"] if message["data"] else -1
            self.served = True
            self.crowd.served(bool(message.get("recovered")))
        elif message["data"]["n"] == self.number + 1:
            self.number += 1
        elif message["data"]["n"] > self.number:
            self.crowd.holes += 1


class Line(asyncio.Protocol):
    """A connection and the frames on it."""

    def __init__(self, viewer: Viewer) -> None:
        self.transport: asyncio.Transport | None = None
        self.head = b""
        self._viewer, self._buffer, self._open = viewer, b"", False
        self._why = "lost"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send(self.head)

    def send(self, data: bytes) -> None:
        if self.transport:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open:
            head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            self._open = head.startswith(b"HTTP/1.1 101 ")
            if not self._open and self.transport:
                self._why = head[9:12].decode()
                self.transport.close()
                return
        while (frame := self._frame()) is not None:
            self._take(*frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._viewer.lost(self, self._why)

    def _frame(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < 2:
            return None
        size, start = self._buffer[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(self._buffer[2:start])
        if len(self._buffer) < start + size:
            return None
        opcode, payload = self._buffer[0] & 0xF, self._buffer[start : start + size]
        self._buffer = self._buffer[start + size :]
        return opcode, payload

    def _take(self, opcode: int, payload: bytes) -> None:
        match opcode:
            case 1:
                self._viewer.hear(self, payload)
            case 9:
                self.send(_PONG + payload)
            case 8:
                self._why = str(int.from_bytes(payload[:2]))


class Clients:
    """All of them."""

    def __init__(self, port: int, clients: int, matches: int) -> None:
        self.port, self.matches = port, matches
        self.losses: Counter[str] = Counter()
        self.holes = self.errors = 0
        self._recovered: Counter[bool] = Counter()
        self._times: list[float] = []
        self._started = 0.0
        self._all = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._viewers = [Viewer(self, name) for name in range(clients)]

    def spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def served(self, recovered: bool) -> None:
        """One more has its first message."""
        self._recovered[recovered] += 1
        self._times.append(time.monotonic() - self._started)
        if len(self._times) >= len(self._viewers) and all(viewer.served for viewer in self._viewers):
            self._all.set()

    async def obey(self, command: str) -> dict[str, Any]:
        """Does as it is told; what came of it."""
        if command == "state":
            numbers: dict[str, Counter[int]] = {}
            for viewer in self._viewers:
                numbers.setdefault(viewer.match, Counter())[viewer.number] += 1
            return {"numbers": numbers, "holes": self.holes, "errors": self.errors}
        self._started, self._times = time.monotonic(), []
        self._recovered.clear()
        self.losses.clear()
        self._all.clear()
        for place, viewer in enumerate(self._viewers):
            if command != "come":
                viewer.drop(keep=command == "storm keep")
            viewer.come(place / _ARRIVALS if command == "come" else random.random())
        await self._all.wait()
        times = sorted(self._times)
        return {
            "half": times[len(times) // 2],
            "all": times[-1],
            "recovered": self._recovered[True],
            "snapshots": self._recovered[False],
            "losses": self.losses,
        }


async def main(port: int, clients: int, matches: int) -> None:
    """Answers commands until there are no more."""
    crowd = Clients(port, clients, matches)
    while command := (await asyncio.to_thread(sys.stdin.readline)).strip():
        sys.stdout.write(json.dumps(await crowd.obey(command)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
