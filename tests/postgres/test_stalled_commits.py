"""Commits that wait for a synchronous standby: sessions that notify after them wait too, and nothing is lost."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartApp, StartListener
from tests.postgres.observed import MATCH, Start, heard, listened_to, run
from tests.support.postgres_cluster import IN_SYNC_REP, ROLE, PostgresServer
from tests.support.process import ROOT, Process
from tests.support.programs import App, Client, Listener
from tests.support.proxy import Proxy
from tests.support.waiting import hold_for, wait_until

pytestmark = pytest.mark.long

WRITERS = 3
# Longer than two of the timeouts after which a session that does not hear itself is given up.
STALL_SECONDS = 8.0

LOCK_WAITERS = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'object' AND database = 0 AND classid = 'pg_database'::regclass AND NOT granted
"""
OWN_TIMEOUTS = ("statement_timeout", "lock_timeout", "transaction_timeout", "idle_session_timeout")


class StalledCommits:
    """Three commits that notify: the first waits for a standby that is away, the others for the first."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._threads = [threading.Thread(target=self._commit, args=[n], daemon=True) for n in range(1, WRITERS + 1)]
        self.committed: list[int] = []

    def begin(self) -> None:
        """All three wait when this returns."""
        self._server.stall_commits()
        first, *others = self._threads
        first.start()
        wait_until(lambda: self._server.value(IN_SYNC_REP))
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
        with closing(self._server.connect()) as connection:
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
    assert sorted(heard(client)) == [1, 2, 3]
    assert not client.of_type("resync"), log
    assert "pooler" not in log


# Nothing is lost.


@pytest.mark.parametrize("listeners", [1, 2])
def test_a_stall_of_commits_loses_nothing_and_announces_nothing(
    primary: PostgresServer,
    settings: dict[str, str],
    stall: StalledCommits,
    start_listener: StartListener,
    start_app: StartApp,
    listeners: int,
) -> None:
    running = [start_listener(settings | {"POD_NAME": f"pod-{n}"}).wait_until_aligned() for n in range(listeners)]
    app = start_app(settings).wait_until_ready()
    sessions = primary.listening()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        stall.begin()
        hold_for(STALL_SECONDS, lambda: all(listener.running for listener in running))
        stall.end()
        hears_all_three_and_no_resync(client, stall, *running)
    assert primary.listening() == sessions  # a session that only waits is kept


def test_a_stall_of_commits_loses_nothing_where_workers_listen_themselves(
    settings: dict[str, str], stall: StalledCommits, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        stall.begin()
        hold_for(STALL_SECONDS, lambda: app.running)
        stall.end()
        hears_all_three_and_no_resync(client, stall, app)


def test_timeouts_set_for_the_role_end_no_session_that_waits(
    primary: PostgresServer,
    settings: dict[str, str],
    stall: StalledCommits,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    known = {name for (name,) in primary.execute("SELECT name FROM pg_settings WHERE name = ANY(%s)", [*OWN_TIMEOUTS])}
    for name in known:
        run(primary, f"ALTER ROLE {ROLE} SET {name} = '1s'")
    listener, app = start_listener(settings).wait_until_aligned(), start_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        stall.begin()
        hold_for(3, lambda: listener.running)
        stall.end()
        hears_all_three_and_no_resync(client, stall, listener)


OPAQUE = {
    "there is no second connection": f"ALTER ROLE {ROLE} CONNECTION LIMIT 1",
    "activities are not tracked": f"ALTER ROLE {ROLE} SET track_activities = off",
}


@pytest.mark.parametrize("why", OPAQUE)
def test_a_session_that_waits_is_kept_where_its_state_cannot_be_seen(
    primary: PostgresServer,
    settings: dict[str, str],
    stall: StalledCommits,
    start_listener: StartListener,
    start_app: StartApp,
    why: str,
) -> None:
    run(primary, OPAQUE[why])
    listener, app = start_listener(settings).wait_until_aligned(), start_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        stall.begin()
        hold_for(STALL_SECONDS, lambda: listener.running)
        stall.end()
        hears_all_three_and_no_resync(client, stall, listener)


@pytest.mark.parametrize("mode", ["redis", "postgres"])
def test_a_cancelled_canary_ends_no_session(
    primary: PostgresServer,
    settings: dict[str, str],
    stall: StalledCommits,
    start_listener: StartListener,
    start_app: StartApp,
    mode: str,
) -> None:
    listeners = [start_listener(settings).wait_until_aligned()] if mode == "redis" else []
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "true" if listeners else "false"}).wait_until_ready()
    sessions = primary.listening()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        stall.begin()
        wait_until(lambda: primary.value(LOCK_WAITERS) == WRITERS)  # the canary too
        for session in sessions:
            assert primary.value("SELECT pg_cancel_backend(%s)", session)
        # Its next canary comes a second later, and waits for the lock again.
        [*listeners, app][0].wait_for_log("a canary failed")
        stall.end()
        hears_all_three_and_no_resync(client, stall, app, *listeners)
    assert primary.listening() == sessions


def test_a_program_that_starts_while_commits_stall_waits_in_one_session_and_logs_why(
    primary: PostgresServer, settings: dict[str, str], stall: StalledCommits, start: Start
) -> None:
    stall.begin()
    program = start(settings)
    listened_to(primary, program)
    sessions = primary.listening()
    hold_for(STALL_SECONDS, lambda: program.running and primary.listening() == sessions, program.log)
    program.wait_for_log("notification lock", 1)
    assert "pooler" not in program.log
    stall.end()
    wait_until(lambda: " connected to " in program.log, 5, lambda: program.log)
    assert primary.listening() == sessions


# A lost session is still noticed.


def test_a_session_whose_path_is_cut_while_commits_stall_is_replaced_once_they_go_on(
    primary: PostgresServer, address: Proxy, settings: dict[str, str], stall: StalledCommits, start: Start
) -> None:
    program = start(settings)
    listened_to(primary, program)
    wait_until(lambda: " connected to " in program.log)
    [session] = primary.listening()
    stall.begin()
    # The canary of the session waits too, so whoever asks is told that the session is at work.
    wait_until(lambda: primary.value(LOCK_WAITERS) >= WRITERS)
    address.stall_established()
    hold_for(5, lambda: program.running)
    stall.end()
    wait_until(lambda: primary.listening().keys() - {session}, 10, lambda: program.log)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_program_that_ends_while_commits_stall_leaves_no_session_behind(
    primary: PostgresServer, settings: dict[str, str], stall: StalledCommits, start: Start, how: str
) -> None:
    program = start(settings)
    listened_to(primary, program)
    wait_until(lambda: " connected to " in program.log)
    stall.begin()
    wait_until(lambda: primary.value(LOCK_WAITERS) == WRITERS)  # its canary too
    if how == "stop":
        program.stop()
    else:
        program.kill()
    # A server that does not look at its client's connection keeps the session until the stall is over.
    wait_until(lambda: not primary.listening(), 4, lambda: str(primary.listening()))


# The page, verify and the metrics.


def test_page_verify_and_metrics_show_how_many_sessions_wait_for_the_notification_lock_and_for_how_long(
    primary: PostgresServer,
    settings: dict[str, str],
    stall: StalledCommits,
    start_listener: StartListener,
    start_app: StartApp,
    tmp_path: Path,
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    stall.begin()
    wait_until(lambda: waiters(app), 10, lambda: str(app.get("/api/status")[1]["problems"]))
    wait_until(lambda: metric(app, "notifymux_postgres_lock_waiters") >= 2, 5)
    wait_until(lambda: metric(app, "notifymux_postgres_lock_wait_seconds") > 1, 5)
    checks = verified(settings, tmp_path)
    assert checks["notification lock"]["status"] != "ok"
    assert re.search(r"\d+ sessions wait .* for \d+ s", checks["notification lock"]["text"]), checks
    assert "standby" in checks["notification lock"]["remedy"]
    stall.end()
    wait_until(lambda: not waiters(app), 10)
    assert verified(settings, tmp_path)["notification lock"]["status"] == "ok"
    assert "notifymux_postgres_lock_wait_seconds" in (ROOT / "docs/alerts.yaml").read_text(encoding="utf-8")


def test_the_page_shows_the_sessions_that_wait_where_workers_listen_themselves(
    settings: dict[str, str], stall: StalledCommits, start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    stall.begin()
    wait_until(lambda: waiters(app), 10, lambda: str(app.get("/api/status")[1]["problems"]))
    stall.end()
    wait_until(lambda: not waiters(app), 10)


def waiters(app: App) -> bool:
    """Whether the page shows that sessions wait, and for how long."""
    problems = app.get("/api/status")[1]["problems"]
    return any(re.search(r"\d+ sessions wait for the notification lock.* for \d+ s", text) for text in problems)


def metric(app: App, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", app.get("/metrics")[1].decode(), re.MULTILINE)
    return float(found[1]) if found else -1.0


def verified(settings: dict[str, str], folder: Path) -> dict[str, Any]:
    """The checks of `verify`, which must not hang itself."""
    with Process([sys.executable, "-m", "listener", "verify", "--json"], folder, settings) as process:
        process.exit_code(20)
        return {check["check"]: check for check in json.loads(process.log)["checks"]}
