"""Rows of the status page from hashes in Redis, and what is wrong with them."""

import pytest

from app.monitoring import problems as diagnosis
from app.monitoring.process_list import ProcessRow, listeners, worker, workers
from app.monitoring.worker_registry import RegistryEntry

LISTENER = {"pod": "a", "program": "listener", "uid": "1", "started": "5.0", "state": "running", "role": "primary"}


def listener(age: float = 0.5, **fields: str) -> RegistryEntry:
    return RegistryEntry(LISTENER | fields, age)


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
def test_a_process_is_what_its_last_heartbeat_says(age: float, said: str, state: str) -> None:
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


def test_workers_that_are_gone_are_left_out() -> None:
    records = [
        RegistryEntry({"pod": "b", "pid": "2", "state": "running"}, 0.1),
        RegistryEntry({"pod": "a", "pid": "30", "state": "running"}, 4.0),
        RegistryEntry({"pod": "a", "pid": "4", "state": "running"}, 1.0),
        RegistryEntry({"pod": "a", "pid": "5", "state": "stopped"}, 0.1),
        RegistryEntry({"pod": "a", "pid": "6", "state": "running"}, 20.0),
    ]
    rows = [(row["pod"], row["pid"], row["state"]) for row in workers(records)]
    assert rows == [("a", 4, "alive"), ("a", 30, "late"), ("b", 2, "alive")]


def test_what_a_hash_does_not_say_or_says_wrongly_is_nothing() -> None:
    row = worker(RegistryEntry({"clients": "many", "p50_ms": "soon", "position": ""}, 0.0))
    assert (row["clients"], row["p50_ms"], row["p99_ms"], row["position"]) == (0, None, None, None)


def rows(*records: RegistryEntry) -> list[ProcessRow]:
    return listeners(records)


def test_nothing_is_wrong_with_a_primary_and_a_standby() -> None:
    assert diagnosis.of_listeners(rows(listener(), listener(uid="2", pod="b", role="standby"))) == []


def test_what_is_wrong_with_listeners_is_said_of_each() -> None:
    assert diagnosis.of_listeners([]) == ["no listener is alive"]
    assert diagnosis.of_listeners(rows(listener(9.0))) == ["no listener is alive", "listener a/listener is silent"]
    assert diagnosis.of_listeners(rows(listener(state="stopped"))) == ["no listener is alive"]
    assert diagnosis.of_listeners(
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


def test_a_queue_that_fills_is_said_in_time() -> None:
    assert diagnosis.of_queue(None) == diagnosis.of_queue(0.5) == []
    [line] = diagnosis.of_queue(0.61)
    assert "61% full" in line


def test_a_delay_is_more_than_what_is_on_its_way_anyway() -> None:
    calm = rows(listener(buffered="100"))
    assert diagnosis.of_delays(calm, 100, 0.0, behind=False) == []
    assert diagnosis.of_delays(calm, 600, 500.0, behind=False) == []
    assert diagnosis.of_delays(calm, 601, 500.0, behind=False) == ["catching up: this worker is 601 events behind"]
    assert diagnosis.of_delays(calm, 1, 500.0, behind=True) == ["catching up: this worker is 1 events behind"]
    assert diagnosis.of_delays(calm, 0, 500.0, behind=True) == []
    holding = rows(listener(buffered="5000"), listener(9.0, pod="b", buffered="6000"))
    assert diagnosis.of_delays(holding, 0, 500.0, behind=False) == [
        "catching up: listener a/listener holds 5000 events"
    ]


def test_how_far_a_worker_is_behind_can_be_said_within_an_epoch() -> None:
    assert diagnosis.lag("7-10", "7-35") == 25
    assert diagnosis.lag("7-35", "7-10") == 0
    assert diagnosis.lag("7-10", "8-35") == 0
    assert diagnosis.lag(None, "8-35") == diagnosis.lag("7-10", None) == 0
