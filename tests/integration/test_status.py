"""`/api/status`: the processes, their rates and latencies, the problems, and the incident log."""

import json
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import pairwise
from typing import Any

import jwt
import psycopg
import pytest
import redis

from notifymux.event import EventId, encode
from tests.conftest import RedisPlace, StartApp, StartListener, fresh_database, fresh_redis_place, redis_mode
from tests.support.programs import App, Listener, get
from tests.support.servers import Servers, database_settings
from tests.support.status import Message, StatusStream
from tests.support.waiting import hold_for, wait_until

WITHIN = 10.0  # seconds within which the status shows a fault, and its end
SECRET = "a secret that is long enough for HS256"


def notify(connection: psycopg.Connection, count: int = 1, channel: str = "match_change", match: object = 1) -> None:
    payload = json.dumps({"match_id": match, "data": {"id": 1}})
    # PostgreSQL delivers only the first of equal notifications in one transaction.
    query = "SELECT pg_notify(%s, (%s::jsonb || jsonb_build_object('n', n))::text) FROM generate_series(1, %s) n"
    connection.execute(query, [channel, payload, count])


def status(app: App) -> Message:
    code, body = app.get("/api/status")
    assert code == 200
    assert isinstance(body, dict)
    return body


def status_when(app: App, condition: Callable[[Message], object], within: float = 20.0) -> Message:
    """Request the status until it meets a condition; return it."""
    return wait_until(lambda: body if condition(body := status(app)) else {}, within)


def alive(message: Message) -> list[Message]:
    """The listeners that are alive. A test's namespace also holds the entry of one that stopped before."""
    return [row for row in message["listeners"] if row["state"] == "alive"]


def is_healthy(message: Message) -> bool:
    return bool(message["state"] == "healthy")


