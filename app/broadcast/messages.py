"""What a client hears: an event, a snapshot and a ping as JSON texts, the same over WebSocket and SSE."""

from collections.abc import Collection, Sequence
from functools import cached_property, lru_cache
from typing import Any

import msgspec

from notifymux.event import NULL, Event, EventId

_SMALL = 125  # bytes whose number fits into a frame's second byte


@lru_cache(maxsize=4096)
def _frame_head(size: int) -> bytes:
    """What stands before so many bytes of text in an unmasked frame (RFC 6455, 5.2)."""
    if size <= _SMALL:
        return b"\x81%c" % size
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


class Message(msgspec.Struct, gc=False):
    """A message, encoded once for all who hear it.

    Args:
        built: its JSON text, on one line.
        event_id: the number a client remembers after it, None if it has none.
        row: which row's whole state it carries, so that a newer one may replace it; None if it must not be replaced.
    """

    built: bytes
    event_id: str | None = None
    row: bytes | None = None

    @property
    def text(self) -> bytes:
        """The JSON, on one line."""
        return self.built

    @property
    def frame(self) -> bytes:
        """The message as an unmasked WebSocket text frame."""
        return _frame_head(len(self.text)) + self.text

    @property
    def chunk(self) -> bytes:
        """The message as a server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        number = b"id: %b\n" % self.event_id.encode() if self.event_id else b""
        return b"%bdata: %b\n\n" % (number, self.text)


class MessageBatch:
    """Messages on their way to many clients at once: each form of them all is built once, when somebody needs it."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages

    @cached_property
    def frames(self) -> bytes:
        """As WebSocket frames."""
        texts = [message.text for message in self.messages]
        return b"".join([part for text in texts for part in (_frame_head(len(text)), text)])

    @cached_property
    def chunks(self) -> bytes:
        """As server-sent events."""
        return b"".join([message.chunk for message in self.messages])


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
_SPENT = msgspec.Raw(b"")  # what is in the text by now
# Where the row is repeated under a name of its own.
_EXTRA_NAMES = {"gameclock_change": "gameclock", "playclock_change": "playclock"}


class Update(Message, gc=False, kw_only=True):
    """An event on its way to the clients of one match; its parts are JSON. Its text is built when somebody hears it.

    `size` is about how many bytes it takes; `number` is the history's count.
    """

    match: str
    channel: str
    size: int
    match_id: msgspec.Raw
    operation: msgspec.Raw
    data: msgspec.Raw
    number: int = 0

    @property
    def text(self) -> bytes:
        """The JSON, as every client of the match hears it."""
        if not self.built:
            event_id = b'"%b"' % self.event_id.encode() if self.event_id else NULL
            head, middle, extra = _fixed_parts(self.channel)
            parts = (head, event_id, middle, self.match_id, b',"operation":', self.operation, b',"data":', self.data)
            self.built = b"".join((*parts, extra, self.data, b"}") if extra else (*parts, b"}"))
            self.match_id = self.operation = self.data = _SPENT
        return self.built


@lru_cache(maxsize=1024)
def _fixed_parts(channel: str) -> tuple[bytes, bytes, bytes]:
    """What every update of a channel has before its id, before its match's, and before the row's repetition."""
    extra = _EXTRA_NAMES.get(channel)
    return (
        b'{"type":%b,"id":' % msgspec.json.encode(_TYPES.get(channel, channel)),
        b',"channel":%b,"match_id":' % msgspec.json.encode(channel),
        b',"%b":' % extra.encode() if extra else b"",
    )


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

    def route(self, event: Event) -> Update | None:
        """The event as an update of its match; None if its payload names no match, so that no client hears it.

        A payload without `data` is its own row.
        """
        try:
            row: Any = self._decoder.decode(event.payload)
        except (msgspec.DecodeError, RecursionError):
            return None
        match = _text(bytes(row.key))
        if match is None:
            return None
        data = row.data or event.payload
        return Update(
            b"",
            event.id,
            self._row(event.channel, data) if event.channel in self._latest_wins else None,
            match=match,
            channel=event.channel,
            size=len(event.payload),
            match_id=row.key,
            operation=row.operation,
            data=data,
        )

    def _row(self, channel: str, data: msgspec.Raw) -> bytes | None:
        try:
            return channel.encode() + b"\0" + bytes(self._rows.decode(data).id)
        except (msgspec.DecodeError, RecursionError):
            return None  # a row without an id


@lru_cache(maxsize=4096)
def _text(match_id: bytes) -> str | None:
    """A match id as it stands in a path: a number's own digits, or a string's characters."""
    if match_id[:1] == b'"':
        text: str = msgspec.json.decode(match_id)
        return text
    return match_id.decode() if match_id[:1] in b"-0123456789" else None


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
