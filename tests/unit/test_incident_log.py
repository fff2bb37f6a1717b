"""Incidents on their way into the incident log and out of it."""

import time

from app.core.incident_log import Incidents, Kind, LogEntry, log_entry, parse_log


def entry(**fields: str) -> tuple[bytes, dict[bytes, bytes]]:
    return b"1-1", {name.encode(): value.encode() for name, value in fields.items()}


def test_incidents_are_drained_in_order_and_requeued_before_newer_ones() -> None:
    incidents = Incidents()
    incidents.add(Kind.START, "a", 1.0)
    incidents.add(Kind.GAP, "b", 2.0)
    drained = incidents.drain()
    assert not list(incidents)
    incidents.add(Kind.GAP, "c", 3.0)
    incidents.requeue(drained)
    assert [incident.text for incident in incidents] == ["a", "b", "c"]


def test_of_too_many_incidents_the_newest_are_kept() -> None:
    incidents = Incidents()
    for number in range(150):
        incidents.add(Kind.GAP, str(number), float(number))
    drained = incidents.drain()
    assert [incident.text for incident in drained] == [str(number) for number in range(50, 150)]
    incidents.add(Kind.GAP, "newest", 151.0)
    incidents.requeue(drained)
    assert [incident.text for incident in incidents] == [*(str(number) for number in range(51, 150)), "newest"]


def test_an_incident_keeps_its_time_however_late_it_is_written() -> None:
    incidents = Incidents()
    incidents.add(Kind.OVERFLOW, "full", time.monotonic() - 100)
    [incident] = incidents
    written = log_entry(incident, "a/listener")
    assert abs(time.time() - 100 - written.at) < 5
    assert written[1:] == ("overflow", "a/listener", "full")


def test_entries_are_parsed_and_malformed_and_repeated_ones_are_left_out() -> None:
    fields = {"at": "12.5", "kind": "gap", "who": "a/worker 1", "text": "the stream was lost"}
    entries = [
        entry(**fields),
        entry(**fields),  # written twice, because an answer was lost
        entry(**(fields | {"at": "13"})),
        entry(**(fields | {"at": "noon"})),
        entry(at="14"),
        (b"1-1", {b"at": b"15", b"kind": b"gap", b"who": b"\xff", b"text": b"x"}),
    ]
    assert parse_log(entries) == [
        LogEntry(12.5, "gap", "a/worker 1", "the stream was lost"),
        LogEntry(13.0, "gap", "a/worker 1", "the stream was lost"),
        LogEntry(15.0, "gap", "\N{REPLACEMENT CHARACTER}", "x"),
    ]
