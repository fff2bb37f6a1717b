"""Rows by query on real servers: bursts, queries that fail, and matches that nobody watches."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
import pytest

from tests.conftest import StartApp, StartListener
from tests.support.process import Process
from tests.support.programs import App
from tests.support.waiting import wait_until

TABLE = """
CREATE TABLE counter (id int PRIMARY KEY, match_id int NOT NULL, value int NOT NULL);
CREATE FUNCTION announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('counter_change', json_build_object(
        'operation', TG_OP, 'match_id', coalesce(NEW.match_id, OLD.match_id), 'new_id', NEW.id, 'old_id', OLD.id
    )::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON counter FOR EACH ROW EXECUTE FUNCTION announce();
INSERT INTO counter VALUES (7, 1, 0), (8, 2, 0);
"""
HUNDRED_CHANGES = """
DO $$
BEGIN
    FOR number IN 1..100 LOOP
        UPDATE counter SET value = value + 1 WHERE id = 7;
        COMMIT;
    END LOOP;
END
$$
"""
QUERY_SECONDS = 0.02
ROW = "SELECT to_json(c) FROM counter c WHERE c.id = %(new_id)s"

Start = Callable[[str], App]


@pytest.fixture(params=["redis", "postgres"])
def start(
    request: pytest.FixtureRequest,
    connection: psycopg.Connection,
    settings: Mapping[str, str],
    tmp_path: Path,
    start_listener: StartListener,
    start_app: StartApp,
) -> Start:
    """Starts an application, in both modes, with a query for the table's channel."""
    connection.execute(TABLE.encode())

    def start(query: str) -> App:
        folder = tmp_path / "queries"
        folder.mkdir()
        (folder / "counter_change.sql").write_text(query, encoding="utf-8")
        own = {"NOTIFY_CHANNELS": "counter_change,plain", "QUERIES_DIR": str(folder), "QUERY_TIMEOUT": "5"}
        if request.param == "redis":
            start_listener({**settings, **own}).wait_until_aligned()
        mode = {"USE_REDIS_NOTIFIER": str(request.param == "redis").lower()}
        return start_app({**settings, **own, **mode}).wait_until_ready()

    return start


def metric(app: App, name: str, query: str = "") -> float:
    lines = app.get(f"/metrics{query}")[1].decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"notifymux_{name} ")))


def test_a_hundred_changes_of_one_row_cost_a_handful_of_queries_and_the_last_state_is_right(
    start: Start, connection: psycopg.Connection
) -> None:
    app = start(f"SELECT pg_sleep({QUERY_SECONDS}); {ROW}")
    with app.client(1) as client:
        client.wait_for_initial_load()
        began = time.monotonic()
        connection.execute(HUNDRED_CHANGES.encode())
        wait_until(lambda: client.updates and client.updates[-1]["data"]["value"] == 100)
        seconds = time.monotonic() - began
        wait_until(lambda: metric(app, "row_queries_total") + metric(app, "updates_merged_total") == 100)
        # One at a time, each of which takes some milliseconds; two for events that come after their row was read.
        assert metric(app, "row_queries_total") <= seconds / QUERY_SECONDS + 2
        assert [update["data"]["value"] for update in client.updates] == sorted(
            update["data"]["value"] for update in client.updates
        )


def test_a_query_that_takes_too_long_or_fails_lets_the_payloads_data_out_with_an_error(
    start: Start, connection: psycopg.Connection
) -> None:
    app = start(
        "SELECT CASE WHEN c.value = 1 THEN pg_sleep(60)::text::json WHEN c.value = 2 THEN to_json(1 / (c.value - 2))"
        " ELSE to_json(c) END FROM counter c WHERE c.id = %(new_id)s"
    )
    with app.client(1) as client:
        client.wait_for_initial_load()
        for count in (1, 2, 3):
            connection.execute(b"UPDATE counter SET value = %d WHERE id = 7" % count)
            client.wait_for_updates(count)
        slow, failed, right = client.updates
        assert slow["error"] == failed["error"] == "the query failed or took too long; fetch the state"
        assert slow["data"] == failed["data"] == {"operation": "UPDATE", "match_id": 1, "new_id": 7, "old_id": 7}
        assert (right["data"]["value"], "error" in right) == (3, False)
        assert "division by zero" in app.log
        assert "canceling statement due to statement timeout" in app.log or "takes longer than" in app.log


def test_a_delete_runs_no_query_unless_the_file_says_so(start: Start, connection: psycopg.Connection) -> None:
    app = start(ROW)
    with app.client(1) as client:
        client.wait_for_initial_load()
        connection.execute(b"DELETE FROM counter WHERE id = 7")
        [update] = client.wait_for_updates(1)
        assert (update["operation"], update["data"]["old_id"]) == ("DELETE", 7)
        assert "error" not in update


def test_no_query_runs_for_a_match_that_nobody_watches(start: Start, connection: psycopg.Connection) -> None:
    app = start(ROW)
    with app.client(1) as client:
        client.wait_for_initial_load()
        for _ in range(10):
            connection.execute(b"UPDATE counter SET value = value + 1 WHERE id = 8")
        connection.execute(b"UPDATE counter SET value = 1 WHERE id = 7")
        assert client.wait_for_updates(1)[0]["data"]["value"] == 1
        wait_until(lambda: metric(app, "worker_events_total") == 11)
        assert metric(app, "row_queries_total") == 1


@pytest.mark.parametrize("start", ["redis"], indirect=True)
def test_a_client_that_resumes_over_changes_that_nobody_watched_receives_the_newest_state(
    start: Start, connection: psycopg.Connection
) -> None:
    app = start(ROW)
    with app.client(1) as client:
        last = client.wait_for_initial_load()["id"]
    wait_until(lambda: metric(app, "clients") == 0)
    for _ in range(10):
        connection.execute(b"UPDATE counter SET value = value + 1 WHERE id = 7")
    connection.execute(b"SELECT pg_notify('plain', '{\"match_id\": 1}')")
    with app.client(2, "other") as other:
        other.wait_for_initial_load()
        wait_until(lambda: metric(app, "worker_events_total") >= 11)
    with app.client(1, query=f"?last_event_id={last}") as client:
        assert client.wait_for_initial_load()["recovered"] is True
        row, plain = client.wait_for_updates(2)
        assert (row["data"]["value"], plain["type"]) == (10, "plain")


def test_a_query_that_can_not_be_right_ends_the_app_with_one_line(start: Start) -> None:
    with pytest.raises(AssertionError, match="it has no parameter"):
        start("SELECT %(matchid)s")


def test_a_query_that_can_not_be_right_ends_the_container_with_one_line(tmp_path: Path) -> None:
    settings = {"DB_HOST": "127.0.0.1", "QUERIES_DIR": "none"}
    with Process([sys.executable, "-m", "app.appliance", "prepare"], tmp_path, settings) as process:
        assert process.exit_code() == 2
        assert process.lines == [
            "notifymux: QUERIES_DIR='none': No such file or directory; it takes a folder of SQL files"
        ]
