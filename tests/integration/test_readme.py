"""What README and docs show is run, against real servers."""

import json
import re
import shlex
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from notifymux import NOTIFY_CHANNEL, EventId
from notifymux.event import encode
from tests.conftest import RedisPlace, StartApp, StartListener, Verify
from tests.support.documents import MIGRATION, OPERATIONS, PYTHON, README, TRIGGERS, block, blocks, flat
from tests.support.process import Process
from tests.support.schema import heard
from tests.support.servers import Servers, database_settings
from tests.support.waiting import wait_until


def script(servers: Servers, folder: Path, code: str) -> Process:
    """A Python block, with nothing but its servers' addresses changed."""
    changed = code.replace("redis://localhost:6379", servers.embedded.redis_url)
    changed = changed.replace("postgresql://postgres@localhost:5432/postgres", servers.embedded.database_url)
    path = folder / "script.py"
    path.write_text(changed, encoding="utf-8")
    return Process([sys.executable, str(path)], folder, {})


def test_the_notifiers_block_hears_what_is_published(servers: Servers, tmp_path: Path) -> None:
    with (
        RedisPlace(servers.embedded.redis_url, "").client() as client,
        script(servers, tmp_path, block(README, "python", "init_redis_notifier")) as process,
    ):
        event = encode("player_match_change", b'{"match_id": 123, "by": "test"}', 0.0)
        wait_until(lambda: client.publish(NOTIFY_CHANNEL, event) or not process.running, 20, "subscribed")
        process.wait_for_log("player_match_change {'match_id': 123, 'by': 'test'}")


def test_the_followers_block_begins_with_a_gap_and_shows_what_is_committed(
    servers: Servers, tmp_path: Path, start_listener: StartListener
) -> None:
    embedded = servers.embedded
    settings = database_settings(embedded.database_url) | {"REDIS_URL": embedded.redis_url}
    start_listener(settings).wait_until_aligned()
    with (
        closing(psycopg.connect(embedded.database_url, autocommit=True)) as connection,
        script(servers, tmp_path, block(README, "python", "follow(")) as process,
    ):
        process.wait_for_log("gap: the session is new")
        connection.execute("NOTIFY match_change, '{\"match_id\": 123}'")
        process.wait_for_log("match_change {'match_id': 123}")
        first, second = process.lines
        assert first == "gap: the session is new"
        assert EventId.parse(second.partition(" ")[0]).epoch > 0


def test_the_managers_block_connects_and_ends(servers: Servers, tmp_path: Path, start_listener: StartListener) -> None:
    embedded = servers.embedded
    start_listener(database_settings(embedded.database_url) | {"REDIS_URL": embedded.redis_url})
    with script(servers, tmp_path, block(PYTHON, "python", "MatchDataWebSocketManager")) as process:
        assert process.exit_code(20) == 0, process.log
        assert process.lines[-1] == "connected: True"


def test_the_commands_that_verify_show_one_row_and_the_events(
    servers: Servers, tmp_path: Path, start_listener: StartListener
) -> None:
    embedded = servers.embedded
    start_listener(database_settings(embedded.database_url) | {"REDIS_URL": embedded.redis_url}).wait_until_aligned()
    query = block(MIGRATION, "sql", "pg_stat_activity")
    with closing(psycopg.connect(embedded.database_url, autocommit=True)) as connection:
        [(_, state, shown)] = connection.execute(query.encode()).fetchall()
    assert state in {"idle", "active"}
    assert shown.startswith("LISTEN")

    *command, channel = shlex.split(block(MIGRATION, "sh", "SUBSCRIBE"))
    assert command == ["redis-cli", "SUBSCRIBE"]
    with RedisPlace(embedded.redis_url, "").client() as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(channel)
        message = wait_until(lambda: pubsub.get_message(timeout=1))
    assert set(json.loads(message["data"])) >= {"id", "channel", "payload", "at"}


@pytest.fixture
def table(database: str, connection: psycopg.Connection, tmp_path: Path) -> psycopg.Connection:
    """A session that LISTENs, in a database with a table that is watched as the README says."""
    connection.execute("CREATE TABLE scoreboard (id int PRIMARY KEY, match_id int, home_score int, notes text)")
    [command] = block(README, "sh", "listener install").splitlines()
    python, *arguments = shlex.split(command, comments=True)
    assert python == "python"
    with Process([sys.executable, *arguments], tmp_path, database_settings(database)) as process:
        assert process.exit_code(30) == 0, process.log
    connection.execute(block(README, "sql", "notifymux.watch").encode())
    connection.execute("INSERT INTO scoreboard VALUES (7, 1, 0, '')")
    connection.execute("LISTEN scoreboard_change")
    return connection


def test_the_trigger_notifies_of_a_row(table: psycopg.Connection) -> None:
    table.execute("UPDATE scoreboard SET home_score = 3")
    row = {"id": 7, "match_id": 1, "home_score": 3, "notes": ""}
    told = {"table": "scoreboard", "operation": "UPDATE", "match_id": 1, "new_id": 7, "old_id": 7}
    assert heard(table) == [told | {"data": row}]


def test_the_trigger_announces_a_row_that_is_too_large_without_its_data(table: psycopg.Connection) -> None:
    table.execute("UPDATE scoreboard SET notes = repeat('ü', 4000)")
    [told] = heard(table)
    assert (told["operation"], told["match_id"], told["new_id"], told["data"]) == ("UPDATE", 1, 7, None)
    assert table.execute("SELECT octet_length(notes) FROM scoreboard").fetchone() == (8000,)


