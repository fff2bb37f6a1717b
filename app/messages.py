"""What a client hears: an event, a snapshot and a ping as JSON texts, the same over WebSocket and SSE."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from app.core.event import NULL, Event, EventId

PING = b'{"type":"ping"}'

_TYPES = {
    "matchdata_change": "match-update",
    "match_change": "match-update",
    "scoreboard_change": "match-update",
    "gameclock_change": "gameclock-update",
    "playclock_change": "playclock-update",
    "football_event_change": "event-update",
    "player_match_change": "players-update",
}
# Where the row is repeated under a name of its own.
_EXTRA_NAMES = {"gameclock_change": "gameclock", "playclock_change": "playclock"}


class Routed(NamedTuple):
    """An event on its way to the clients of one match; its parts are JSON."""

    match: str
    match_id: bytes
    operation: bytes
    data: bytes


class Router:
    """Tells which match an event belongs to, without rebuilding its row.

    Args:
        routing_key: the key in the payload that says so.
    """

    def __init__(self, routing_key: str) -> None:
        raw = msgspec.Raw
        fields: Sequence[tuple[str, type, Any]] = [
            ("key", raw, raw(NULL)),
            ("operation", raw, raw(NULL)),
            ("data", raw, raw(b"")),
        ]
        row = msgspec.defstruct("Row", fields, rename={"key": routing_key})
        self._decoder = msgspec.json.Decoder(row)

    def route(self, event: Event) -> Routed | None:
        """The event's match and row; None if its payload names no match, so that no client hears it.

        A payload without `data` is its own row.
        """
        try:
            row: Any = self._decoder.decode(event.payload)
        except (msgspec.DecodeError, RecursionError):
            return None
        match_id = bytes(row.key)
        match = _text(match_id)
        if match is None:
            return None
        return Routed(match, match_id, bytes(row.operation), bytes(row.data) or bytes(event.payload))


def _text(match_id: bytes) -> str | None:
    """A match id as it stands in a path: a number's own digits, or a string's characters."""
    if match_id[:1] == b'"':
        text: str = msgspec.json.decode(match_id)
        return text
    return match_id.decode() if match_id[:1] in b"-0123456789" else None


def update(event: Event, routed: Routed) -> bytes:
    """An update, as every client of the match hears it."""
    extra = _EXTRA_NAMES.get(event.channel)
    return b'{"type":%b,"id":%b,"channel":%b,"match_id":%b,"operation":%b,"data":%b%b}' % (
        msgspec.json.encode(_TYPES.get(event.channel, event.channel)),
        msgspec.json.encode(event.id),
        msgspec.json.encode(event.channel),
        routed.match_id,
        routed.operation,
        routed.data,
        b',"%b":%b' % (extra.encode(), routed.data) if extra else b"",
    )


def initial_load(match: str, position: EventId | None, data: bytes, error: str | None) -> bytes:
    """The first message; `data` is the snapshot as JSON, `error` why there is none."""
    return _snapshot(b'"type":"initial-load","recovered":false', match, position, data, error)


def resync(match: str, position: EventId | None, data: bytes, error: str | None) -> bytes:
    """Says that continuity was broken, with a fresh snapshot."""
    return _snapshot(b'"type":"resync"', match, position, data, error)


def _snapshot(head: bytes, match: str, position: EventId | None, data: bytes, error: str | None) -> bytes:
    number = msgspec.json.encode(str(position)) if position else NULL
    failed = b',"error":%b' % msgspec.json.encode(error) if error else b""
    return b'{%b,"id":%b,"match_id":%b,"data":%b%b}' % (head, number, _json_id(match), data, failed)


def _json_id(match: str) -> bytes:
    """A match id from a path as JSON: a number where it is one, as the updates have it."""
    is_number = match.isascii() and match.isdigit() and (match == "0" or match[0] != "0")
    return match.encode() if is_number else msgspec.json.encode(match)
