"""How clients spread over the workers, and how long it takes to connect one: `python -m tests.storm --spread`."""

import asyncio
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from tests.support.programs import App

WORKERS = 4
_EVENT_STREAM = "GET /api/matches/1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_WEBSOCKET = (
    "GET /api/matches/ws/id/1/{name}/ HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


# After how many seconds a client is back whose worker died: one of notifymux.js, and an EventSource (docs/protocol.md).
_BROWSERS_RETURN = (0.25, 0.5), (1.0, 5.0)


class Connected(NamedTuple):
    """A client: its worker's process id, and how long it took until it had the head of the response."""

    worker: int
    seconds: float
    writer: asyncio.StreamWriter


async def connect(port: int, number: int) -> Connected:
    """Connect a client: a WebSocket, or every other time an event stream."""
    request = (_EVENT_STREAM if _is_event_stream(number) else _WEBSOCKET.format(name=number)).encode()
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    took = time.perf_counter() - started
    assert head.startswith(("HTTP/1.1 101 ", "HTTP/1.1 200 ")), head
    [worker] = [line.partition(":")[2] for line in head.splitlines() if line.lower().startswith("x-worker:")]
    return Connected(int(worker), took, writer)


def _is_event_stream(number: int) -> bool:
    return number % 2 == 1


class Crowd:
    """Clients of an application with several workers. They read what comes, and answer no pings."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.clients: list[Connected] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def arrive(self, number: int, seconds_apart: float = 0.0) -> Self:
        """Connect clients one after the other."""
        for each in range(number):
            self.clients.append(await connect(self._app.port, each))
            await asyncio.sleep(seconds_apart)
        return self

    async def arrive_until_even(self, within: float, at_most: int, workers: Collection[int] = ()) -> Self:
        """Connect clients one after the other until the fullest of the workers has at most so many times the mean.

        Without `workers`, of all. A worker that is busy for longer than others leave newcomers to it catches up with
        the next ones.
        """
        for each in range(at_most):
            if (self.fullest_of(workers) if workers else self.fullest) <= within:
                break
            self.clients.append(await connect(self._app.port, each))
        return self

    async def arrive_within(self, number: int, *times: tuple[float, float]) -> Self:
        """Connect clients at random times between two, in seconds; without, all at once.

        Event streams take the last times, WebSockets the first.
        """

        async def arrive(each: int) -> Connected:
            first, last = times[-1 if _is_event_stream(each) else 0]
            await asyncio.sleep(random.uniform(first, last))
            return await connect(self._app.port, each)

        times = times or ((0, 0),)
        self.clients += await asyncio.gather(*map(arrive, range(number)))
        return self

    async def leave(self) -> None:
        """Have all clients go."""
        await _close(self.clients)
        self.clients = []

    async def kill_fullest(self) -> int:
        """Kill the worker with the most clients, which are gone; return how many they were."""
        [(fullest, _)] = self.counts.most_common(1)
        os.kill(fullest, signal.SIGKILL)
        lost = [client for client in self.clients if client.worker == fullest]
        self.clients = [client for client in self.clients if client.worker != fullest]
        await _close(lost)
        return len(lost)

    @property
    def counts(self) -> Counter[int]:
        """The number of clients of each worker that has some."""
        return Counter(client.worker for client in self.clients)

    @property
    def fullest(self) -> float:
        """The clients of the worker with the most, as a multiple of the mean of all workers."""
        return max(self.counts.values()) * WORKERS / len(self.clients)

    def fullest_of(self, workers: Collection[int]) -> float:
        """The same of some workers, which have clients."""
        counts = [self.counts[worker] for worker in workers]
        return max(counts) * len(counts) / sum(counts)

    async def wait_for_another(self, workers: Collection[int]) -> None:
        """Wait until a worker that is none of these takes a client."""
        while (client := await connect(self._app.port, 0)).worker in workers:
            await _close([client])
        await _close([client])

    def row(self, name: str, last: int = 0) -> str:
        """Format the figures; the times are of the last of the clients, or of all."""
        counts = sorted(self.counts.values())
        times = sorted(client.seconds * 1000 for client in self.clients[-last:])
        figures = f"{self.fullest:7.2f}{statistics.median(times):10.2f}{times[len(times) * 99 // 100]:10.2f}"
        return f"{name:44}{', '.join(map(str, counts)):>20}{figures}"


async def _close(clients: Sequence[Connected]) -> None:
    for client in clients:
        client.writer.close()
    await asyncio.gather(*(client.writer.wait_closed() for client in clients), return_exceptions=True)


def wait_for_workers(app: App) -> None:
    """Wait until all workers take clients."""
    app.wait_until_ready()
    for client in app.client_of_each_worker("1", WORKERS).values():
        client.close()


async def rows(app: App) -> AsyncIterator[str]:
    """Have clients arrive in several ways, and yield a row for each."""
    yield f"{'':44}{'clients of a worker':>20}{'/ mean':>7}{'p50, ms':>10}{'p99, ms':>10}"
    for number, apart in ((32, 1.0), (200, 0.1), (400, 0.0)):
        async with Crowd(app) as crowd:
            yield (await crowd.arrive(number, apart)).row(f"{number} clients, {apart:g} s apart")
        await asyncio.sleep(1)  # until the workers have noticed that they are gone
    async with Crowd(app) as crowd:
        yield (await crowd.arrive_within(1000)).row("1000 clients at once")
    for name, *times in (
        ("as browsers are", *_BROWSERS_RETURN),
        ("after 0.25 to 0.5 s", *_BROWSERS_RETURN[:1]),
        ("at once",),
    ):
        await asyncio.sleep(1)
        async with Crowd(app) as crowd:
            await crowd.arrive_within(1000)
            lost = await crowd.kill_fullest()
            yield (await crowd.arrive_within(lost, *times)).row(f"of 1000, the fullest killed, back {name}", lost)


def show(folder: Path, settings: Mapping[str, str]) -> None:
    """Start an application, and print its rows."""

    async def run(app: App) -> None:
        async for row in rows(app):
            sys.stdout.write(row + "\n")

    with App(folder, settings, WORKERS) as app:
        wait_for_workers(app)
        asyncio.run(run(app))
