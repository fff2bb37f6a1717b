"""What happened, on its way into the ledger and out of it."""

import time

from app.core.incident_log import Incidents, Kind, LogEntry, line, parse


def entry(**fields: str) -> tuple[bytes, dict[bytes, bytes]]:
    return b"1-1", {name.encode(): value.encode() for name, value in fields.items()}


def test_incidents_are_taken_in_order_and_put_back_before_newer_ones() -> None:
    incidents = Incidents()
    incidents.note(Kind.START, "a", 1.0)
    incidents.note(Kind.GAP, "b", 2.0)
    taken = incidents.take()
    assert not list(incidents)
    incidents.note(Kind.GAP, "c", 3.0)
    incidents.put_back(taken)
    assert [incident.text for incident in incidents] == ["a", "b", "c"]


def test_of_too_many_incidents_the_newest_wait() -> None:
    incidents = Incidents()
    for number in range(150):
        incidents.note(Kind.GAP, str(number), float(number))
    taken = incidents.take()
    assert [incident.text for incident in taken] == [str(number) for number in range(50, 150)]
    incidents.note(Kind.GAP, "newest", 151.0)
    incidents.put_back(taken)
    assert [incident.text for incident in incidents] == [*(str(number) for number in range(51, 150)), "newest"]


def test_an_incident_keeps_its_time_however_late_it_is_written() -> None:
    incidents = Incidents()
    incidents.note(Kind.OVERFLOW, "full", time.monotonic() - 100)
    [incident] = incidents
    written = line(incident, "a/listener")
    assert abs(time.time() - 100 - written.at) < 5
    assert written[1:] == ("overflow", "a/listener", "full")


def test_lines_are_read_back_and_what_is_none_is_left_out() -> None:
    fields = {"at": "12.5", "kind": "gap", "who": "a/worker 1", "text": "the stream was lost"}
    entries = [
        entry(**fields),
        entry(**fields),  # written twice, over a lost answer
        entry(**(fields | {"at": "13"})),
        entry(**(fields | {"at": "noon"})),
        entry(at="14"),
        (b"1-1", {b"at": b"15", b"kind": b"gap", b"who": b"\xff", b"text": b"x"}),
    ]
    assert parse(entries) == [
        LogEntry(12.5, "gap", "a/worker 1", "the stream was lost"),
        LogEntry(13.0, "gap", "a/worker 1", "the stream was lost"),
        LogEntry(15.0, "gap", "\N{REPLACEMENT CHARACTER}", "x"),
    ]
