"""What the status page says is wrong, from the registry's entries."""

from typing import Any

from app.core.heartbeat import RegistryEntry
from app.core.postgres_connect import LockWait
from app.monitoring import problems, process_list


def rows(**fields: str) -> list[dict[str, Any]]:
    hash_fields = {"pod": "a", "program": "listener", "uid": "1", "state": "running", "role": "primary", **fields}
    return process_list.listeners([RegistryEntry("key", hash_fields, 0.5)])


def test_a_listener_without_trouble_is_no_problem() -> None:
    assert problems.listeners(rows()) == []
    assert problems.listeners(rows(passive="", outage="", lock_waiters="0", lock_wait_seconds="0.000")) == []


def test_why_a_listener_is_away_or_passive_is_named() -> None:
    assert problems.listeners(rows(role="", outage="refused")) == [
        "listener a/listener is not connected to PostgreSQL: refused"
    ]
    assert problems.listeners(rows(role="")) == ["listener a/listener is not connected to PostgreSQL"]
    assert problems.listeners(rows(role="unaligned", passive="another cluster")) == [
        "listener a/listener is passive: another cluster"
    ]
    assert problems.listeners(rows(outage="it does not answer")) == ["listener a/listener: it does not answer"]


def test_a_stall_of_commits_is_named_once() -> None:
    stalled = rows(outage="3 sessions wait", lock_waiters="3", lock_wait_seconds="8.2")
    assert problems.listeners(stalled) == []
    [problem] = problems.notification_lock(problems.longest_lock_wait([*rows(), *stalled]))
    assert problem.startswith("3 sessions wait for the notification lock, the first for 8 s: ")
    assert problems.notification_lock(LockWait()) == []
    assert problems.longest_lock_wait([]) == LockWait()
