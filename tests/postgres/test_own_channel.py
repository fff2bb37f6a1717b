"""Any role may notify on our own channel, and any client of Redis may write into the stream: both are input."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
import redis

from tests.conftest import RedisPlace, StartApp, StartListener
from tests.postgres.observed import MATCH, heard
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.programs import App, Listener
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

HOUR_MS = 3_600_000


class Stream:
    """The stream as it stands in Redis."""

    def __init__(self, place: RedisPlace) -> None:
        self._redis, self._key = place.client(), f"{{{place.namespace}}}:log"

    @property
    def entries(self) -> list[tuple[str, Any]]:
        """Number and event of each entry; a foreign entry's event is None."""
        answer: Any = self._redis.xrange(self._key)
        return [(key.decode(), event(fields.get(b"event", b""))) for key, fields in answer]

    @property
    def head(self) -> tuple[int, int]:
        answer: Any = self._redis.xrevrange(self._key, count=1)
        epoch, sequence = answer[0][0].split(b"-") if answer else (0, 0)
        return int(epoch), int(sequence)

    @property
    def fingerprint(self) -> str:
        """The listener's at work: everybody who LISTENs on our channel may read it."""
        return next(str(event["payload"]["fingerprint"]) for _, event in self.entries if "begin" in event["payload"])

    def add(self, number: str, fields: Any) -> bool:
        """Writes an entry as a stranger; False where the stream is past that number."""
        try:
            self._redis.xadd(self._key, fields, id=number)
        except redis.ResponseError:
            return False
        return True

    def close(self) -> None:
        self._redis.close()


