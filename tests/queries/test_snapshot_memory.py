"""The memory of large snapshots that wait for clients which read nothing."""

import socket
from collections.abc import Mapping
from contextlib import ExitStack

import psutil
import pytest

from tests.conftest import StartApp, StartListener
from tests.support.programs import App
from tests.support.waiting import wait_until

MIB = 2**20
SNAPSHOT_MIB, CLIENTS = 4, 40
REQUESTS = {
    "websocket": "GET /api/matches/ws/id/1/{name}/ HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "events": "GET /api/matches/1/events HTTP/1.1\r\nHost: h\r\n\r\n",
}


def memory(app: App) -> int:
    return sum(worker.memory_full_info().uss for worker in psutil.Process(app.pid).children())


def wait_for_snapshot(client: socket.socket) -> None:
    """Wait until a part of the snapshot has arrived, and leave it there."""
    wait_until(lambda: len(client.recv(100_000, socket.MSG_PEEK)) > 2000)


def connect(app: App, request: str, name: int) -> socket.socket:
    """Send a request, and read nothing of the response but its beginning."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", app.port))
    client.sendall(request.format(name=name).encode())
    assert client.recv(12).startswith(b"HTTP/1.1 ")
    return client


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_large_snapshot_exists_once_for_all_clients_that_do_not_read_it(
    settings: Mapping[str, str], start_listener: StartListener, start_app: StartApp, kind: str
) -> None:
    query = f"SELECT json_build_object('id', %(match_id)s::text, 'text', repeat('x', {SNAPSHOT_MIB * MIB}))"
    start_listener(settings).wait_until_aligned()
    app = start_app({**settings, "SNAPSHOT_QUERY": query}).wait_until_ready()
    with ExitStack() as stack:
        first = stack.enter_context(connect(app, REQUESTS[kind], 0))
        wait_for_snapshot(first)
        before = memory(app)
        others = [stack.enter_context(connect(app, REQUESTS[kind], name)) for name in range(1, CLIENTS)]
        for other in others:
            wait_for_snapshot(other)
        assert memory(app) - before < 3 * SNAPSHOT_MIB * MIB
