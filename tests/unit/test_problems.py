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


def test_a_reserve_is_no_problem_unless_there_are_no_others() -> None:
    reserve = rows(pod="b", role="reserve")
    assert problems.listeners([*rows(), *reserve]) == []
    assert problems.listeners(reserve) == [
        "no listener holds a session of PostgreSQL: all that are alive are reserves",
    ]


SLOT = {
    "slot": "notifymux",
    "slot_pid": "12",
    "slot_wal_status": "reserved",
    "slot_retained_bytes": "1048576",
    "slot_max_bytes": "-1",
    "slot_confirmed": "0/1",
    "slot_confirmed_since": "5.0",
    "slot_at": "6.0",
}


def of_slot(*listeners: dict[str, str]) -> list[str]:
    """The problems of the slot, and of the listeners."""
    fields = [{"pod": "a", "program": "listener", "uid": "1", "state": "running", **each} for each in listeners]
    entries = [RegistryEntry(str(number), each, 0.5) for number, each in enumerate(fields)]
    found = process_list.listeners(entries)
    return problems.slot(process_list.slot("notifymux", entries), found) + problems.listeners(found)


def test_a_slot_that_one_listener_reads_and_another_waits_for_is_no_problem() -> None:
    waiting = {"pod": "b", "role": "waiting", "slot": "notifymux", "passive": "another listener reads the slot"}
    assert of_slot(SLOT | {"role": "primary"}) == []
    assert of_slot(waiting, SLOT | {"role": "primary"}) == []
    assert problems.slot(None, []) == []


def test_a_slot_that_nobody_reads_is_a_problem_with_a_remedy() -> None:
    [problem, gone] = of_slot(SLOT | {"role": "primary", "state": "stopped"})
    assert problem.startswith("no listener reads the replication slot notifymux, and PostgreSQL keeps WAL for it: ")
    assert gone == "no listener is alive"
    [problem] = of_slot(SLOT | {"role": "primary", "slot": "other"})
    assert problem.startswith("no listener reads")
    [problem] = of_slot(SLOT | {"role": "waiting", "passive": "another listener reads the replication slot (pid 9)"})
    assert problem.startswith("another listener reads the replication slot (pid 9), which is not in this namespace: ")


def test_a_slot_whose_reader_is_silent_is_nobody_elses() -> None:
    reader = RegistryEntry("a", {"pod": "a", "state": "running", "role": "primary", **SLOT}, 6.0)
    waiting = {
        "pod": "b",
        "state": "running",
        "role": "waiting",
        "slot": "notifymux",
        "passive": "another listener reads the replication slot",
    }
    entries = [reader, RegistryEntry("b", waiting, 0.5)]
    [problem] = problems.slot(process_list.slot("notifymux", entries), process_list.listeners(entries))
    assert problem.startswith("no listener reads the replication slot notifymux")


def test_wal_that_is_kept_is_a_problem_when_it_is_much_or_the_slot_is_in_danger() -> None:
    reading = SLOT | {"role": "primary"}
    [problem] = of_slot(reading | {"slot_retained_bytes": str(3 * 2**30)})
    assert problem.startswith("PostgreSQL keeps 3,072 MiB of WAL for the replication slot notifymux: bring Redis back")
    assert of_slot(reading | {"slot_retained_bytes": str(3 * 2**30), "slot_max_bytes": str(10 * 2**30)}) == []
    for status, text in {
        "extended": "keeps 1 MiB",
        "unreserved": "is about to give up",
        "lost": "has given up",
    }.items():
        [problem] = of_slot(reading | {"slot_wal_status": status})
        assert problem.startswith(f"PostgreSQL {text}")
