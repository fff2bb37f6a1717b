"""Clients behind a load balancer: who is closed comes back to another pod with its last id, as notifymux.js does."""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Self

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from tests.chaos.load import MATCHES, Record
from tests.support.waiting import wait_until

_DELAY_SECONDS = 0.25, 0.5  # before a reconnect
_LOOK_SECONDS = 0.02  # from one look at the clock to the next


class Moments:
    """When something happened to the clients of each pod, which its port tells from others."""

    def __init__(self) -> None:
        self._times: dict[int, list[float]] = {}

    def add(self, port: int) -> None:
        """Note that it happened now."""
        self._times.setdefault(port, []).append(time.monotonic())

    def busiest_second(self, port: int) -> int:
        """Return how often it happened within one second, at most."""
        times = list(self._times.get(port, []))
        return max((sum(begin <= at < begin + 1 for at in times) for begin in times), default=0)


class ReturningClient(Record):
    """One of `ReturningClients`."""

    port: int | None = None  # of the pod that serves it
    was_served_by: int | None = None


class ReturningClients:
    """All clients, in a thread with an event loop, while the block runs.

    Args:
        number: how many.
        ports: where the load balancer sends newcomers, at random. The caller changes the list as pods come and go.
    """

    def __init__(self, number: int, ports: list[int]) -> None:
        self.clients = [ReturningClient(MATCHES[n % len(MATCHES)], f"client-{n}") for n in range(number)]
        self.closed, self.back = Moments(), Moments()  # connections, and clients that were served again afterwards
        self.codes: Counter[int] = Counter()  # of closed connections; 0 for none
        self.refused = 0
        self.longest_pause = 0.0  # seconds for which this thread did not run: what came meanwhile seems to come at once
        self._ports = ports
        self._loop = uvloop.new_event_loop()
        self._serving: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: all(client.is_loaded.is_set() for client in self.clients), 30, "all have their initial load")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections for good."""
        if self._serving is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def of_pod(self, port: int) -> int:
        """Return how many clients a pod serves."""
        return sum(client.port == port for client in self.clients)

    def _run(self) -> None:
        async def serve() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_pauses())
                for client in self.clients:
                    tasks.create_task(self._serve(client))

        self._serving = self._loop.create_task(serve())
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serving)
        self._loop.close()

    async def _watch_pauses(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)
            self.longest_pause = max(self.longest_pause, time.monotonic() - before - _LOOK_SECONDS)

    async def _serve(self, client: ReturningClient) -> None:
        while True:
            port = random.choice(self._ports)
            query = f"?last_event_id={client.last_id}" if client.last_id else ""
            url = f"ws://127.0.0.1:{port}/api/matches/ws/id/{client.match}/{client.name}/{query}"
            try:
                async with connect(
                    url, open_timeout=20, close_timeout=1, ping_interval=None, compression=None
                ) as socket:
                    await self._read(client, port, socket)
            except ConnectionClosed as closed:
                self.codes[closed.rcvd.code if closed.rcvd else 0] += 1
            except InvalidStatus:
                self.refused += 1
            except (OSError, WebSocketException):  # TimeoutError too
                self.codes[0] += 1
            if client.port is not None:
                self.closed.add(client.port)
            client.was_served_by, client.port = client.port or client.was_served_by, None
            await asyncio.sleep(random.uniform(*_DELAY_SECONDS))

    async def _read(self, client: ReturningClient, port: int, socket: ClientConnection) -> None:
        while True:
            message = json.loads(await socket.recv())
            if message["type"] == "ping":
                await socket.send('{"type":"pong"}')
                continue
            if client.port is None:
                client.port = port
                if client.was_served_by is not None:
                    self.back.add(client.was_served_by)
            client.add(message)
