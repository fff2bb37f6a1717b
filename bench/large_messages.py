"""What messages of 1 MB cost with SOURCE=wal: how many a second reach a client on each worker, and the memory."""

import json
import time
from contextlib import closing

import psycopg

from bench.cpu import family, memory_bytes
from bench.environment import Environment
from bench.events import MATCH, serial_marker
from bench.report import Figure, Report
from bench.systems import MeasuredSystem, System, by_the_wal

BASE = "wal"
_BYTES = 1_000_000
_MESSAGES, _SHORT_MESSAGES = 500, 20  # more than the stream holds by its bound in bytes, and fewer
_AT_ONCE = 10  # messages until the clients have read them all; what they have read is held until then
_QUEUE_BYTES = 4 * _AT_ONCE * _BYTES  # with the default, a client that does not read at once is closed
_TIMEOUT_SECONDS = 20.0
_SEND = "SELECT pg_logical_emit_message(true, 'notifymux:match_change', %s)"


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Send messages, each in a transaction that waits for the disk, to a pod whose listener feeds the workers."""
    messages = _SHORT_MESSAGES if short else _MESSAGES
    with (
        by_the_wal(environment, settings={"CLIENT_QUEUE_BYTES": str(_QUEUE_BYTES)}) as system,
        MeasuredSystem.with_client_on_each_worker(system, environment) as measured,
        closing(psycopg.connect(system.place.database, autocommit=True)) as connection,
    ):
        before = _memory(system, environment)
        rate = messages / sum(_send(connection, measured, report) for _ in range(messages // _AT_ONCE))
        after = _memory(system, environment)
    figures = [Figure(f"{part}, before", "MiB (PSS)", size) for part, size in before.items()]
    figures += [Figure(f"{part}, after", "MiB (PSS)", size) for part, size in after.items()]
    report.run("large", f"{messages} messages of 1 MB", BASE, Figure("messages_per_s", "/s", rate), *figures)


def _send(connection: psycopg.Connection, measured: MeasuredSystem, report: Report) -> float:
    """Return the seconds until all clients have read the messages; what they have read is parsed afterwards."""
    emitter, clients = measured.emitter, measured.clients
    first, began = emitter.last + 1, time.monotonic()
    for serial in range(first, first + _AT_ONCE):
        connection.execute(_SEND, [_text(serial)])
    emitter.last += _AT_ONCE
    clients.read_until(emitter.last, _TIMEOUT_SECONDS)
    took = time.monotonic() - began
    if any([arrival.serial for arrival in each] != list(range(first, emitter.last + 1)) for each in clients.arrivals()):
        report.note(f"large: NOT every client received every message in order; closed: {clients.closed}")
    return took


def _text(serial: int) -> str:
    """A payload whose serial comes last, where the clients look for it."""
    return json.dumps({"match_id": int(MATCH), "text": "x" * _BYTES, "serial": serial_marker(serial).decode()})


def _memory(system: System, environment: Environment) -> dict[str, float]:
    """Return the memory of the listener, the workers with gunicorn's master, and Redis, if it is embedded."""
    parts = {**system.parts, **{name: pid for name, pid in environment.parts.items() if name == "redis"}}
    return {part: memory_bytes(family(pid)) / 2**20 for part, pid in parts.items()}