def test_the_trigger_of_a_statement_announces_each_match_once(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE scoreboard (id int PRIMARY KEY, match_id int, home_score int)")
    connection.execute("INSERT INTO scoreboard SELECT id, id % 2, 0 FROM generate_series(1, 1000) id")
    connection.execute(block(OPERATIONS, "sql", "FOR EACH STATEMENT").encode())
    connection.execute("LISTEN scoreboard_change")
    connection.execute("UPDATE scoreboard SET home_score = 3")
    told = {"table": "scoreboard", "operation": "UPDATE", "new_id": None, "old_id": None, "data": None}
    assert sorted(heard(connection), key=itemgetter("match_id")) == [told | {"match_id": 0}, told | {"match_id": 1}]
    connection.execute("UPDATE scoreboard SET home_score = 4 WHERE id > 1000")
    assert heard(connection) == []


def test_the_triggers_page_shows_what_is_announced_and_how_a_trigger_of_ones_own_is_replaced(
    table: psycopg.Connection,
) -> None:
    table.execute("ALTER TABLE scoreboard DROP notes, ADD away_score int DEFAULT 0")
    table.execute("UPDATE scoreboard SET home_score = 3")
    assert heard(table) == [json.loads(block(TRIGGERS, "json", "new_id"))]
    table.execute("CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    table.execute("CREATE TRIGGER notify_change AFTER UPDATE ON scoreboard FOR EACH ROW EXECUTE FUNCTION own()")
    table.execute(block(TRIGGERS, "sql", "DROP TRIGGER").encode())
    table.execute("DELETE FROM scoreboard")
    assert [told["operation"] for told in heard(table)] == ["DELETE"]
    table.execute("CREATE TABLE player_match (match_id int, team_id int, yards int, touchdowns int)")
    table.execute(block(TRIGGERS, "sql", "only_if_changed").encode())
    table.execute(block(TRIGGERS, "sql", "notifymux.notify").encode())
    assert [told["match_id"] for told in heard(table)] == [1]


class Granted(NamedTuple):
    """Settings with which a program has the rights of docs/operations.md and no others."""

    listener: dict[str, str]
    app: dict[str, str]


@pytest.fixture
def granted(
    database: str, connection: psycopg.Connection, redis_place: RedisPlace, settings: dict[str, str]
) -> Iterator[Granted]:
    own, dbname = f"notifymux_{uuid.uuid4().hex[:12]}", conninfo_to_dict(database)["dbname"]
    connection.execute(f"REVOKE ALL ON DATABASE {dbname} FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC".encode())
    role = block(OPERATIONS, "sql", "CREATE ROLE").replace("notifymux", own).replace("mydb", str(dbname))
    connection.execute(role.encode())
    [lines] = [text.splitlines() for text in blocks(OPERATIONS, "") if "ACL SETUSER" in text]
    with closing(redis_place.client()) as client:
        for line in lines:
            acl = line.replace("pg_notify", redis_place.namespace).replace("notifymux-", f"{own}-")
            client.execute_command(*shlex.split(acl))  # type: ignore[no-untyped-call]
        settings |= database_settings(make_conninfo(database, user=own, password="choose-one"))
        try:
            yield Granted(
                settings | {"REDIS_URL": as_user(redis_place.url, f"{own}-listener", "listener-password")},
                settings | {"REDIS_URL": as_user(redis_place.url, f"{own}-worker", "worker-password")},
            )
        finally:
            client.acl_deluser(f"{own}-listener", f"{own}-worker")
            connection.execute(f"DROP OWNED BY {own}; DROP ROLE {own}".encode())


def as_user(url: str, user: str, password: str) -> str:
    host = url.partition("://")[2].rpartition("@")[2]
    return f"redis://{user}:{password}@{host}"


def test_the_rights_that_the_operations_page_grants_are_enough(
    granted: Granted, connection: psycopg.Connection, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(granted.listener).wait_until_aligned().stop()
    start_listener(granted.listener).wait_until_aligned()
    with start_app(granted.app).wait_until_ready().client(1) as client:
        client.wait_for_initial_load()
        connection.execute("NOTIFY match_change, '{\"match_id\": 1}'")
        assert client.wait_for_updates(1)[0]["channel"] == "match_change"


def test_verify_needs_no_right_but_the_listeners_and_says_which_would_show_more(
    granted: Granted, redis_place: RedisPlace, start_listener: StartListener, verify: Verify
) -> None:
    settings = granted.listener | {"USE_REDIS_NOTIFIER": "false"}
    start_listener(settings).wait_until_aligned()
    verified = verify(settings)
    assert (verified.code, verified.with_status("failed")) == (0, []), verified.log
    assert "not shown to this role (pg_monitor" in verified.text("LISTEN sessions")
    rights = re.findall(r"\+\S+", verified.remedy("Redis INFO"))
    assert f"`{' '.join(rights)}`" in flat(OPERATIONS)
    with closing(redis_place.client()) as client:
        user = str(urlsplit(settings["REDIS_URL"]).username)
        client.execute_command("ACL", "SETUSER", user, *rights)  # type: ignore[no-untyped-call]
    verified = verify(settings)
    assert {"Redis version", "Redis role", "Redis memory", "Redis persistence"} < set(verified.with_status("ok"))
