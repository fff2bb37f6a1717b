"""From notify to wal and back while writers run: one announced gap each way, and nothing is lost after it."""

import sys
from collections.abc import Mapping
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartApp, StartListener
from tests.support.postgres_cluster import PostgresServer
from tests.support.process import Process
from tests.support.programs import Client
from tests.support.schema import install
from tests.support.waiting import wait_until
from tests.wal.stream import WriterThreads

MATCH, ROWS, WRITERS = 7, 5, 3
SNAPSHOT = "SELECT json_object_agg(id, version) FROM t WHERE match_id = %(match_id)s::int"
UPDATE = "UPDATE t SET version = version + 1 WHERE id = %s RETURNING version"


@pytest.fixture
def table(primary: PostgresServer) -> PostgresServer:
    """A server with a watched table of numbered rows, whose versions rise by one with each update."""
    with closing(primary.connect()) as connection:
        install(connection)
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, match_id int, version int)")
        connection.execute("SELECT notifymux.watch('t', channel => 'match_change')")
        connection.execute("INSERT INTO t SELECT n, %s, 0 FROM generate_series(1, %s) n", [MATCH, WRITERS * ROWS])
    return primary


class Updates(WriterThreads):
    """Threads that update rows of their own without a pause until the block ends."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__(server, WRITERS)
        self.done = [0] * WRITERS

    def write(self, number: int) -> None:
        with closing(self._server.connect()) as connection:
            for written in count():
                if self._stopping.wait(0.01):
                    return
                connection.execute(UPDATE, [1 + number * ROWS + written % ROWS])
                self.done[number] += 1

    def go_on(self) -> None:
        """Wait until each has written some more."""
        enough = [done + 20 for done in self.done]
        wait_until(lambda: all(done > least for done, least in zip(self.done, enough, strict=True)))


def install_for(source: str, folder: Path, settings: Mapping[str, str]) -> Process:
    return Process([sys.executable, "-m", "listener", "install"], folder, {**settings, "SOURCE": source})


def state(client: Client) -> dict[int, int]:
    """The versions that a client knows, of a snapshot and what followed it; none may be missing in between."""
    known: dict[int, int] = {}
    for message in list(client.messages):
        if message["type"] in {"initial-load", "resync"}:
            known = {int(row): version for row, version in message["data"].items()}
        elif "operation" in message:
            row, version = message["data"]["id"], message["data"]["version"]
            assert version <= known.get(row, -1) + 1, f"after {known.get(row)} of row {row} comes {version}"
            known[row] = max(known.get(row, 0), version)
    return known


def versions(server: PostgresServer) -> dict[int, Any]:
    return dict(server.execute("SELECT id, version FROM t"))


@pytest.fixture
def notify_settings(settings: dict[str, str]) -> dict[str, str]:
    return settings | {"SOURCE": "notify", "SNAPSHOT_QUERY": SNAPSHOT, "POD_NAME": "pod-a"}


@pytest.mark.long
def test_from_notify_to_wal_and_back_is_one_gap_each_way_and_nothing_is_lost_after_it(
    table: PostgresServer,
    notify_settings: dict[str, str],
    tmp_path: Path,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    listener = start_listener(notify_settings).wait_until_aligned()
    app = start_app(notify_settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        for gaps, source in enumerate(["wal", "notify"], start=1):
            with Updates(table) as updates, closing(table.connect()) as older:
                updates.go_on()
                older.execute("BEGIN")
                older.execute("INSERT INTO t VALUES (%s, %s, 0)", [100 + gaps, MATCH])
                with install_for(source, tmp_path, notify_settings) as installing:
                    updates.go_on()
                    assert installing.running, installing.log  # it waits for what may have been sent the old way
                    older.execute("COMMIT")
                    assert installing.exit_code(30) == 0, installing.log
                updates.go_on()
                assert listener.stop() == 0
                listener = start_listener(notify_settings | {"SOURCE": source}).wait_until_aligned()
                wait_until(lambda gaps=gaps: len(client.of_type("resync")) == gaps)  # type: ignore[misc]
                updates.go_on()
            wait_until(lambda: state(client) == versions(table), what=lambda: f"{state(client)}, {versions(table)}")
            assert len(client.of_type("resync")) == gaps


@pytest.mark.long
def test_install_for_the_other_source_names_transactions_that_stay_open(
    table: PostgresServer, notify_settings: dict[str, str], tmp_path: Path
) -> None:
    with closing(table.connect()) as older:
        older.execute("BEGIN")
        older.execute("SELECT notifymux.notify('match_change', '{}')")
        with install_for("wal", tmp_path, notify_settings) as installing:
            assert installing.exit_code(30) == 0
        pid = older.info.backend_pid
    assert f"may still send by SOURCE=notify (pid {pid}): restart the listeners when these have ended" in installing.log
