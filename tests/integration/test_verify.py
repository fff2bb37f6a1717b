"""`python -m listener verify` on a setup that works, and on setups that don't."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.core.config import DEFAULT_CHANNELS
from app.core.postgres import literal
from listener.verify import postgres_checks as postgres
from listener.verify.result import Check, CheckStatus
from tests.conftest import RedisPlace, StartApp, StartListener, Verify
from tests.support.documents import OPERATIONS, README, block
from tests.support.process import Process
from tests.support.programs import Client
from tests.support.schema import install
from tests.support.waiting import wait_until


@pytest.fixture
def direct(settings: dict[str, str]) -> dict[str, str]:
    """PostgreSQL mode, in which no worker has to receive the canary."""
    return settings | {"USE_REDIS_NOTIFIER": "false", "POD_NAME": "pod-1"}


def watched_table(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE scoreboard (id int PRIMARY KEY, match_id int)")
    install(connection)
    connection.execute(block(README, "sql", "notifymux.watch").encode())


def test_where_everything_works_nothing_fails(
    direct: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, verify: Verify
) -> None:
    watched_table(connection)
    listener = start_listener(direct).wait_until_aligned()
    verified = verify(direct)
    assert (verified.code, verified.with_status("failed")) == (0, []), verified.log
    unnamed = set(DEFAULT_CHANNELS) - {"scoreboard_change"}
    triggers = {f"triggers {channel}" for channel in unnamed}
    assert set(verified.with_status("warning")) == {"tokens", "workers", *triggers}
    assert {f"channel {channel}" for channel in DEFAULT_CHANNELS} < set(verified.with_status("ok"))
    assert verified.text("LISTEN sessions") == "1 (1 notifymux-listener/pod-1)"
    assert verified.text("triggers scoreboard_change") == "on public.scoreboard"
    assert verified.text("schema notifymux").endswith("for SOURCE=notify")
    assert f"pod-1:{listener.pid} " in verified.text("listeners")
    assert all(check["remedy"] for check in verified.checks.values() if check["status"] != "ok")


@pytest.mark.long
def test_the_table_has_a_line_for_each_check_and_every_check_is_documented(
    direct: dict[str, str], start_listener: StartListener, tmp_path: Path
) -> None:
    start_listener(direct).wait_until_aligned()
    with Process([sys.executable, "-m", "listener", "verify"], tmp_path, direct) as process:
        assert process.exit_code() == 0
    names = [
        found[1]
        for line in process.lines
        if (found := re.match(r"[✓⚠✗] (.+?)  ", line)) and not found[1].startswith(("triggers", "channel"))
    ]
    assert len(names) >= 10
    operations = OPERATIONS.read_text(encoding="utf-8")
    for name in [*names, "triggers CHANNEL", "channel CHANNEL", "worker POD:PID"]:
        assert f"| {name} |" in operations, name
    assert process.lines[-1].startswith(f"{process.log.count('✓') - 1} ✓  ")
    assert direct["DB_PASSWORD"] not in process.log


def test_a_wrong_password_is_a_failed_check_and_never_printed(
    direct: dict[str, str], start_listener: StartListener, verify: Verify
) -> None:
    start_listener(direct).wait_until_aligned()
    verified = verify(direct | {"DB_PASSWORD": "wr0ng-secret"})
    assert (verified.code, verified.with_status("failed")) == (1, ["PostgreSQL", "canary"])
    assert "password authentication failed" in verified.text("PostgreSQL")
    assert "DB_PASSWORD" in verified.remedy("PostgreSQL")
    assert verified.text("canary") == "not sent"
    assert "wr0ng-secret" not in verified.log


@pytest.mark.long
def test_a_wrong_redis_password_is_a_failed_check_and_never_printed(
    direct: dict[str, str], redis_place: RedisPlace, start_listener: StartListener, verify: Verify
) -> None:
    start_listener(direct).wait_until_aligned()
    verified = verify(direct | {"REDIS_URL": f"redis://:wr0ng-secret@{redis_place.url.rpartition('@')[2]}"})
    assert (verified.code, verified.with_status("failed")) == (1, ["Redis", "canary"])
    assert "Redis refuses this login" in verified.text("Redis")
    assert "REDIS_URL" in verified.remedy("Redis")
    assert "wr0ng-secret" not in verified.log


@pytest.mark.long
def test_unreachable_servers_are_failed_checks(direct: dict[str, str], verify: Verify) -> None:
    verified = verify(direct | {"DB_PORT": "1", "REDIS_URL": "redis://127.0.0.1:1"})
    assert (verified.code, verified.with_status("failed")) == (1, ["PostgreSQL", "Redis", "canary"])
    assert re.match(r"127\.0\.0\.1:1, .*: .*refused", verified.text("PostgreSQL"))
    assert re.match(r"redis://127\.0\.0\.1:1: .*refused", verified.text("Redis"))


@pytest.fixture
def user_without_scripts(redis_place: RedisPlace) -> Iterator[str]:
    """The URL of a Redis user with all rights but scripts."""
    user = redis_place.namespace
    with closing(redis_place.client()) as client:
        client.acl_setuser(
            user, enabled=True, passwords=["+given"], keys=["*"], channels=["*"], categories=["+@all", "-@scripting"]
        )
        yield f"redis://{user}:given@{redis_place.url.rpartition('@')[2]}"
        client.acl_deluser(user)


@pytest.mark.long
def test_a_redis_user_who_may_not_run_scripts_is_a_failed_check(
    direct: dict[str, str], user_without_scripts: str, start_listener: StartListener, verify: Verify
) -> None:
    start_listener(direct).wait_until_aligned()
    verified = verify(direct | {"REDIS_URL": user_without_scripts})
    assert (verified.code, verified.with_status("failed")) == (1, ["append script"])
    assert "Redis forbids it" in verified.text("append script")
    assert "docs/operations.md" in verified.remedy("append script")


@pytest.mark.long
def test_a_database_user_who_may_not_notify_fails_the_canary(
    direct: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, verify: Verify
) -> None:
    role = direct["DB_NAME"]
    connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'given'".encode())
    connection.execute("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
    try:
        start_listener(direct).wait_until_aligned()
        verified = verify(direct | {"DB_USER": role, "DB_PASSWORD": "given"})
        assert (verified.code, verified.with_status("failed")) == (1, ["canary"])
        assert "permission denied for function pg_notify" in verified.text("canary")
        assert "DB_USER" in verified.remedy("canary")
    finally:
        connection.execute("GRANT EXECUTE ON FUNCTION pg_notify(text, text) TO PUBLIC")
        connection.execute(f"DROP ROLE {role}".encode())


def test_a_channel_on_which_the_listener_does_not_listen_yet_is_a_failed_check(
    direct: dict[str, str], start_listener: StartListener, verify: Verify
) -> None:
    start_listener(direct | {"NOTIFY_CHANNELS": "match_change"}).wait_until_aligned()
    verified = verify(direct | {"NOTIFY_CHANNELS": "match_change,weather"})
    assert (verified.code, verified.with_status("failed")) == (1, ["channel weather"])
    assert "does not LISTEN" in verified.text("channel weather")
    assert "supervisorctl restart listener" in verified.remedy("channel weather")


@pytest.mark.long
def test_without_a_listener_each_check_that_needs_one_fails(direct: dict[str, str], verify: Verify) -> None:
    verified = verify(direct)
    assert (verified.code, verified.with_status("failed")) == (1, ["LISTEN sessions", "listeners", "canary"])
    assert all("supervisorctl status listener" in verified.remedy(name) for name in verified.with_status("failed"))


@pytest.mark.parametrize(
    ("change", "printed"), [({"DB_HOST": ""}, "DB_HOST is not set"), ({"PORT": "0"}, "PORT='0': it takes")]
)
def test_wrong_settings_are_one_line_and_exit_2(
    direct: dict[str, str], tmp_path: Path, change: dict[str, str], printed: str
) -> None:
    with Process([sys.executable, "-m", "listener", "verify"], tmp_path, direct | change) as process:
        assert process.exit_code() == 2
    [line] = process.lines
    assert printed in line


@pytest.mark.long
def test_workers_that_listen_directly_in_redis_mode_are_a_warning(
    direct: dict[str, str], start_listener: StartListener, start_app: StartApp, verify: Verify
) -> None:
    start_listener(direct).wait_until_aligned()
    start_app(direct).wait_until_ready()
    verified = verify(direct)
    assert verified.code == 0
    assert verified.text("LISTEN sessions") == "2 (1 notifymux-listener/pod-1, 1 notifymux-worker/pod-1)"
    assert "LISTEN sessions" not in verified.with_status("warning")
    verified = verify(direct | {"USE_REDIS_NOTIFIER": "true"})
    assert "LISTEN sessions" in verified.with_status("warning")
    assert "supervisorctl restart app" in verified.remedy("LISTEN sessions")


def received(client: Client, connection: psycopg.Connection) -> list[object]:
    """The rows that a client of match 1 has received, up to one more event."""
    connection.execute('SELECT pg_notify(\'match_change\', \'{"verify": 1, "data": "last"}\')')
    wait_until(lambda: client.updates and client.updates[-1]["data"] == "last")
    return [update["data"] for update in client.updates]


def test_no_client_receives_the_canaries_even_if_their_key_is_the_routing_key(
    direct: dict[str, str],
    connection: psycopg.Connection,
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
) -> None:
    routing = direct | {"ROUTING_KEY": "verify"}
    start_listener(routing).wait_until_aligned()
    with start_app(routing).wait_until_ready().client(1) as client, closing(redis_place.client()) as redis:
        client.wait_for_initial_load()
        assert verify(routing, "--send").code == 0
        assert received(client, connection) == ["last"]
        entries: Any = redis.xrange(f"{{{redis_place.namespace}}}:log")
    events = [json.loads(fields[b"event"]) for _, fields in entries]
    canaries = [event for event in events if "verify" in (event["payload"] or {}) and event["payload"]["verify"] != 1]
    assert [event["channel"] for event in canaries] == [*DEFAULT_CHANNELS, "pg_notify_mux"]
    sequences = [int(event["id"].partition("-")[2]) for event in events]
    assert sequences == list(range(1, len(events) + 1))


# The check of the triggers.


@pytest.fixture
def tables(connection: psycopg.Connection) -> psycopg.Connection:
    """Three tables without triggers."""
    for name in ("match", "player", "weather"):
        connection.execute(f"CREATE TABLE {name} (id int)".encode())
    return connection


def trigger(connection: psycopg.Connection, table: str, body: str, arguments: str = "", name: str = "tell") -> None:
    function = f"{table}_{name}"
    connection.execute(
        f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$;"
        f"CREATE TRIGGER {name} AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {function}({arguments})".encode()
    )


def of(connection: psycopg.Connection, channel: str) -> tuple[CheckStatus, str]:
    check: Check = postgres.triggers(connection, channel)
    return check.status, check.text


NONE = (CheckStatus.WARNING, "no trigger names this channel")


def test_watches_that_announce_by_the_other_way_are_a_failed_check(connection: psycopg.Connection) -> None:
    assert list(postgres.schema(connection, "notify")) == []
    install(connection, "wal")
    [check] = postgres.schema(connection, "notify")
    assert check.status is CheckStatus.FAILED
    assert check.text.endswith("for SOURCE=wal, and this is SOURCE=notify: no change of a watched table is heard")
    [check] = postgres.schema(connection, "wal")
    assert check.status is CheckStatus.OK


def test_a_trigger_names_its_channel_in_its_functions_body(tables: psycopg.Connection) -> None:
    trigger(tables, "match", "PERFORM pg_notify('match_change', NEW.id::text)")
    trigger(tables, "weather", "NOTIFY weather_change")
    assert of(tables, "match_change") == (CheckStatus.OK, "on match")
    assert of(tables, "weather_change") == (CheckStatus.OK, "on weather")


def test_a_trigger_names_its_channel_by_its_argument(tables: psycopg.Connection) -> None:
    trigger(tables, "match", "PERFORM pg_notify(TG_ARGV[1], '')", "'x', 'it''s, ünï'")
    assert of(tables, "it's, ünï") == (CheckStatus.OK, "on match")
    assert of(tables, "ünï") == NONE


def test_a_channels_name_within_another_name_is_no_match(tables: psycopg.Connection) -> None:
    trigger(tables, "player", "PERFORM pg_notify('player_match_change', '')")
    trigger(tables, "weather", "PERFORM pg_notify(TG_ARGV[0], '')", "'match_change_2'")
    assert of(tables, "match_change") == NONE
    assert of(tables, "player_match_change") == (CheckStatus.OK, "on player")


@pytest.mark.parametrize("channel", ["a.b", "a+b", "(", "With Space", "a\\b", "\n"])
def test_a_channels_name_is_not_a_pattern(tables: psycopg.Connection, channel: str) -> None:
    trigger(tables, "match", "PERFORM pg_notify('axb', '')")
    assert of(tables, channel) == NONE
    trigger(tables, "weather", "PERFORM pg_notify(TG_ARGV[0], '')", literal(channel))
    assert of(tables, channel) == (CheckStatus.OK, "on weather")


def test_a_disabled_trigger_does_not_notify(tables: psycopg.Connection) -> None:
    trigger(tables, "match", "PERFORM pg_notify('match_change', '')")
    tables.execute("ALTER TABLE match DISABLE TRIGGER tell")
    assert of(tables, "match_change") == NONE


def test_many_tables_are_counted_and_a_partitioned_one_is_one(tables: psycopg.Connection) -> None:
    tables.execute("CREATE TABLE part (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF part DEFAULT")
    for table in ("match", "part", "player"):
        trigger(tables, table, "PERFORM pg_notify('all_change', '')")
    assert of(tables, "all_change") == (CheckStatus.OK, "on match, part, player")
    trigger(tables, "weather", "PERFORM pg_notify('all_change', '')")
    assert of(tables, "all_change") == (CheckStatus.OK, "on match, part, player and 1 more")
