"""Events of quiet matches and the clients that hear them: `python -m tests.isolation.probe PORT CONNINFO SECONDS`.

It measures for so long, and prints one line of JSON.
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
RATE = 200  # events a second
NOTIFY = """
SELECT pg_notify('match_change', json_build_object('match_id', %s::text, 'operation', 'UPDATE',
    'data', json_build_object('n', %s::int, 'at', %s::float8))::text)
"""


class Probe:
    """Measures from just before a NOTIFY to the client that has read its message."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._told = 0
        self._heard: list[int] = []
        self._times: list[float] = []

    @asynccontextmanager
    async def clients(self, port: int) -> AsyncIterator[None]:
        """One client for each match."""
        async with AsyncExitStack() as stack:
            tasks = []
            for match in range(MATCHES):
                url = f"ws://127.0.0.1:{port}/api/matches/ws/id/quiet-{match}/probe/"
                socket = await stack.enter_async_context(connect(url))
                await socket.recv()
                tasks.append(asyncio.create_task(self._hear(socket)))
            yield
            for task in tasks:
                task.cancel()

    async def measure(self, seconds: float) -> dict[str, Any]:
        """The times in ms, and whether everything came, once and in order."""
        self._times, self._heard, first = [], [], self._told
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
            due = time.monotonic()
            for _ in range(int(seconds * RATE)):
                self._told += 1
                match = f"quiet-{self._told % MATCHES}"
                await connection.execute(NOTIFY, [match, self._told, time.monotonic()])
                due += 1 / RATE
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        deadline = time.monotonic() + 20
        while len(self._heard) < self._told - first and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        expected = range(first + 1, self._told + 1)
        complete = all(
            [number for number in self._heard if number % MATCHES == match]
            == [number for number in expected if number % MATCHES == match]
            for match in range(MATCHES)
        )
        return {"times": self._times, "complete": complete}

    async def _hear(self, socket: Any) -> None:
        async for text in socket:
            now = time.monotonic()
            message = json.loads(text)
            if message["type"] == "ping":
                await socket.send('{"type":"pong"}')
            elif "operation" in message:
                self._times.append((now - message["data"]["at"]) * 1000)
                self._heard.append(message["data"]["n"])


async def main(port: int, conninfo: str, seconds: float) -> None:
    """Measures once."""
    probe = Probe(conninfo)
    async with probe.clients(port):
        sys.stdout.write(json.dumps(await probe.measure(seconds)))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