@pytest.fixture(scope="module")
def pod(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Pod"]:
    """A listener and two workers that several tests share."""
    folder = tmp_path_factory.mktemp("pod")
    with ExitStack() as stack:
        database = stack.enter_context(fresh_database(request))
        place = stack.enter_context(fresh_redis_place(request))
        settings = redis_mode(database, place) | {"POD_NAME": "pod-a"}
        listener = stack.enter_context(Listener(folder, settings)).wait_until_aligned()
        app = stack.enter_context(App(folder, settings, workers=2))
        status_when(
            app.wait_until_ready(), lambda body: [bool(row["position"]) for row in body["workers"]] == [True, True]
        )
        connection = stack.enter_context(closing(psycopg.connect(database, autocommit=True)))
        yield Pod(listener, app, connection, place, settings)


class Pod:
    def __init__(
        self,
        listener: Listener,
        app: App,
        connection: psycopg.Connection,
        place: RedisPlace,
        settings: dict[str, str],
    ) -> None:
        self.listener, self.app, self.connection = listener, app, connection
        self.place, self.settings = place, settings

    def workers(self) -> dict[str, dict[str, str]]:
        """The workers' hashes, by key."""
        with closing(self.place.client()) as client:
            hashes: dict[str, Any] = {
                key.decode(): client.hgetall(key) for key in client.scan_iter(f"{{{self.place.namespace}}}:worker:*")
            }
        return {
            key: {name.decode(): value.decode() for name, value in fields.items()} for key, fields in hashes.items()
        }


# ---- processes, rates and latencies


def test_what_the_status_shows_of_a_healthy_pod(pod: Pod) -> None:
    notify(pod.connection, 3)
    shown = status_when(
        pod.app,
        lambda body: (
            body["latency"]["p50_ms"]
            and body["postgres"]["direct"] == 2
            and body["redis"]["stream_length"] >= 3
            and [row["buffered"] for row in alive(body)] == [0]
            and 0 < (alive(body)[0]["round_trip_ms"] or 0) < 1000
            and [worker["state"] for worker in body["workers"]] == ["alive", "alive"]
            and all(hop is not None and hop < 1000 for hop in body["latency"]["hops"].values())
            and is_healthy(body)
        ),
    )
    assert abs(shown["at"] - time.time()) < 5
    assert (shown["namespace"], shown["mode"], shown["embedded"]) == (pod.place.namespace, "redis", False)
    assert shown["problems"] == []
    assert not shown["catching_up"]
    postgres = shown["postgres"]
    assert (postgres["state"], postgres["direct"], postgres["queue_usage"]) == ("up", 2, 0.0)
    assert 1 <= postgres["listening"] <= postgres["connections"] <= postgres["max_connections"]
    assert pod.settings["DB_NAME"] in postgres["where"]
    assert shown["redis"]["state"] == "up"
    [listener] = alive(shown)
    assert listener["pid"] == pod.listener.pid
    assert (listener["pod"], listener["program"]) == ("pod-a", "listener")
    assert listener["role"] == "primary"
    assert listener["started"] <= listener["connected_since"] <= shown["at"]
    assert shown["worker"]["pid"] in {worker["pid"] for worker in shown["workers"]}
    assert all(latency >= 0 for latency in shown["latency"]["hops"].values())
    assert shown["tail"] == []


def test_every_field_is_documented_and_every_documented_field_is_there(pod: Pod, root: Any) -> None:
    documented = (root / "docs/protocol.md").read_text(encoding="utf-8").partition("## Status")[2].partition("\n## ")[0]
    example: Message = json.loads(documented.partition("```json\n")[2].partition("```")[0])
    with StatusStream(pod.app.port) as watch:
        since = time.monotonic()
        notify(pod.connection, match=None)  # which no client hears
        shown = watch.wait_for_message(lambda message: message["tail"], since, WITHIN)
    assert shapes(shown) == shapes(example)


def shapes(value: object) -> object:
    """The keys at every level; for a list, those of its first member."""
    if isinstance(value, dict):
        return {key: shapes(member) for key, member in value.items()}
    return [shapes(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def test_clients_and_gaps_of_every_worker_are_shown_by_every_worker(pod: Pod) -> None:
    clients = pod.app.client_of_each_worker("watched", 2)
    try:

        def all_see_both() -> bool:
            shown = [status(pod.app) for _ in range(8)]
            return (
                {body["worker"]["pid"] for body in shown} == set(clients)
                and all(body["clients"] == 2 for body in shown)
                and all({worker["pid"] for worker in body["workers"]} == set(clients) for body in shown)
            )

        wait_until(all_see_both)
    finally:
        for client in clients.values():
            client.close()


def test_a_workers_hash_is_renewed_every_second(pod: Pod) -> None:
    before = wait_until(pod.workers)
    assert len(before) == 2
    for key, fields in before.items():
        assert key == f"{{{pod.place.namespace}}}:worker:pod-a:{fields['uid']}"
        assert (fields["pod"], fields["state"], fields["mode"]) == ("pod-a", "running", "redis")
        with closing(pod.place.client()) as client:
            assert 55_000 < int(client.pttl(key)) <= 60_000
    wait_until(lambda: all(float(now["beat_at"]) > float(before[key]["beat_at"]) for key, now in pod.workers().items()))


def test_a_token_to_verify_is_answered_by_every_worker_at_once(pod: Pod) -> None:
    at_once = 0  # and not with the heartbeat, which is sent once a second
    for number in range(8):
        began, sent, token = time.monotonic(), time.time(), f"token-{number}"
        pod.connection.execute("SELECT pg_notify('pg_notify_mux', %s)", [json.dumps({"verify": token})])
        wait_until(partial(have_verified, pod, token))
        at_once += time.monotonic() - began < 0.5
        for fields in pod.workers().values():
            assert sent < float(fields["verified_at"]) < time.time()
    assert at_once >= 6


def have_verified(pod: Pod, token: str) -> bool:
    return {fields["verified"] for fields in pod.workers().values()} == {token}


def test_other_keys_in_redis_are_not_taken_for_processes_and_hide_none(pod: Pod) -> None:
    with closing(pod.place.client()) as client:
        pipeline = client.pipeline()
        others = [f"other-{pod.place.namespace}-{number}" for number in range(30_000)]
        for key in others:
            pipeline.set(key, "")
        pipeline.execute()
        try:
            for _ in range(3):
                shown = status(pod.app)
                assert len(alive(shown)) == 1
                assert len(shown["workers"]) == 2
        finally:
            client.delete(*others)


# ---- the stream of messages


@pytest.mark.long
def test_the_first_message_has_the_whole_series_and_the_later_ones_what_is_new(pod: Pod) -> None:
    # Of every worker: any of them may serve the stream.
    def each_has_two() -> bool:
        shown = [status(pod.app) for _ in range(20)]
        points = {message["worker"]["pid"]: len(message["series"]["points"]) for message in shown}
        return len(points) == 2 and min(points.values()) >= 2

    wait_until(each_has_two, 30)
    with StatusStream(pod.app.port) as watch:
        wait_until(lambda: len(watch.messages) >= 7)
    messages = [message for _, message in watch.messages]
    first = messages[0]["series"]["points"]
    later = [point for message in messages[1:] for point in message["series"]["points"]]
    assert messages[0]["series"]["step"] == 5
    assert len(first) >= 2
    took = messages[-1]["at"] - messages[0]["at"]
    assert 1 <= len(later) <= took // 5 + 1
    starts = [point[0] for point in first + later]
    assert starts == list(range(starts[0], starts[0] + 5 * len(starts), 5))
    apart = [after["at"] - before["at"] for before, after in pairwise(messages)]
    assert min(apart) > 0.5
    assert statistics.median(apart) < 2.5


def test_the_recent_events_are_those_of_the_requested_channel_and_match(pod: Pod) -> None:
    with ExitStack() as stack:
        everything, channel, match = (
            stack.enter_context(StatusStream(pod.app.port, query))
            for query in ("", "?channel=scoreboard_change", "?channel=match_change&match=tail%20%C3%BC")
        )
        for watch in (everything, channel, match):
            assert watch.latest["tail"] == []
        since = time.monotonic()
        notify(pod.connection, 2, "scoreboard_change", "other")
        notify(pod.connection, 1, "match_change", "tail ü")
        # A message may be made between two commits: what is cut off is one commit.
        wait_until(lambda: sum(len(message["tail"]) for _, message in list(everything.messages)) == 3)
        many = time.monotonic()
        notify(pod.connection, 70, "match_change", "other")
        shown = everything.wait_for_message(lambda message: message["tail"], many, WITHIN)
        assert len(shown["tail"]) == 50
        assert shown["tail_skipped"] == 20
        assert {event["match"] for event in shown["tail"]} == {"other"}
        shown = channel.wait_for_message(lambda message: message["tail"], since, WITHIN)
        assert [event["channel"] for event in shown["tail"]] == ["scoreboard_change"] * 2
        [event] = match.wait_for_message(lambda message: message["tail"], since, WITHIN)["tail"]
        assert event["match"] == "tail ü"
        assert json.loads(event["payload"]) == {"match_id": "tail ü", "data": {"id": 1}, "n": 1}
        assert event["id"]
        assert abs(event["at"] - time.time()) < 10


def test_the_number_of_watchers_is_limited_and_a_free_slot_can_be_taken_again(pod: Pod, start_app: StartApp) -> None:
    app = start_app(pod.settings).wait_until_ready()
    with ExitStack() as stack:
        watches = [stack.enter_context(StatusStream(app.port)) for _ in range(20)]
        assert {watch.response.status for watch in watches} == {200}
        refused = stack.enter_context(StatusStream(app.port))
        assert refused.response.status == 503
        assert 1 <= int(refused.response.headers["retry-after"]) <= 10
        for watch in watches[:10]:
            watch.close()
        wait_until(lambda: _is_let_in(app))
        for watch in watches[10:]:
            assert watch.latest
        assert app.stop() == 0
        for watch in watches[10:]:
            watch.wait_until_ended(5)


def _is_let_in(app: App) -> bool:
    with StatusStream(app.port) as watch:
        return bool(watch.response.status == 200)


# ---- problems


@pytest.fixture
def own_settings(servers: Servers) -> dict[str, str]:
    """Settings for the test's own servers, with the default canary interval."""
    redis_settings = {"REDIS_URL": servers.embedded.redis_url, "USE_REDIS_NOTIFIER": "true", "POD_NAME": "pod-a"}
    return database_settings(servers.embedded.database_url) | redis_settings


def test_a_listener_that_dies_is_shown_and_so_is_its_successor(
    own_settings: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    own_settings |= {"CANARY_INTERVAL": "4"}
    listener, app = start_listener(own_settings).wait_until_aligned(), start_app(own_settings).wait_until_ready()
    with StatusStream(app.port) as watch:
        watch.wait_for_message(is_healthy, time.monotonic(), 20)
        died = time.monotonic()
        listener.kill()
        shown = watch.wait_for_message(lambda message: message["state"] == "degraded", died, WITHIN)
        assert "no listener is alive" in shown["problems"]
        assert shown["listeners"][0]["state"] in {"late", "dead"}
        assert shown["postgres"]["state"] == "unknown"
        assert app.get("/readyz")[0] == 200, "canaries arrived within the last seconds"
        successor = start_listener(own_settings).wait_until_aligned()
        shown = watch.wait_for_message(is_healthy, time.monotonic(), WITHIN)
        assert [row["pid"] for row in shown["listeners"]] == [successor.pid]
        assert app.get("/readyz") == (
            200,
            {"ready": True, "state": "ready", "mode": "redis", "reasons": [], "clients": 0},
        )
        assert kinds(watch.latest) == ["epoch", "start", "epoch", "start"]
        assert watch.latest["totals"]["gaps"] == 1


@pytest.mark.long
def test_a_pod_without_a_listener_is_degraded_and_shows_the_listener_as_dead(
    settings: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    listener, app = start_listener(settings).wait_until_aligned(), start_app(settings).wait_until_ready()
    listener.kill()
    wait_until(lambda: app.get("/readyz")[1]["state"] == "degraded")
    status_when(app, lambda body: [row["state"] for row in body["listeners"] if row["pid"] == listener.pid] == ["dead"])
    hold_for(3, lambda: status(app)["state"] == "degraded")


def kinds(message: Message) -> list[str]:
    return [line["kind"] for line in message["ledger"]]


@pytest.mark.long
def test_redis_that_is_stopped_is_shown_and_so_is_what_was_known_before(
    servers: Servers, own_settings: dict[str, str], start_listener: StartListener, start_remote_app: StartApp
) -> None:
    start_listener(own_settings).wait_until_aligned()
    app = start_remote_app(own_settings).wait_until_ready()
    with StatusStream(app.port) as watch:
        watch.wait_for_message(is_healthy, time.monotonic(), 10)
        gone = time.monotonic()
        servers.stop_redis()
        shown = watch.wait_for_message(lambda message: message["redis"]["state"] == "down", gone, WITHIN)
        assert shown["state"] == "degraded"
        assert "not connected to Redis" in shown["problems"][0]
        assert shown["redis"]["outage"]
        assert [row["state"] for row in shown["listeners"]] == ["alive"], "while Redis is away, nobody can tell"
        asked = time.monotonic()
        assert status(app)["redis"]["state"] == "down"
        assert time.monotonic() - asked < 6
        hold_for(4, lambda: watch.latest["state"] == "degraded")
        servers.start_redis()
        back = time.monotonic()
        shown = watch.wait_for_message(is_healthy, back, WITHIN)
        assert len(shown["listeners"]) == 1
        said = [line for at, message in watch.messages if at >= back for line in message["problems"]]
        assert not any("listener" in line for line in said if "canary" not in line), "the listener was not to blame"


@pytest.mark.long
def test_redis_that_does_not_answer_is_shown(
    servers: Servers, own_settings: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(own_settings).wait_until_aligned()
    app = start_app(own_settings).wait_until_ready()
    assert servers.redis
    with StatusStream(app.port) as watch:
        watch.wait_for_message(is_healthy, time.monotonic(), 10)
        servers.redis.freeze()
        frozen = time.monotonic()
        try:
            watch.wait_for_message(lambda message: message["redis"]["state"] == "down", frozen, WITHIN)
            asked = time.monotonic()
            assert status(app)["state"] == "degraded"
            assert time.monotonic() - asked < 6
            hold_for(8, lambda: watch.latest["state"] == "degraded")
        finally:
            servers.redis.thaw()
        watch.wait_for_message(is_healthy, time.monotonic(), WITHIN)


@pytest.mark.long
def test_postgresql_that_is_stopped_is_shown_because_the_listener_reports_it(
    servers: Servers, own_settings: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(own_settings).wait_until_aligned()
    app = start_app(own_settings).wait_until_ready()
    with StatusStream(app.port) as watch:
        watch.wait_for_message(is_healthy, time.monotonic(), 10)
        gone = time.monotonic()
        servers.stop_postgres()
        shown = watch.wait_for_message(lambda message: message["postgres"]["state"] == "down", gone, WITHIN)
        [problem] = shown["problems"]
        assert problem.startswith("listener pod-a/listener is not connected to PostgreSQL: ")
        servers.start_postgres()
        shown = watch.wait_for_message(
            is_healthy, time.monotonic(), 10
        )  # attempts to connect are at most five seconds apart
        assert shown["postgres"]["state"] == "up"


def test_a_worker_that_waits_for_missing_events_is_catching_up(
    settings: dict[str, str], redis_place: RedisPlace, start_listener: StartListener, start_app: StartApp
) -> None:
    listener = start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    with closing(redis_place.client()) as client, StatusStream(app.port) as watch:
        watch.wait_for_message(is_healthy, time.monotonic(), 10)
        listener.freeze()
        newest: Any = client.xrevrange(f"{{{redis_place.namespace}}}:log", count=1)
        epoch, _, sequence = newest[0][0].decode().partition("-")
        jumped = time.monotonic()
        number = f"{epoch}-{int(sequence) + 6}"
        event = encode("match_change", b"null", 0.0, EventId.parse(number))
        client.xadd(f"{{{redis_place.namespace}}}:log", {"event": event}, id=number)
        client.publish(f"{redis_place.namespace}:events", event)
        shown = watch.wait_for_message(lambda message: message["catching_up"], jumped, WITHIN)
        assert shown["state"] == "degraded"
        position = int(shown["workers"][0]["position"].partition("-")[2])  # it may be fed what is not appended yet
        assert f"catching up: this worker is {int(sequence) + 6 - position} events behind" in shown["problems"]
        listener.thaw()
        watch.wait_for_message(lambda message: is_healthy(message) and not message["catching_up"], jumped, 20)


def test_the_incident_log_shows_that_a_standby_took_over_and_restored_events(
    settings: dict[str, str],
    redis_place: RedisPlace,
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    first = start_listener(settings | {"POD_NAME": "pod-a"}).wait_until_aligned()
    second = start_listener(settings | {"POD_NAME": "pod-b"}).wait_until_aligned()
    app = start_app(settings | {"POD_NAME": "pod-a"}).wait_until_ready()
    shown = status_when(app, lambda body: sorted(row["role"] for row in alive(body)) == ["primary", "standby"])
    # The first one, unless it was late once.
    leader = next(row["pod"] for row in alive(shown) if row["role"] == "primary")
    other = "pod-b" if leader == "pod-a" else "pod-a"
    before = shown["totals"]["failovers"]
    (first if leader == "pod-a" else second).kill()
    notify(connection)
    wait_until(lambda: status(app)["totals"]["failovers"] > before)
    with closing(redis_place.client()) as client:
        client.delete(f"{{{redis_place.namespace}}}:log")
    notify(connection)
    shown = status_when(app, lambda body: body["totals"]["put_back"])
    assert kinds(shown)[:2] == ["put-back", "failover"]
    assert {line["who"] for line in shown["ledger"][:2]} == {f"{other}/listener"}
    status_when(app, lambda body: body["problems"] == [f"listener {leader}/listener is silent"])
    assert (second if leader == "pod-a" else first).running


@pytest.mark.long
def test_the_incident_log_shows_a_full_buffer_and_a_stream_of_an_earlier_epoch(
    servers: Servers, own_settings: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    listener = start_listener(own_settings | {"BUFFER_EVENTS": "100"}).wait_until_aligned()
    app = start_app(own_settings).wait_until_ready()
    servers.stop_redis()
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        notify(connection, 500)
        listener.wait_for_log("the buffer is full")
    servers.start_redis()
    wait_until(lambda: "overflow" in kinds(status(app)))
    listener.kill()
    with closing(redis.Redis.from_url(servers.embedded.redis_url)) as client:
        client.delete("{pg_notify}:log")
        client.xadd(
            "{pg_notify}:log", {"event": '{"id":"1-1","channel":"pg_notify_mux","payload":null,"at":1}'}, id="1-1"
        )
    text = "the stream goes on in an earlier epoch"
    shown = status_when(app, lambda body: any(line["text"] == text for line in body["ledger"]))
    [line] = [line for line in shown["ledger"] if line["text"] == text]
    assert line["kind"] == "gap"
    assert line["who"] == f"pod-a/worker {shown['worker']['pid']}"


# ---- without Redis


def test_in_postgresql_mode_a_worker_shows_itself_and_what_its_canaries_measure(
    settings: dict[str, str], connection: psycopg.Connection, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}, workers=2).wait_until_ready()
    with StatusStream(app.port) as watch:
        since = time.monotonic()
        shown = watch.wait_for_message(lambda message: is_healthy(message) and message["latency"]["p50_ms"], since, 10)
        assert shown["mode"] == "postgres"
        assert shown["redis"]["state"] == "unused"
        assert shown["listeners"] == []
        assert [worker["pid"] for worker in shown["workers"]] == [shown["worker"]["pid"]]
        assert shown["postgres"]["state"] == "up"
        assert shown["postgres"]["listening"] >= 2
        assert shown["postgres"]["direct"] == shown["postgres"]["listening"]
        assert shown["latency"]["hops"] == {"postgres_listener_ms": None, "listener_worker_ms": None}
        since = time.monotonic()
        notify(connection)
        shown = watch.wait_for_message(lambda message: message["tail"], since, WITHIN)
        assert shown["tail"][0]["id"] is None
        lost = time.monotonic()
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        )
        shown = watch.wait_for_message(lambda message: message["ledger"], lost, WITHIN)
        assert shown["ledger"][0]["text"] == "the session is new"
        assert shown["totals"]["gaps"] == 1


# ---- access


def test_only_an_operators_token_gives_access_and_only_until_it_expires(
    settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false", "WS_JWT_SECRET": SECRET}).wait_until_ready()
    for query in ("", "?token=wrong", f"?token={jwt.encode({}, SECRET)}"):
        for path in ("/api/status", "/api/status/events", "/metrics"):
            code, body = app.get(path + query)
            assert code == 401, path
            assert body["error"]
    token = jwt.encode({"operator": True}, SECRET)
    assert app.get(f"/api/status?token={token}")[0] == app.get(f"/metrics?token={token}")[0] == 200
    short = jwt.encode({"operator": True, "exp": time.time() + 2}, SECRET)
    with StatusStream(app.port, headers={"Authorization": f"Bearer {short}"}) as watch:
        assert watch.response.status == 200
        watch.wait_until_ended(6)
        assert watch.messages


def test_a_page_of_another_origin_gets_no_status(settings: dict[str, str], start_app: StartApp) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    with StatusStream(app.port, headers={"Origin": "http://evil.example"}) as watch:
        assert watch.response.status == 403


def test_the_status_page_can_be_disabled_and_the_rest_stays(settings: dict[str, str], start_app: StartApp) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false", "STATUS_PAGE": "false"}).wait_until_ready()
    paths = ("/", "/api/status", "/api/status/events", "/demo", "/demo/matches", "/metrics", "/healthz")
    assert [get(app.port, path)[0] for path in paths] == [404] * 5 + [200] * 2


def test_a_worker_that_may_not_register_serves_and_reports_the_missing_right(
    settings: dict[str, str],
    redis_place: RedisPlace,
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    start_listener(settings).wait_until_aligned()
    user, host = f"{redis_place.namespace}-old", redis_place.url.rpartition("@")[2]
    namespace = redis_place.namespace
    rights = f"ACL SETUSER {user} on >old resetkeys %R~{{{namespace}}}:log resetchannels &{namespace}:events"
    rights += " -@all +subscribe +unsubscribe +ping +xrange +xrevrange"
    with closing(redis_place.client()) as client:
        client.execute_command(*rights.split())  # type: ignore[no-untyped-call]
        try:
            app = start_app(settings | {"REDIS_URL": f"redis://{user}:old@{host}"}).wait_until_ready()
            with app.client(1) as heard:
                heard.wait_for_initial_load()
                notify(connection)
                heard.wait_for_updates(1)
            shown = status(app)
            [problem] = shown["problems"]
            assert "docs/operations.md" in problem
            assert shown["redis"]["state"] == "up"
            assert app.log.count("this worker can't register") == 1
            assert app.get("/readyz")[0] == 200
        finally:
            client.acl_deluser(user)


@pytest.mark.long
def test_a_worker_that_stops_is_not_shown_and_a_killed_one_not_for_long(
    settings: dict[str, str], redis_place: RedisPlace, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app, other = (start_app(settings | {"POD_NAME": name}).wait_until_ready() for name in ("pod-a", "pod-b"))

    def others() -> set[int]:
        return {row["pid"] for row in status(app)["workers"] if row["pod"] == "pod-b"}

    [dead] = wait_until(others)
    os.kill(dead, signal.SIGKILL)  # gunicorn starts another one
    wait_until(lambda: others() and dead not in others(), 10)
    other.stop()
    wait_until(lambda: not others())
    with closing(redis_place.client()) as client:
        states = [client.hget(key, "state") for key in client.scan_iter(f"{{{redis_place.namespace}}}:worker:pod-b:*")]
    assert b"stopped" in states