def event(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


@pytest.fixture
def stream(redis_place: RedisPlace) -> Iterator[Stream]:
    with closing(Stream(redis_place)) as stream:
        yield stream


@pytest.fixture
def listener(settings: dict[str, str], start_listener: StartListener) -> Listener:
    return start_listener(settings).wait_until_aligned()


@pytest.fixture
def app(listener: Listener, settings: dict[str, str], start_app: StartApp) -> App:
    return start_app(settings).wait_until_ready()


def notify(server: PostgresServer, payload: str) -> None:
    """As a role that may do what everybody may."""
    with psycopg.connect(server.conninfo(ROLE), autocommit=True) as connection:
        connection.execute("SELECT pg_notify('pg_notify_mux', %s)", [payload])


HUGE = {"2^64": 2**64, "2^63 - 1": 2**63 - 1, "2^62": 2**62, "2^53 + 1": 2**53 + 1, "a year ahead": None}


@pytest.mark.parametrize("fingerprint", ["of the listener", "of somebody else"])
@pytest.mark.parametrize("begin", HUGE)
def test_a_begin_far_ahead_of_every_clock_is_refused_and_logged(
    primary: PostgresServer, stream: Stream, listener: Listener, app: App, begin: str, fingerprint: str
) -> None:
    epoch = HUGE[begin] or int(time.time() * 1000) + 365 * 24 * HOUR_MS
    forged = {
        "begin": epoch,
        "floor": epoch,
        "by": "stranger",
        "previous": "0-0",
        "why": "mischief",
        "fingerprint": stream.fingerprint if fingerprint == "of the listener" else "0" * 16,
    }
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        primary.insert(1, 3)
        client.wait_for_updates(3)
        notify(primary, json.dumps(forged))
        primary.insert(4, 10)
        client.wait_for_updates(10, within=10)
        assert heard(client) == list(range(1, 11))
        assert not client.of_type("resync")
    listener.wait_for_log("refused", 5)
    highest = int(time.time() * 1000) + HOUR_MS
    assert all(int(number.split("-")[0]) < highest for number, _ in stream.entries)
    assert all(number == event["id"] for number, event in stream.entries)


GARBAGE = [
    "",
    "null",
    "[]",
    '{"begin": -1, "floor": -1}',
    '{"begin": 0}',
    '{"begin": "1"}',
    '{"begin": 1.5, "floor": 1.5}',
    '{"begin": 1e300, "floor": 1e300}',
    '{"begin": ' + "9" * 4000 + "}",
    '{"begin": null, "marker": 1}',
    '{"marker": ""}',
    '{"canary": ""}',
    '{"canary": "x", "sent": 1e308, "queue": -1, "listening": -1}',
    '{"canary": "x", "sent": 99999999999999999999999999999999, "max_connections": 99999999999999999999999999999}',
    '{"verify": "' + "x" * 5000 + '"}',
    "[" * 4000,
    '{"begin"',
    '"\\ud800"',
]


def test_garbage_on_our_own_channel_is_an_event_like_any_other(
    primary: PostgresServer, listener: Listener, app: App
) -> None:
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        for number, payload in enumerate(GARBAGE, 1):
            notify(primary, payload)
            primary.insert(number, number)
        client.wait_for_updates(len(GARBAGE))
        assert heard(client) == list(range(1, len(GARBAGE) + 1))
        assert not client.of_type("resync")
    app.wait_until_ready()
    assert app.get("/api/status")[0] == 200
    assert app.get("/metrics")[0] == 200
    assert "Traceback" not in listener.log + app.log


# Entries of a stranger. Each costs at most a gap.

ENTRIES = {
    "without an event": {"field": "value"},
    "with no JSON": {"event": "garbage"},
    "with JSON that is no event": {"event": "[1, 2]"},
    "with an event of another number": {"event": '{"id":"1-1","channel":"match_change","payload":null,"at":1}'},
    "with an event without a number": {"event": '{"channel":"match_change","payload":{"match_id":7,"data":0}}'},
    "with bytes that are not text": {"event": b"\xff\xfe"},
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_strangers_entry_at_the_next_number_does_not_end_the_listener(
    primary: PostgresServer, stream: Stream, listener: Listener, app: App, entry: str
) -> None:
    with app.client(MATCH) as client:
        client.wait_for_initial_load()

        def added() -> bool:
            epoch, sequence = stream.head
            return stream.add(f"{epoch}-{sequence + 1}", ENTRIES[entry])

        wait_until(added)
        # The event that the entry stands in place of is missing to everybody, so there has to be a gap.
        wait_until(lambda: client.of_type("resync") or not listener.running, 20)
        assert listener.running, listener.log
        app.wait_until_ready()
        before = len(client.updates)
        primary.insert(1, 5)
        client.wait_for_updates(before + 5)
        assert heard(client)[-5:] == list(range(1, 6))
    assert "Traceback" not in listener.log + app.log


@pytest.mark.parametrize("number", ["*", "9223372036854775807-1", "18446744073709551615-18446744073709551615"])
def test_a_strangers_entry_far_ahead_does_not_stop_delivery(
    primary: PostgresServer, stream: Stream, listener: Listener, app: App, number: str
) -> None:
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        assert stream.add(number, {"field": "value"})
        if number == "*":  # of now: in the order of the ids it stands where an event should, which is a gap
            wait_until(lambda: client.of_type("resync"))
        highest = int(time.time() * 1000) + HOUR_MS
        wait_until(lambda: stream.head[1] > 0 and stream.head[0] < highest, 20, lambda: str(stream.head))
        assert listener.running, listener.log
        app.wait_until_ready()
        before = len(client.updates)
        primary.insert(1, 5)
        client.wait_for_updates(before + 5)
        assert heard(client)[-5:] == list(range(1, 6))
    assert "Traceback" not in listener.log + app.log


# The highest epoch.


def test_an_epoch_is_higher_than_any_before_it_after_a_lost_session_and_a_wiped_redis(
    primary: PostgresServer,
    stream: Stream,
    settings: dict[str, str],
    redis_place: RedisPlace,
    start_listener: StartListener,
) -> None:
    # As if PostgreSQL's clock were set back by ten minutes after this: the epoch that is begun first is ahead of it.
    ahead = int(time.time() * 1000) + HOUR_MS // 6
    earlier = {"id": f"{ahead}-1", "channel": "pg_notify_mux", "payload": None, "at": 1}
    assert stream.add(f"{ahead}-1", {"event": json.dumps(earlier)})
    listener = start_listener(settings).wait_until_aligned()
    wait_until(lambda: stream.head[0] > ahead)  # a begin is logged before it is appended
    highest, _ = stream.head
    listener.freeze()
    with closing(redis_place.client()) as client:
        client.delete(f"{{{redis_place.namespace}}}:log")
    for pid in primary.listening():
        primary.execute("SELECT pg_terminate_backend(%s, 5000)", pid)
    listener.thaw()
    listener.wait_until_aligned(2)
    wait_until(lambda: stream.entries and stream.head[0] > highest, what=lambda: str(stream.entries))
