"""Messages of 100 kB to 1 MB: everything arrives, and the stream and the processes stay within their bounds."""

import os
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from notifymux.redis_keys import RedisNames
from tests.conftest import RedisPlace, StartApp
from tests.support.postgres_cluster import PostgresServer
from tests.support.programs import Client
from tests.support.waiting import wait_until
from tests.wal.conftest import StartReader
from tests.wal.stream import emit

BOUND = 8 << 20  # of the stream, the listener's buffer and window, and a worker's history
BOUNDS = {name: str(BOUND) for name in ("STREAM_MAXBYTES", "BUFFER_BYTES", "HISTORY_BYTES")} | {
    "CLIENT_QUEUE_BYTES": str(64 << 20)
}
FLOOD = 160  # messages, of which a third has 1 MB: about 96 MB


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def stream_bytes(redis_place: RedisPlace) -> int:
    client = redis_place.client()
    found: Any = client.xrange(RedisNames(redis_place.namespace).log)
    client.close()
    return sum(len(fields[b"event"]) for _, fields in found)


def numbers(client: Client) -> list[int]:
    return [update["data"]["n"] for update in client.updates]


def message(number: int, size: int) -> dict[str, object]:
    return {"match_id": 1, "n": number, "text": "x" * size}


@pytest.mark.long
def test_a_flood_of_large_messages_arrives_whole_within_the_bounds_and_restarts_go_on(
    primary: PostgresServer,
    settings: dict[str, str],
    redis_place: RedisPlace,
    start_reader: StartReader,
    start_app: StartApp,
) -> None:
    listener = start_reader(**BOUNDS).wait_until_aligned()
    app = start_app(settings | BOUNDS | {"POD_NAME": "pod-w"}).wait_until_ready()
    rng = Random(4711)
    with app.client(1) as client:
        client.wait_for_initial_load()
        before = {pid: peak(pid) for pid in (listener.pid, client.worker)}
        emit(primary, *[message(n, rng.choice([100_000, 700_000, 1_000_000])) for n in range(FLOOD)])
        client.wait_for_updates(FLOOD, 60)
        assert numbers(client) == list(range(FLOOD))
        assert not client.of_type("resync")
        wait_until(lambda: stream_bytes(redis_place) <= BOUND + (4 << 20), what="the stream is within its bound")
        assert stream_bytes(redis_place) >= BOUND // 2
        # Both have a buffer and a memory of what they passed on, and copies of a few messages on their way.
        assert {pid: (peak(pid) - most) >> 20 for pid, most in before.items() if peak(pid) - most > 8 * BOUND} == {}
        listener.kill()
        emit(primary, message(FLOOD, 1_000_000))
        listener = start_reader(**BOUNDS).wait_until_aligned()
        client.wait_for_updates(FLOOD + 1, 60)
        assert numbers(client) == list(range(FLOOD + 1))
        assert not client.of_type("resync")
    os.kill(client.worker, signal.SIGKILL)
    with app.client_of_another_worker([client.worker]) as client:
        client.wait_for_initial_load()
        emit(primary, message(FLOOD + 1, 1_000_000))
        client.wait_for_updates(1, 60)
        assert numbers(client) == [FLOOD + 1]
