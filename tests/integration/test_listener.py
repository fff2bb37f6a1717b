"""The listener, against a real PostgreSQL and a real Redis."""

import json
import time
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from tests.conftest import RedisPlace, StartListener
from tests.support.proxy import Proxy
from tests.support.servers import redis_url_with_port
from tests.support.waiting import hold_for, wait_until

LISTENING = "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


@pytest.fixture
def stream(redis_place: RedisPlace) -> "Stream":
    return Stream(redis_place)


class Stream:
    def __init__(self, place: RedisPlace) -> None:
        self.client, self.key = place.client(), f"{{{place.namespace}}}:log"

    @property
    def entries(self) -> list[tuple[str, dict[str, Any]]]:
        answer: Any = self.client.xrange(self.key)
        return [(key.decode(), json.loads(fields[b"event"])) for key, fields in answer]

    @property
    def epoch(self) -> int:
        return int(self.entries[-1][0].partition("-")[0])

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all channels but our own."""
        return [event for _, event in self.entries if event["channel"] != "pg_notify_mux"]


def subscriber(client: redis.Redis) -> Any:
    return client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]


def test_payloads_of_every_kind_pass_unchanged_in_order_under_consecutive_ids(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, stream: Stream
) -> None:
    start_listener(settings).wait_until_aligned()
    sent = [
        ('{"a": 1.10, "b": 12345678901234567890123}', {"a": 1.10, "b": 12345678901234567890123}),
        ("", None),
        ("not JSON", "not JSON"),
        ('{"half":', '{"half":'),
        ('{"a":1},"id":"9-9"', '{"a":1},"id":"9-9"'),
        ('"\N{SNOWMAN} ünïcödé"', "\N{SNOWMAN} ünïcödé"),
        ("[" * 300 + "]" * 300, json.loads("[" * 300 + "]" * 300)),
        ("[" * 3000 + "]" * 3000, "[" * 3000 + "]" * 3000),
        ('"' + "x" * 7997 + '"', "x" * 7997),
        ('tab\t quote" back\\slash \x01', 'tab\t quote" back\\slash \x01'),
    ]
    for payload, _ in sent:
        connection.execute("SELECT pg_notify('match_change', %s)", [payload])
    wait_until(lambda: len(stream.events) == len(sent))
    events = stream.events
    assert [event["payload"] for event in events] == [expected for _, expected in sent]
    assert all(key == event["id"] for key, event in stream.entries)
    epochs, sequences = zip(*(key.split("-") for key, _ in stream.entries), strict=True)
    assert len(set(epochs)) == 1
    assert list(map(int, sequences)) == list(range(1, len(sequences) + 1))


def test_one_listen_row_at_every_moment_through_canaries(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, stream: Stream
) -> None:
    start_listener(settings | {"CANARY_INTERVAL": "0.1"}).wait_until_aligned()
    seen = len(stream.entries)

    def one_row_and_canaries_pass() -> bool:
        assert len(connection.execute(LISTENING).fetchall()) == 1
        return len(stream.entries) > seen + 20

    wait_until(one_row_and_canaries_pass)


def test_a_terminated_session_is_replaced_and_the_gap_is_announced(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, stream: Stream
) -> None:
    listener = start_listener(settings).wait_until_aligned()
    [(pid, _)] = connection.execute(LISTENING).fetchall()
    connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    listener.wait_until_aligned(times=2)
    connection.execute("NOTIFY match_change, 'after'")
    wait_until(lambda: [event["payload"] for event in stream.events] == ["after"])
    begins = [event["payload"] for _, event in stream.entries if "begin" in (event["payload"] or {})]
    assert len(begins) == 2
    assert begins[0]["begin"] < begins[1]["begin"]
    assert listener.running


def test_an_epoch_is_above_all_epochs_of_earlier_sessions_even_if_redis_lost_them(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, stream: Stream
) -> None:
    ahead = int((time.time() + 12 * 3600) * 1000)  # as if PostgreSQL's clock had been set back since
    stream.client.xadd(stream.key, {"event": "null"}, id=f"{ahead}-1")
    listener = start_listener(settings).wait_until_aligned()
    wait_until(lambda: stream.epoch > ahead)
    first = stream.epoch
    listener.freeze()
    [(pid, _)] = connection.execute(LISTENING).fetchall()
    connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    stream.client.delete(stream.key)
    listener.thaw()
    listener.wait_until_aligned(times=2)
    wait_until(lambda: stream.entries and stream.epoch > first)


def test_sigterm_appends_the_buffered_events_and_exits_0(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, stream: Stream
) -> None:
    listener = start_listener(settings).wait_until_aligned()
    listener.freeze()
    connection.execute("SELECT pg_notify('match_change', n::text) FROM generate_series(1, 5000) n")
    listener.thaw()
    assert listener.stop() == 0
    appended = [event["payload"] for event in stream.events]
    assert appended == list(range(1, len(appended) + 1))  # PostgreSQL may not have sent all of them
    assert "not in Redis" not in listener.log
    assert "stopped" in listener.lines[-1]


def test_without_a_database_it_logs_an_error_and_exits_2(
    start_listener: StartListener, redis_place: RedisPlace
) -> None:
    listener = start_listener(redis_place.settings)
    assert listener.exit_code() == 2
    assert "DB_HOST is not set" in listener.log
    assert "Traceback" not in listener.log


@pytest.mark.parametrize(
    ("change", "logged"),
    [
        ({"DB_PASSWORD": "wr0ng-secret"}, "password authentication failed"),
        ({"DB_NAME": "no_such_database"}, 'database "no_such_database" does not exist'),
        ({"DB_USER": "no_such_user"}, "authentication failed"),
    ],
)
def test_a_login_that_postgresql_refuses_is_an_outage_and_logged_once_with_the_remedy(
    settings: dict[str, str], start_listener: StartListener, change: dict[str, str], logged: str
) -> None:
    listener = start_listener(settings | change)
    listener.wait_for_log(logged)
    listener.wait_for_log("check DB_HOST, DB_USER, DB_PASSWORD and DB_NAME")
    hold_for(2.5, lambda: listener.running)
    assert listener.log.count(logged) == 1
    assert "Traceback" not in listener.log
    assert "wr0ng-secret" not in listener.log
    assert listener.stop() == 0


def test_a_redis_password_that_is_refused_is_an_outage_and_never_logged(
    settings: dict[str, str], start_listener: StartListener, redis_place: RedisPlace
) -> None:
    host = redis_place.url.rpartition("@")[2]
    listener = start_listener(settings | {"REDIS_URL": f"redis://:s3cret-word@{host}"})
    listener.wait_for_log("Redis refuses this login")
    hold_for(2.5, lambda: listener.running)
    assert listener.log.count("Redis refuses this login") == 1
    assert "s3cret-word" not in listener.log


def test_the_registry_shows_a_running_listener_and_that_it_stopped(
    settings: dict[str, str], start_listener: StartListener, redis_place: RedisPlace
) -> None:
    listener = start_listener(settings | {"POD_NAME": "a"}).wait_until_aligned()
    with closing(redis_place.client()) as client:
        [key] = wait_until(lambda: client.keys(f"{{{redis_place.namespace}}}:listener:a:*"))
        wait_until(lambda: client.hget(key, "role") == b"primary")
        assert client.hget(key, "pid") == str(listener.pid).encode()
        listener.stop()
        assert client.hget(key, "state") == b"stopped"
        assert client.pttl(key) > 0


def test_published_events_have_the_same_text_as_in_the_stream(
    settings: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    stream: Stream,
    redis_place: RedisPlace,
) -> None:
    start_listener(settings).wait_until_aligned()
    with closing(redis_place.client()) as client, closing(subscriber(client)) as pubsub:
        pubsub.subscribe(f"{redis_place.namespace}:events")
        wait_until(lambda: client.pubsub_numsub(f"{redis_place.namespace}:events")[0][1] == 1)
        connection.execute("NOTIFY match_change, '{\"match_id\": 1}'")
        texts: list[bytes] = []

        def published() -> bool:
            message = pubsub.get_message(timeout=1)
            texts.extend([message["data"]] if message else [])
            return any(b"match_change" in text for text in texts)

        wait_until(published)
        event = json.loads(next(text for text in texts if b"match_change" in text))
    assert event == wait_until(lambda: stream.events)[0]
    assert event["payload"] == {"match_id": 1}
    assert set(event) == {"id", "channel", "payload", "at"}


@pytest.mark.long
def test_a_backlog_that_lasts_longer_than_a_canarys_timeout_is_no_session_failure(
    settings: dict[str, str],
    connection: psycopg.Connection,
    redis_place: RedisPlace,
    start_listener: StartListener,
    stream: Stream,
) -> None:
    with Proxy(urlsplit(redis_place.url).port or 0) as proxy:
        slow = settings | {"REDIS_URL": redis_url_with_port(redis_place.url, proxy.port), "BUFFER_EVENTS": "2000"}
        listener = start_listener(slow).wait_until_aligned()
        proxy.throttle(250_000)
        connection.execute(
            "SELECT pg_notify('match_change', json_build_object('n', n, 'pad', repeat('x', 150))::text)"
            " FROM generate_series(1, 10000) n"
        )
        wait_until(lambda: len(numbers(stream)) == 10_000, 100, lambda: f"{len(numbers(stream))}\n{listener.log}")
        assert numbers(stream) == list(range(1, 10_001))
        assert "is away" not in listener.log
        assert "buffer is full" not in listener.log
        assert listener.log.count(" begins after ") == 1


def numbers(stream: Stream) -> list[int]:
    return [event["payload"]["n"] for event in stream.events]
