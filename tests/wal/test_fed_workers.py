"""Workers that are fed, while nobody reads the slot: nothing is missing, and nobody hears of a gap (rule 13)."""

import pytest

from tests.conftest import StartApp, StartListener
from tests.support.postgres_cluster import PostgresServer
from tests.support.programs import App, Client
from tests.support.waiting import hold_for, wait_until
from tests.wal.conftest import RedisPath
from tests.wal.stream import Stream, emit

ABSENCE_SECONDS = 8.0  # longer than a takeover timeout


def match_events(*numbers: int) -> list[dict[str, int]]:
    return [{"match_id": 1, "n": number} for number in numbers]


def numbers(client: Client) -> list[int]:
    return [update["data"]["n"] for update in client.updates]


def is_fed(app: App) -> bool:
    rows = app.get("/api/status")[1]["workers"]
    return bool(rows) and all(row["fed"] for row in rows)


@pytest.mark.long
def test_what_was_fed_and_what_redis_lost_is_no_gap_although_nobody_reads_the_slot_for_long(
    server: PostgresServer,
    pod: dict[str, str],
    redis_path: RedisPath,
    stream: Stream,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    pod = pod | {"WAL_TRAIL": "60", "CANARY_INTERVAL": "1"}
    listener = start_listener(pod | redis_path.settings).wait_until_aligned()
    app = start_app(pod).wait_until_ready()
    wait_until(lambda: is_fed(app))
    with app.client(1) as client:
        client.wait_for_initial_load()
        emit(server, *match_events(1))
        wait_until(lambda: stream.payloads() == match_events(1))
        copy = stream.dump()
        emit(server, *match_events(2, 3))
        wait_until(lambda: stream.payloads() == match_events(1, 2, 3))
        redis_path.proxy.cut()
        emit(server, *match_events(4, 5, 6))
        client.wait_for_updates(6)
        listener.kill()
        assert stream.payloads() == match_events(1, 2, 3), "what was fed is not appended"
        stream.put_back(copy)
        redis_path.proxy.resume()
        hold_for(ABSENCE_SECONDS, lambda: not client.of_type("resync"))
        assert stream.payloads() == match_events(1)
        wait_until(lambda: app.get("/readyz")[0] == 503)
        assert "no listener is alive" in app.get("/api/status")[1]["problems"]
        emit(server, *match_events(7))
        start_listener(pod).wait_until_aligned()
        emit(server, *match_events(8))
        client.wait_for_updates(8)
        wait_until(lambda: stream.payloads() == match_events(*range(1, 9)), what=lambda: str(stream.payloads()))
        assert numbers(client) == list(range(1, 9))
        assert not client.of_type("resync")
    stream.assert_one_epoch()
    app.wait_until_ready()
