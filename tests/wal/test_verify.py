"""`python -m listener verify` with SOURCE=wal."""

from collections.abc import Callable

import pytest

from tests.conftest import StartApp, StartListener, Verify
from tests.support.documents import DOCS
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.programs import Verification
from tests.support.waiting import wait_until

SENDS = """
CREATE FUNCTION score_sent() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_logical_emit_message(true, 'notifymux:match_change', json_build_object('match_id', NEW.match_id)::text);
    RETURN NULL;
END $$;
DROP TRIGGER score_changed ON score;
CREATE TRIGGER score_sent AFTER INSERT ON score FOR EACH ROW EXECUTE FUNCTION score_sent();
"""


def test_where_everything_works_nothing_fails_and_every_check_is_documented(
    server: PostgresServer,
    pod: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
) -> None:
    server.execute(SENDS)
    pod["NOTIFY_CHANNELS"] = "match_change"
    start_listener(pod).wait_until_aligned()
    app = start_app(pod).wait_until_ready()
    verified = verify(pod)
    assert (verified.code, verified.with_status("failed")) == (0, []), verified.log
    assert verified.with_status("warning") == ["tokens"], verified.log
    assert not {"LISTEN sessions", "notification queue", "notification lock"} & set(verified.checks)
    pid = server.value("SELECT active_pid FROM pg_replication_slots")
    assert verified.text("slot reader") == f"pid {pid} (notifymux-listener/pod-a)"
    assert verified.text("triggers match_change") == "on public.score"
    assert verified.text("channel match_change") == "the listener reads it out of the WAL; not tried without --send"
    assert any(name.startswith("worker pod-a:") for name in verified.checks), verified.log
    documented = (DOCS / "wal.md").read_text(encoding="utf-8")
    operations = (DOCS / "operations.md").read_text(encoding="utf-8")
    for name in verified.checks:
        row = f"| {name.split(' ')[0] if name.startswith(('worker', 'triggers', 'channel')) else name}"
        assert row in documented or row in operations, name
    sent = verify(pod, "--send")
    assert sent.text("channel match_change").startswith("in the stream as ")
    app.end()


@pytest.mark.long
def test_a_second_listener_that_waits_is_no_failure(
    pod: dict[str, str], start_listener: StartListener, verify: Verify
) -> None:
    start_listener(pod).wait_until_aligned()
    second = start_listener(pod | {"POD_NAME": "pod-b"})
    second.wait_for_log("another listener reads the replication slot")

    def seen() -> Verification | None:
        verified = verify(pod)
        return verified if "waiting" in verified.text("listeners") else None

    verified = wait_until(seen)
    assert verified
    assert verified.checks["listeners"]["status"] == "ok"


def lacks_level(server: PostgresServer) -> None:
    server.stop()
    server.start(wal_level="replica")


def lacks_right(server: PostgresServer) -> None:
    server.execute("ALTER ROLE plain NOREPLICATION")


def has_no_slot(_server: PostgresServer) -> None:
    """The server is as it is."""


def has_a_strangers_slot(server: PostgresServer) -> None:
    server.execute("SELECT pg_create_logical_replication_slot('notifymux', 'test_decoding')")


def has_a_slot(server: PostgresServer) -> None:
    server.execute("SELECT pg_create_logical_replication_slot('notifymux', 'pgoutput')")


def has_no_senders(server: PostgresServer) -> None:
    server.stop()
    server.start(max_wal_senders="0")


FAULTS: dict[str, tuple[Callable[[PostgresServer], None], str, str, str]] = {
    "wal_level": (lacks_level, "wal_level", "replica", "ALTER SYSTEM SET wal_level = 'logical'"),
    "right": (lacks_right, "replication right", "forbids it", "ALTER ROLE … REPLICATION"),
    "senders": (has_no_senders, "replication right", "max_wal_senders", "raise max_replication_slots or"),
    "missing": (has_no_slot, "replication slot", "there is no notifymux", "supervisorctl status listener"),
    "foreign": (has_a_strangers_slot, "replication slot", "test_decoding", "set WAL_SLOT to another name"),
    "unread": (has_a_slot, "slot reader", "nobody reads it", "supervisorctl status listener"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_a_failed_check_with_a_remedy(
    server: PostgresServer, pod: dict[str, str], verify: Verify, fault: str
) -> None:
    break_it, check, text, remedy = FAULTS[fault]
    server.execute("ALTER ROLE plain REPLICATION")
    break_it(server)
    verified = verify(pod | {"USE_REDIS_NOTIFIER": "true", "DB_USER": ROLE})
    assert verified.code == 1
    assert check in verified.with_status("failed"), verified.log
    assert text in verified.text(check)
    assert remedy in verified.remedy(check)


def test_wal_without_bounds_and_triggers_that_notify_are_warnings(
    server: PostgresServer, pod: dict[str, str], start_listener: StartListener, verify: Verify
) -> None:
    server.set("max_slot_wal_keep_size", "-1")
    start_listener(pod).wait_until_aligned()
    verified = verify(pod)
    assert "until its disk is full" in verified.text("slot limit")
    assert "max_slot_wal_keep_size = '10GB'" in verified.remedy("slot limit")
    assert verified.text("triggers match_change") == "on public.score, by pg_notify(), which SOURCE=wal does not hear"
    assert {"slot limit", "triggers match_change"} <= set(verified.with_status("warning"))
