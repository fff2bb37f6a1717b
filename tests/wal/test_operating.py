"""What operators do with SOURCE=wal, and what they are shown: settings, status, metrics, drop-slot."""

import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import RedisPlace, StartApp, StartListener
from tests.support.documents import DOCS
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.process import Process, environment
from tests.support.programs import App
from tests.support.waiting import wait_until

SLOT = "notifymux"
SEND = "SELECT pg_logical_emit_message(true, 'notifymux:match_change', %s)"
FILL = "SELECT pg_logical_emit_message(false, 'other', repeat('x', 1000000)) FROM generate_series(1, %s)"
_SAMPLE = re.compile(r"^(\w+)(?:{[^}]*})? ([-+.\deENa]+)$", re.MULTILINE)


def run(folder: Path, settings: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`python -m listener` with arguments, to its end."""
    command = [sys.executable, "-m", "listener", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(settings), capture_output=True, text=True, check=False, timeout=60
    )


def status(app: App) -> dict[str, Any]:
    code, body = app.get("/api/status")
    assert code == 200
    assert isinstance(body, dict)
    return body


def metrics(app: App) -> dict[str, float]:
    code, body = app.get("/metrics")
    assert code == 200
    return {name: float(value) for name, value in _SAMPLE.findall(body.decode())}


def documented(kind: str) -> set[str]:
    """The first column of the tables in docs/wal.md whose names begin so."""
    return set(re.findall(rf"^\| `({kind}\w+)` \|", (DOCS / "wal.md").read_text(encoding="utf-8"), re.MULTILINE))


def roles(app: App) -> dict[str, str]:
    return {row["pod"]: row["role"] for row in status(app)["listeners"] if row["state"] == "alive"}


# ---- settings


@pytest.mark.parametrize("program", ["listener", "app"])
def test_direct_mode_with_the_wal_is_refused_in_one_line(
    pod: dict[str, str], tmp_path: Path, start_app: StartApp, program: str
) -> None:
    wrong = pod | {"USE_REDIS_NOTIFIER": "false"}
    process = start_app(wrong) if program == "app" else Process([sys.executable, "-m", "listener"], tmp_path, wrong)
    with process:
        assert process.exit_code() == 2
        [line] = process.lines
        assert line.startswith("notifymux: SOURCE='wal' needs USE_REDIS_NOTIFIER=true")


def test_the_demo_with_the_wal_is_refused_in_one_line(tmp_path: Path) -> None:
    refused = run(tmp_path, {"SOURCE": "wal"})
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert "set DB_HOST and REDIS_URL" in line


@pytest.mark.parametrize(
    ("name", "value"), [("WAL_TRAIL", "0"), ("WAL_TRAIL", "nan"), ("WAL_SLOT", "Slot"), ("SOURCE", "outbox")]
)
def test_wrong_settings_are_refused(pod: dict[str, str], tmp_path: Path, name: str, value: str) -> None:
    refused = run(tmp_path, pod | {name: value})
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert line.startswith(f"notifymux: {name}='{value}': it takes ")


# ---- the status and the metrics


def test_the_reader_of_the_slot_and_what_it_keeps_are_shown(
    server: PostgresServer, pod: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    listener = start_listener(pod).wait_until_aligned()
    app = start_app(pod).wait_until_ready()
    wait_until(lambda: status(app)["slot"]["reader"])
    shown = status(app)["slot"]
    assert (shown["name"], shown["reader"], shown["wal_status"]) == (SLOT, "pod-a/listener", "reserved")
    assert shown["pid"] == server.value("SELECT active_pid FROM pg_replication_slots")
    assert shown["max_bytes"] == 64 * 2**20
    assert 0 <= shown["retained_bytes"] < 2**20
    confirmed = shown["confirmed"]
    wait_until(lambda: status(app)["slot"]["confirmed"] != confirmed)  # it moves by canaries alone
    wait_until(lambda: status(app)["problems"] == [], what=lambda: str(status(app)["problems"]))
    assert "max_slot_wal_keep_size" not in listener.log

    def measured() -> bool:
        found = metrics(app)
        return (
            found.get("notifymux_listener_slot_readers") == 1
            and 0 <= found["notifymux_listener_slot_retained_bytes"] < 2**20
            and 0 <= found["notifymux_listener_slot_unmoved_seconds"] < 10
            and found["notifymux_listener_slot_in_danger"] == 0
            and 0 <= found["notifymux_slot_silent_seconds"] < 10
        )

    wait_until(measured, what=lambda: str(metrics(app)))
    assert {name for name in metrics(app) if "_slot_" in name} == documented("notifymux_")


def test_a_listener_that_waits_for_the_slot_is_no_problem_and_takes_over(
    pod: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    first = start_listener(pod).wait_until_aligned()
    app = start_app(pod).wait_until_ready()
    second = start_listener(pod | {"POD_NAME": "pod-b"})
    wait_until(lambda: roles(app) == {"pod-a": "primary", "pod-b": "waiting"}, what=lambda: str(roles(app)))
    shown = status(app)
    assert (shown["problems"], shown["state"]) == ([], "healthy")
    [waiting] = [row for row in shown["listeners"] if row["role"] == "waiting"]
    assert "another listener reads the replication slot" in waiting["passive"]
    first.kill()
    second.wait_until_aligned()
    wait_until(lambda: (slot := status(app)["slot"]) and slot["reader"] == "pod-b/listener")


def test_a_slot_that_a_stranger_reads_is_a_problem_with_a_remedy(
    pod: dict[str, str], redis_place: RedisPlace, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(pod | {"REDIS_NAMESPACE": f"{redis_place.namespace}_other"}).wait_until_aligned()
    start_listener(pod | {"POD_NAME": "pod-b"})
    app = start_app(pod)
    wait_until(lambda: app.get("/healthz")[0] == 200)
    wait_until(lambda: roles(app) == {"pod-b": "waiting"}, what=lambda: str(roles(app)))
    wait_until(lambda: any("give each environment a WAL_SLOT of its own" in each for each in status(app)["problems"]))
    with closing(redis_place.client()) as client:
        for key in client.scan_iter(match=f"{{{redis_place.namespace}_other}}:*"):
            client.delete(key)


def test_a_role_that_may_not_replicate_is_told_the_remedy(
    server: PostgresServer, pod: dict[str, str], start_listener: StartListener
) -> None:
    server.execute("GRANT CREATE ON DATABASE postgres TO PUBLIC")
    listener = start_listener(pod | {"DB_USER": ROLE})
    listener.wait_for_log("give DB_USER the right: ALTER ROLE … REPLICATION")
    server.execute("ALTER ROLE plain REPLICATION")
    server.execute("REVOKE CREATE ON DATABASE postgres FROM PUBLIC")  # the publication is there by now
    listener.wait_until_aligned()


@pytest.mark.long
def test_without_a_reader_the_kept_wal_is_shown_and_the_alert_fires(
    server: PostgresServer, pod: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    listener = start_listener(pod).wait_until_aligned()
    app = start_app(pod).wait_until_ready()
    wait_until(lambda: status(app)["slot"]["reader"])
    assert firing(app) == set()
    listener.kill()
    wait_until(lambda: status(app)["slot"]["reader"] is None)
    shown = status(app)
    assert any("no listener reads the replication slot notifymux" in each for each in shown["problems"])
    assert shown["slot"]["retained_bytes"] is not None  # as of its last heartbeat
    wait_until(lambda: firing(app) == {"NotifymuxSlotUnread"}, 60, lambda: str(firing(app)))
    server.execute(FILL, 5)
    start_listener(pod).wait_until_aligned()
    wait_until(lambda: firing(app) == set())


def firing(app: App) -> set[str]:
    """The alerts about the slot whose expression is true, and maybe not for long enough yet."""
    rules = yaml.safe_load((DOCS / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    expressions = {rule["alert"]: rule["expr"].split() for rule in rules if rule["alert"].startswith("NotifymuxSlot")}
    assert set(expressions) == documented("Notifymux")
    there = metrics(app)
    found = set()
    for alert, (name, comparison, bound) in expressions.items():
        assert comparison == ">"
        if name in there and there[name] > float(bound):
            found.add(alert)
    return found


# ---- limits of the slot


def test_that_nothing_bounds_the_slot_is_said_once_at_the_start(
    server: PostgresServer, pod: dict[str, str], start_listener: StartListener
) -> None:
    server.set("max_slot_wal_keep_size", "-1")
    listener = start_listener(pod).wait_until_aligned()
    server.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots")
    listener.wait_until_aligned(2)
    [line] = [line for line in listener.lines if "max_slot_wal_keep_size is -1" in line]
    assert " WARNING " in line


def test_a_slot_that_postgresql_gave_up_is_made_anew_with_one_gap(
    server: PostgresServer, pod: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    listener = start_listener(pod).wait_until_aligned()
    app = start_app(pod).wait_until_ready()
    with app.client(7) as client:
        client.wait_for_initial_load()
        listener.kill()
        wait_until(lambda: server.value("SELECT active_pid IS NULL FROM pg_replication_slots"))
        server.set("max_slot_wal_keep_size", "4MB")
        for _ in range(10):
            server.execute(FILL, 1)
            server.execute("SELECT pg_switch_wal()")
        server.execute("CHECKPOINT")
        wait_until(lambda: server.value("SELECT wal_status FROM pg_replication_slots") == "lost")
        second = start_listener(pod).wait_until_aligned()
        second.wait_for_log("PostgreSQL has given up the replication slot notifymux")
        wait_until(lambda: len(client.of_type("resync")) == 1)
        server.execute(SEND, '{"match_id": 7, "operation": "INSERT", "data": 1}')
        client.wait_for_updates(1)
        assert len(client.of_type("resync")) == 1
    wait_until(lambda: status(app)["slot"]["wal_status"] == "reserved" and status(app)["problems"] == [])


# ---- drop-slot


def test_a_slot_is_dropped_when_nobody_reads_it_and_only_then(
    server: PostgresServer, pod: dict[str, str], start_listener: StartListener, tmp_path: Path
) -> None:
    listener = start_listener(pod).wait_until_aligned()
    refused = run(tmp_path, pod, "drop-slot")
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert re.match(rf"notifymux: somebody reads the replication slot {SLOT} \(pid \d+\); stop every listener", line)
    listener.kill()
    wait_until(lambda: server.value("SELECT active_pid IS NULL FROM pg_replication_slots"))
    notify = {name: value for name, value in pod.items() if name not in {"SOURCE", "WAL_SLOT"}}
    dropped = run(tmp_path, notify, "drop-slot")  # as after a migration back
    assert (dropped.returncode, dropped.stdout) == (0, f"notifymux: dropped the replication slot {SLOT}\n")
    left = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)"
    assert server.value(left) == 0
    again = run(tmp_path, pod, "drop-slot")
    assert (again.returncode, again.stdout) == (0, f"notifymux: there is no replication slot {SLOT}\n")


def test_a_publication_that_has_tables_is_not_dropped_with_the_slot(
    server: PostgresServer, pod: dict[str, str], tmp_path: Path
) -> None:
    server.execute("CREATE TABLE published (id int)")
    server.execute(f"CREATE PUBLICATION {SLOT} FOR TABLE published")
    server.execute(f"SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    assert run(tmp_path, pod, "drop-slot").returncode == 0
    assert server.value("SELECT count(*) FROM pg_replication_slots") == 0
    assert server.value("SELECT pubname FROM pg_publication") == SLOT


def test_the_slot_of_another_program_is_not_dropped(
    server: PostgresServer, pod: dict[str, str], tmp_path: Path
) -> None:
    server.execute("SELECT pg_create_logical_replication_slot('notifymux', 'test_decoding')")
    refused = run(tmp_path, pod, "drop-slot")
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert "is of another database or of another program" in line
    assert server.value("SELECT count(*) FROM pg_replication_slots") == 1
