"""`verify` with real workers: its canary reaches every worker and no client."""

import os
import re
import signal
import sys
from pathlib import Path

import psycopg
import pytest

from app.appliance.demo.tables import create_tables
from app.core.config import DEFAULT_CHANNELS
from tests.conftest import StartApp, StartListener, Verify
from tests.support.documents import MIGRATION, block
from tests.support.process import ROOT, Process
from tests.support.programs import App
from tests.support.waiting import wait_until

SNAPSHOT = ROOT / "app/appliance/demo/snapshot.sql"  # its first line is a comment


@pytest.fixture
def named(settings: dict[str, str]) -> dict[str, str]:
    return settings | {"POD_NAME": "pod-1"}


def workers(app: App, count: int) -> dict[str, int]:
    """The process ids of an app's workers, by the names of their checks."""
    clients = app.client_of_each_worker(0, count)
    for client in clients.values():
        client.close()
    return {f"worker pod-1:{pid}": pid for pid in clients}


def test_the_canary_reaches_every_worker_and_no_client(
    named: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
) -> None:
    start_listener(named).wait_until_aligned()
    app = start_app(named, 2).wait_until_ready()
    both = workers(app, 2)
    with app.client(1) as client:
        client.wait_for_initial_load()
        verified = verify(named, "--send")
        assert (verified.code, verified.with_status("failed")) == (0, []), verified.log
        assert {name for name in verified.checks if name.startswith("worker ")} == set(both)
        assert all(re.fullmatch(r"heard (by the feed )?after \d+ ms", verified.text(name)) for name in both)
        assert {f"channel {channel}" for channel in DEFAULT_CHANNELS} < set(verified.with_status("ok"))
        connection.execute("NOTIFY match_change, '{\"match_id\": 1}'")
        assert len(client.wait_for_updates(1)) == 1
        assert not client.of_type("resync")


@pytest.mark.long
def test_a_worker_that_does_not_receive_the_canary_is_a_failed_check(
    named: dict[str, str], start_listener: StartListener, start_app: StartApp, verify: Verify
) -> None:
    start_listener(named).wait_until_aligned()
    frozen, running = sorted(both := workers(start_app(named, 2).wait_until_ready(), 2))
    os.kill(both[frozen], signal.SIGSTOP)
    try:
        verified = verify(named)
    finally:
        os.kill(both[frozen], signal.SIGCONT)
    assert (verified.code, verified.with_status("failed")) == (1, [frozen])
    assert "did not hear it" in verified.text(frozen)
    assert "supervisorctl restart app" in verified.remedy(frozen)
    assert running in verified.with_status("ok")


@pytest.mark.long
def test_in_redis_mode_no_worker_is_a_failed_check(
    named: dict[str, str], start_listener: StartListener, start_app: StartApp, verify: Verify
) -> None:
    start_listener(named).wait_until_aligned()
    app = start_app(named).wait_until_ready()
    assert app.stop() == 0
    verified = verify(named)
    assert (verified.code, verified.with_status("failed")) == (1, ["workers"])
    assert verified.text("workers") == "none is registered in Redis"
    assert "supervisorctl restart app" in verified.remedy("workers")


def alike(line: str) -> str:
    """A line without what differs each time: names, numbers and the spaces that align them."""
    line = re.sub(r"database \w+ as|web-1|pod-1|redis://\S+", "NAME", line)
    return " ".join(re.sub(r"\d[\w.]*", "0", line).split())


def test_the_migration_pages_table_is_what_verify_prints_of_the_demo(
    named: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
    tmp_path: Path,
) -> None:
    create_tables(connection)
    start_listener(named).wait_until_aligned()
    app = start_app(named, 4).wait_until_ready()
    wait_until(lambda: [row["fed"] for row in app.get("/api/status")[1]["workers"]] == [1] * 4, what="all four are fed")
    wait_until(lambda: [app.get("/readyz")[0] for _ in range(12)] == [200] * 12)
    wait_until(lambda: "primary" in verify(named).text("listeners"), what="a heartbeat since it aligned")
    # As the demo's programs have them: then no server is the operator's own.
    demo = tmp_path / "demo"
    (demo / ".run").mkdir(parents=True)
    given = named | {"SNAPSHOT_QUERY": " ".join(SNAPSHOT.read_text(encoding="utf-8").splitlines()[1:])}
    (demo / ".run/embedded.env").write_text("".join(f'{name}="{value}"\n' for name, value in given.items()))
    with Process([sys.executable, "-m", "listener", "verify"], demo, {}) as process:
        assert process.exit_code() == 0
    shown = block(MIGRATION, "", "✓ worker").splitlines()
    assert shown[-1] == process.lines[-1]
    said = iter([alike(line) for line in process.lines])
    for line in shown:
        assert line == "…" or alike(line) in said, f"{line!r} in order in\n{process.log}"
