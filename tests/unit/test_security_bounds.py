"""SECURITY.md and the code agree on every bound that it names."""

import re
from inspect import signature

import uvicorn
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS

from app.broadcast import missed_events, snapshot_cache
from app.core import log_throttle
from app.core.config import Settings
from app.web import (
    admin_routes,
    gunicorn_worker,
    open_files,
    socket_writes,
    subscription_requests,
    uvicorn_protocols,
)
from tests.support.documents import OPERATIONS, section
from tests.support.process import ROOT

KIB = 1024
HEAD = f"{uvicorn_protocols._HEAD_TIMEOUT_SECONDS:g} s, {uvicorn_protocols._MAX_HEAD_BYTES // KIB} KiB"
PING_SECONDS = signature(uvicorn.Config).parameters["ws_ping_interval"].default
FRAMES = f"{uvicorn_protocols._MAX_FRAMES_PER_PING:,} in {PING_SECONDS:g} s"
QUERIES = f"{snapshot_cache._MAX_QUERIES} in {snapshot_cache._PERIOD_SECONDS:g} s"
UNACKNOWLEDGED = f"{socket_writes._TCP_USER_TIMEOUT_MS / 1000:g} s"

BOUNDS = {
    "clients": "`MAX_CLIENTS`, `MAX_CLIENTS_PER_ADDRESS`",
    "a request's head": HEAD,
    "a WebSocket's head": f"{MAX_NUM_HEADERS} lines of {MAX_LINE_LENGTH // KIB} KiB",
    "a client's message": f"{gunicorn_worker.MAX_MESSAGE_BYTES // KIB} KiB",
    "a client's frames": FRAMES,
    "a connection without a request": f"{gunicorn_worker.KEEP_ALIVE_SECONDS} s",
    "connections that serve no client, half-open ones included": (
        f"{open_files.MAX_OTHERS:,}, and what open files leave, at least {open_files.MIN_OTHERS}"
    ),
    "a client that acknowledges nothing": UNACKNOWLEDGED,
    "what waits for a client": "`CLIENT_QUEUE_BYTES`",
    "snapshot queries at once": "`SNAPSHOT_POOL`",
    "queries for clients' rights at once": "`SNAPSHOT_POOL`",
    "snapshot queries of one match": QUERIES,
    "a `last_event_id` from the future": f"{missed_events.CATCH_UP_SECONDS:g} s",
    "matches of one connection": f"{subscription_requests.MAX_SUBSCRIPTIONS}",
    "requests of one connection": (
        f"{subscription_requests.MAX_SUBSCRIPTIONS} at once, "
        f"then {subscription_requests.REQUESTS_PER_SECOND:g} a second"
    ),
    "updates that wait for another match's query, for one connection": "`CLIENT_QUEUE_BYTES`",
    "clients that watch the status": f"{admin_routes._MAX_STREAMS}",
    "lines of the log about one cause": f"1 in {log_throttle.SECONDS:g} s, {log_throttle.MAX_CHARACTERS} characters",
}


def table(text: str) -> dict[str, str]:
    """Return the second cell of each row by the first."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {row[0]: row[1] for row in rows[1:]}


def test_security_names_every_bound_as_it_is_in_the_code() -> None:
    assert table(section(ROOT / "SECURITY.md", "Bounds")) == BOUNDS


def test_every_setting_that_security_names_as_a_bound_exists() -> None:
    names = re.findall(r"`([A-Z_]+)`", " ".join(BOUNDS.values()))
    assert all(hasattr(Settings(), name.lower()) for name in names)


def test_the_operators_table_names_the_same_bounds() -> None:
    bounds = section(OPERATIONS, "Bounds")
    frames = FRAMES.replace(" in ", " frames in ")
    for bound in (
        HEAD,
        frames,
        QUERIES,
        UNACKNOWLEDGED,
        f"{open_files.MAX_OTHERS:,}",
        f"{gunicorn_worker.KEEP_ALIVE_SECONDS} s",
    ):
        assert bound in bounds, bound
    assert f"{open_files.RESERVED_FILES} of them are never for clients, and {open_files.MIN_OTHERS} of these" in bounds
