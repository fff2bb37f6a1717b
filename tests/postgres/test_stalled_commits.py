"""Commits that wait for a synchronous standby: whoever notifies after them waits too, and loses nothing."""

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from tests.conftest import StartApp, StartListener
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.programs import App, Client, Listener
from tests.support.waiting import hold_for, wait_until

MATCH = 7
WRITERS = 3
# Longer than two of the timeouts after which a session that does not hear itself is given up.
STALL_SECONDS = 8.0

LOCK_WAITERS = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'object' AND database = 0 AND classid = 'pg_database'::regclass AND NOT granted
"""


class StalledCommits:
    """Three commits that notify: the first waits for a standby that is away, the others for the first."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._threads = [threading.Thread(target=self._commit, args=[n], daemon=True) for n in range(1, WRITERS + 1)]
        self.committed: list[int] = []

    def begin(self) -> None:
        """All three wait when this returns."""
        self._server.set("synchronous_standby_names", "nobody")
        first, *others = self._threads
        first.start()
        wait_until(lambda: self._server.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
        for thread in others:
            thread.start()
        wait_until(lambda: self._server.value(LOCK_WAITERS) >= len(others))

    def end(self) -> None:
        """All three have committed when this returns."""
        self._server.set("synchronous_standby_names", "")
        for thread in self._threads:
            if thread.ident:
                thread.join(20)
                assert not thread.is_alive()

    def _commit(self, number: int) -> None:
        with closing(psycopg.connect(self._server.conninfo(), autocommit=True)) as connection:
            connection.execute(f"SET synchronous_commit = {'on' if number == 1 else 'off'}".encode())
            connection.execute("INSERT INTO score VALUES (%s, %s)", [number, MATCH])
            self.committed.append(number)


@pytest.fixture
def stall(primary: PostgresServer) -> Iterator[StalledCommits]:
    primary.execute(f"ALTER ROLE {ROLE} SET synchronous_commit = off")
    commits = StalledCommits(primary)
    yield commits
    commits.end()


def hears_all_three_and_no_resync(client: Client, stall: StalledCommits, *programs: App | Listener) -> None:
    assert sorted(stall.committed) == [1, 2, 3]
    log = "\n".join(program.log for program in programs)
    wait_until(lambda: len(client.updates) == WRITERS, 10, lambda: f"{len(client.updates)} of 3 events came:\n{log}")
    assert sorted(update["data"] for update in client.updates) == [1, 2, 3]
    assert not client.of("resync"), log
    assert "pooler" not in log


@pytest.mark.parametrize("listeners", [1, 2])
def test_a_stall_of_commits_loses_nothing_and_announces_nothing(
    primary: PostgresServer,
    settings: dict[str, str],
    stall: StalledCommits,
    start_listener: StartListener,
    start_app: StartApp,
    listeners: int,
) -> None:
    running = [start_listener(settings | {"POD_NAME": f"pod-{n}"}).aligned() for n in range(listeners)]
    app = start_app(settings).ready()
    sessions = primary.listening()
    with app.client(MATCH) as client:
        client.loaded()
        stall.begin()
        hold_for(STALL_SECONDS, lambda: all(listener.running for listener in running))
        stall.end()
        hears_all_three_and_no_resync(client, stall, *running)
    assert primary.listening() == sessions  # a session that only waits is kept


def test_a_stall_of_commits_loses_nothing_where_workers_listen_themselves(
    settings: dict[str, str], stall: StalledCommits, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).ready()
    with app.client(MATCH) as client:
        client.loaded()
        stall.begin()
        hold_for(STALL_SECONDS, lambda: app.running)
        stall.end()
        hears_all_three_and_no_resync(client, stall, app)
