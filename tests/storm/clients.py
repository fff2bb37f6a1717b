"""Thousands of WebSocket clients in one process: `python -m tests.storm.clients PORT CLIENTS MATCHES`.

Reads one command per line from standard input, and answers each with one line of JSON:

- `connect`: connects all clients, 500 per second; answers when all are served.
- `reconnect with-id`, `reconnect without-id`: drops all connections; the clients reconnect within a second, with their
  last id or without; answers when all are served.
- `gap`: answers when all clients have received a `resync`.
- `state`: the numbers that the clients of each match have, and the errors so far.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from typing import Any, cast

import uvloop

_REQUEST = (
    "GET /api/matches/ws/id/{match}/{name}/{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_TEXT, _CLOSE, _PING = 1, 8, 9
_PONG_FRAME_HEAD = b"\x8a\x84\0\0\0\0"
_PONG_MESSAGE = b"\x81\x8f\0\0\0\0" + b'{"type":"pong"}'
_CONNECTS_PER_SECOND = 500


class Client:
    """A client that counts the events of its match, starting with the number in the snapshot."""

    def __init__(self, pool: "ClientPool", name: int) -> None:
        self.pool, self.name, self.match = pool, name, str(name % pool.matches)
        self.number = -1
        self.last_id: str | None = None
        self.is_served = False
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._attempts = 0

    def connect_after(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._start_connecting)

    def drop(self, *, keep_id: bool) -> None:
        """Abort the connection."""
        self.is_served, self._attempts = False, 0
        self.last_id = self.last_id if keep_id else None
        connection, self._connection = self._connection, None
        if connection and connection.transport:
            connection.transport.abort()

    def _start_connecting(self) -> None:
        self._connection = Connection(self)
        self.pool.create_task(self._connect(self._connection))

    async def _connect(self, connection: "Connection") -> None:
        query = f"?last_event_id={self.last_id}" if self.last_id else ""
        connection.request = _REQUEST.format(match=self.match, name=self.name, query=query).encode()
        try:
            await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", self.pool.port)
        except OSError:
            self.on_close(connection, "no connection")

    def on_close(self, connection: "Connection", reason: str) -> None:
        """Reconnect, unless the client has another connection already."""
        if connection is not self._connection:
            return
        self.pool.losses[reason] += 1
        self.is_served = False
        self._attempts += 1
        self.connect_after(random.uniform(0.1, min(2.0, 0.2 * 2**self._attempts)))

    def on_message(self, connection: "Connection", text: bytes) -> None:
        message = json.loads(text)
        if message["type"] == "ping":
            connection.send(_PONG_MESSAGE)
        elif connection is self._connection:
            self.last_id = message["id"] or self.last_id
            if message["type"] == "stale":
                self.pool.stale += 1
            else:
                self._apply(message)

    def _apply(self, message: dict[str, Any]) -> None:
        if message["type"] in {"initial-load", "resync"}:
            if not message.get("recovered"):
                self.pool.errors += message["data"] is None
                self.number = message["data"]["n"] if message["data"] else -1
            self.is_served = True
            self.pool.on_served(bool(message.get("recovered")))
        elif message["data"]["n"] == self.number + 1:
            self.number += 1
        elif message["data"]["n"] > self.number:
            self.pool.missed += 1


class Connection(asyncio.Protocol):
    """A WebSocket connection: the handshake and the frames."""

    def __init__(self, client: Client) -> None:
        self.transport: asyncio.Transport | None = None
        self.request = b""
        self._client, self._buffer, self._is_open = client, b"", False
        self._close_reason = "lost"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send(self.request)

    def send(self, data: bytes) -> None:
        if self.transport:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_open:
            head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            self._is_open = head.startswith(b"HTTP/1.1 101 ")
            if not self._is_open and self.transport:
                self._close_reason = head[9:12].decode()
                self.transport.close()
                return
        while (frame := self._next_frame()) is not None:
            self._on_frame(*frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.on_close(self, self._close_reason)

    def _next_frame(self) -> tuple[int, bytes] | None:
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

    def _on_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self._client.on_message(self, payload)
        elif opcode == _PING:
            self.send(_PONG_FRAME_HEAD + payload)
        elif opcode == _CLOSE:
            self._close_reason = str(int.from_bytes(payload[:2]))


class ClientPool:
    """All clients, and the figures of the current command."""

    def __init__(self, port: int, clients: int, matches: int) -> None:
        self.port, self.matches = port, matches
        self.losses: Counter[str] = Counter()  # connections lost before or after they were served, by reason
        self.missed = self.errors = self.stale = 0
        self._recovered: Counter[bool] = Counter()
        self._times: list[float] = []
        self._started = 0.0
        self._all_served = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients = [Client(self, name) for name in range(clients)]

    def create_task(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def on_served(self, recovered: bool) -> None:
        """Count one more client that has received its first message."""
        self._recovered[recovered] += 1
        self._times.append(time.monotonic() - self._started)
        if len(self._times) >= len(self._clients) and all(client.is_served for client in self._clients):
            self._all_served.set()

    async def run(self, command: str) -> dict[str, Any]:
        """Run a command and return its answer."""
        if command == "state":
            numbers: dict[str, Counter[int]] = {}
            for client in self._clients:
                numbers.setdefault(client.match, Counter())[client.number] += 1
            return {"numbers": numbers, "missed": self.missed, "errors": self.errors}
        self._started, self._times = time.monotonic(), []
        self._recovered.clear()
        self.losses.clear()
        self._all_served.clear()
        self.stale = 0
        for index, client in enumerate(self._clients):
            if command == "gap":
                client.is_served = False
            elif command == "connect":
                client.connect_after(index / _CONNECTS_PER_SECOND)
            else:
                client.drop(keep_id=command == "reconnect with-id")
                client.connect_after(random.random())
        await self._all_served.wait()
        times = sorted(self._times)
        return {
            "first": times[0],
            "stale": self.stale,
            "half": times[len(times) // 2],
            "all": times[-1],
            "recovered": self._recovered[True],
            "snapshots": self._recovered[False],
            "losses": self.losses,
        }


async def main(port: int, clients: int, matches: int) -> None:
    """Run commands until the end of the input."""
    pool = ClientPool(port, clients, matches)
    while command := (await asyncio.to_thread(sys.stdin.readline)).strip():
        sys.stdout.write(json.dumps(await pool.run(command)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
