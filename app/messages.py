"""What a client hears: an event, a snapshot and a ping as JSON texts, the same over WebSocket and SSE."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from app.core.event import NULL, Event, EventId


class Message:
    """A message, encoded once for all who hear it.

    Args:
        text: the JSON, on one line.
        event_id: the number a client remembers after it, None if it has none.
        row: which row's whole state it carries, so that a newer one may replace it; None if it must not be replaced.
    """

    __slots__ = ("event_id", "row", "text")

    def __init__(self, text: bytes, event_id: str | None = None, row: bytes | None = None) -> None:
        self.text, self.event_id, self.row = text, event_id, row

    @property
    def chunk(self) -> bytes:
        """The message as a server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        number = b"id: %b\n" % self.event_id.encode() if self.event_id else b""
        return b"%bdata: %b\n\n" % (number, self.text)


PING = Message(b'{"type":"ping"}')

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
    row: bytes | None = None  # what names the row, where a newer event of it may replace this one


class _Row(msgspec.Struct):
    id: msgspec.Raw


class Router:
    """Tells which match an event belongs to, without rebuilding its row.

    Args:
        routing_key: the key in the payload that says so.
        latest_wins: channels whose rows are whole states: a newer event of a row makes the older one worthless.
    """

    def __init__(self, routing_key: str, latest_wins: Collection[str] = ()) -> None:
        self._latest_wins = frozenset(latest_wins)
        self._rows = msgspec.json.Decoder(_Row)
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
        data = bytes(row.data) or bytes(event.payload)
        return Routed(match, match_id, bytes(row.operation), data, self._row(event.channel, data))

    def _row(self, channel: str, data: bytes) -> bytes | None:
        if channel not in self._latest_wins:
            return None
        try:
            return channel.encode() + b"\0" + bytes(self._rows.decode(data).id)
        except (msgspec.DecodeError, RecursionError):
            return None  # a row without an id


def _text(match_id: bytes) -> str | None:
    """A match id as it stands in a path: a number's own digits, or a string's characters."""
    if match_id[:1] == b'"':
        text: str = msgspec.json.decode(match_id)
        return text
    return match_id.decode() if match_id[:1] in b"-0123456789" else None


def update(event: Event, routed: Routed) -> Message:
    """An update, as every client of the match hears it."""
    extra = _EXTRA_NAMES.get(event.channel)
    text = b'{"type":%b,"id":%b,"channel":%b,"match_id":%b,"operation":%b,"data":%b%b}' % (
        msgspec.json.encode(_TYPES.get(event.channel, event.channel)),
        msgspec.json.encode(event.id),
        msgspec.json.encode(event.channel),
        routed.match_id,
        routed.operation,
        routed.data,
        b',"%b":%b' % (extra.encode(), routed.data) if extra else b"",
    )
    return Message(text, event.id, routed.row)


def recovered(match: str, event_id: EventId) -> Message:
    """The first message to a client that hears everything since `event_id`."""
    return _start(b'"type":"initial-load","recovered":true', match, event_id, NULL, None)


def initial_load(match: str, position: EventId | None, data: bytes, error: str | None) -> Message:
    """The first message with a snapshot; `data` is JSON, `error` why there is none."""
    return _start(b'"type":"initial-load","recovered":false', match, position, data, error)


def resync(match: str, position: EventId | None, data: bytes, error: str | None) -> Message:
    """Says that continuity was broken, with a fresh snapshot."""
    return _start(b'"type":"resync"', match, position, data, error)


def _start(head: bytes, match: str, position: EventId | None, data: bytes, error: str | None) -> Message:
    event_id = str(position) if position else None
    number = msgspec.json.encode(event_id)
    failed = b',"error":%b' % msgspec.json.encode(error) if error else b""
    text = b'{%b,"id":%b,"match_id":%b,"data":%b%b}' % (head, number, _json_id(match), data, failed)
    return Message(text, event_id)


def _json_id(match: str) -> bytes:
    """A match id from a path as JSON: a number where it is one, as the updates have it."""
    is_number = match.isascii() and match.isdigit() and (match == "0" or match[0] != "0")
    return match.encode() if is_number else msgspec.json.encode(match)
