"""Rows of the status page from entries of the registry, and the problems that they show."""

from collections import Counter

import pytest

from app.core.heartbeat import RegistryEntry
from app.monitoring import problems
from app.monitoring.process_list import ProcessRow, listeners, workers
from app.monitoring.worker_report import QueryCounts, RightsCounts, WorkerReport
from app.sources.base import SourceStatus
from notifymux.event import EventId
from notifymux.sequence_tracker import GapReason

LISTENER = {"pod": "a", "program": "listener", "uid": "1", "started": "5.0", "state": "running", "role": "primary"}


def listener(age: float = 0.5, **fields: str) -> RegistryEntry:
    return RegistryEntry("", LISTENER | fields, age)


def worker(age: float = 0.5, **fields: str) -> RegistryEntry:
    return RegistryEntry("", {"state": "running"} | fields, age)


@pytest.mark.parametrize(
    ("age", "said", "state"),
    [
        (0.0, "running", "alive"),
        (3.5, "running", "alive"),
        (3.6, "running", "late"),
        (5.1, "running", "dead"),
        (0.1, "stopped", "stopped"),
        (59.0, "stopped", "stopped"),
    ],
)
def test_a_process_state_follows_from_its_last_heartbeat(age: float, said: str, state: str) -> None:
    [row] = listeners([listener(age, state=said)])
    assert (row["state"], row["beat_age"]) == (state, age)


def test_a_listener_that_was_replaced_is_left_out_and_one_that_is_alive_never_is() -> None:
    dead, later = listener(30.0, uid="dead"), listener(uid="later", started="6.0")
    assert [row["uid"] for row in listeners([later, dead])] == ["later"]
    assert [row["uid"] for row in listeners([dead])] == ["dead"]
    other_pod = listener(30.0, uid="other", pod="b")
    assert [row["uid"] for row in listeners([later, other_pod])] == ["later", "other"]
    twin = listener(uid="twin")
    assert [row["uid"] for row in listeners([later, twin])] == ["twin", "later"]


def test_workers_that_stopped_or_died_are_left_out() -> None:
    entries = [
        worker(0.1, pod="b", pid="2"),
        worker(4.0, pod="a", pid="30"),
        worker(1.0, pod="a", pid="4"),
        worker(0.1, pod="a", pid="5", state="stopped"),
        worker(20.0, pod="a", pid="6"),
    ]
    rows = [(row["pod"], row["pid"], row["state"]) for row in workers(entries)]
    assert rows == [("a", 4, "alive"), ("a", 30, "late"), ("b", 2, "alive")]


def test_fields_that_are_missing_or_malformed_are_zero_or_none() -> None:
    [row] = workers([worker(clients="many", p50_ms="soon", position="")])
    assert (row["clients"], row["p50_ms"], row["p99_ms"], row["position"]) == (0, None, None, None)


def test_a_worker_reads_its_own_row_as_others_read_it_from_the_registry() -> None:
    report = WorkerReport(
        mode="redis",
        source=SourceStatus(True, None, 1, EventId(7, 41), suppressed=2),
        clients=3,
        events=40,
        gaps=Counter({GapReason.EPOCH: 1, GapReason.STREAM_LOST: 4}),
        slow_closes=5,
        recovered=6,
        restarted=7,
        snapshots=8,
        failed_snapshots=9,
        waiting_snapshots=11,
        oldest_snapshot_wait=0.5,
        queries=QueryCounts(),
        rights=RightsCounts(),
        queue_bytes=10,
        p50=0.0011,
        p99=None,
        verified=None,
    )
    fields = {name: str(value) for name, value in report.hash_fields().items()}
    [row] = workers([RegistryEntry("", fields, 0.5)])
    assert report.row() == {name: row[name] for name in report.row()}
    assert set(row) - set(report.row()) == {"pod", "pid", "uid", "state", "started", "beat_age"}
    assert (row["position"], row["gaps"], row["p50_ms"], row["p99_ms"]) == ("7-41", 5, 1.1, None)


def rows(*entries: RegistryEntry) -> list[ProcessRow]:
    return listeners(entries)


def test_a_primary_and_a_standby_are_no_problem() -> None:
    assert problems.listeners(rows(listener(), listener(uid="2", pod="b", role="standby"))) == []


def test_each_listener_with_a_problem_is_named() -> None:
    assert problems.listeners([]) == ["no listener is alive"]
    assert problems.listeners(rows(listener(9.0))) == ["no listener is alive", "listener a/listener is silent"]
    assert problems.listeners(rows(listener(state="stopped"))) == ["no listener is alive"]
    assert problems.listeners(
        rows(
            listener(9.0),
            listener(pod="b"),
            listener(pod="c", role="unconnected"),
            listener(pod="d", role="unaligned"),
            listener(pod="e", state="stopped"),
        )
    ) == [
        "listener a/listener is silent",
        "listener c/listener is not connected to PostgreSQL",
        "listener d/listener is looking for its place in the count",
    ]


def test_a_queue_that_is_more_than_half_full_is_a_problem() -> None:
    assert problems.queue(None) == problems.queue(0.5) == []
    [line] = problems.queue(0.61)
    assert "61% full" in line


def test_only_a_lag_above_the_tolerance_is_a_problem() -> None:
    calm = rows(listener(buffered="100"))
    assert problems.lag(calm, 100, 0.0, is_behind=False) == []
    assert problems.lag(calm, 600, 500.0, is_behind=False) == []
    assert problems.lag(calm, 601, 500.0, is_behind=False) == ["catching up: this worker is 601 events behind"]
    assert problems.lag(calm, 1, 500.0, is_behind=True) == ["catching up: this worker is 1 events behind"]
    assert problems.lag(calm, 0, 500.0, is_behind=True) == []
    holding = rows(listener(buffered="5000"), listener(9.0, pod="b", buffered="6000"))
    assert problems.lag(holding, 0, 500.0, is_behind=False) == ["catching up: listener a/listener holds 5000 events"]


def test_how_far_a_worker_is_behind_is_known_within_an_epoch() -> None:
    behind = problems.events_behind
    assert behind(EventId(7, 10), EventId(7, 35)) == 25
    assert behind(EventId(7, 35), EventId(7, 10)) == 0
    assert behind(EventId(7, 10), EventId(8, 35)) == 0
    assert behind(None, EventId(8, 35)) == behind(EventId(7, 10), None) == 0
