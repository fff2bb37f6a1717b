"""Events of quiet matches and the clients that receive them: `python -m tests.isolation.probe PORT CONNINFO SECONDS`.

It measures for some seconds, and prints one line of JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
import uvloop
from websockets.asyncio.client import connect

MATCHES = 5
EVENTS_PER_SECOND = 200
TIMEOUT_SECONDS = 20.0  # until the last event is received
NOTIFY = """
SELECT pg_notify('match_change', json_build_object('match_id', %s::text, 'operation', 'UPDATE',
    'data', json_build_object('n', %s::int, 'at', %s::float8))::text)
"""


class Probe:
    """Measures the latency from just before NOTIFY until the client has read the message."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._received: list[int] = []
        self._latencies: list[float] = []

    @asynccontextmanager
    async def clients(self, port: int) -> AsyncIterator[None]:
        """Connect one client for each match while the block runs."""
        async with AsyncExitStack() as stack:
            tasks = []
            for match in range(MATCHES):
                url = f"ws://127.0.0.1:{port}/api/matches/ws/id/quiet-{match}/probe/"
                socket = await stack.enter_async_context(connect(url))
                await socket.recv()
                tasks.append(asyncio.create_task(self._receive(socket)))
            yield
            for task in tasks:
                task.cancel()

    async def measure(self, seconds: float) -> dict[str, Any]:
        """Return the latencies in ms, and whether every event was received once and in order."""
        sent = range(1, int(seconds * EVENTS_PER_SECOND) + 1)
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
            due = time.monotonic()
            for number in sent:
                await connection.execute(NOTIFY, [f"quiet-{number % MATCHES}", number, time.monotonic()])
                due += 1 / EVENTS_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(self._received) < len(sent) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        complete = all(
            [number for number in self._received if number % MATCHES == match]
            == [number for number in sent if number % MATCHES == match]
            for match in range(MATCHES)
        )
        return {"latencies": self._latencies, "complete": complete}

    async def _receive(self, socket: Any) -> None:
        async for text in socket:
            now = time.monotonic()
            message = json.loads(text)
            if message["type"] == "ping":
                await socket.send('{"type":"pong"}')
            elif "operation" in message:
                self._latencies.append((now - message["data"]["at"]) * 1000)
                self._received.append(message["data"]["n"])


async def main(port: int, conninfo: str, seconds: float) -> None:
    """Measure and print the result."""
    probe = Probe(conninfo)
    async with probe.clients(port):
        sys.stdout.write(json.dumps(await probe.measure(seconds)))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
