"""The messages that clients receive, as JSON texts: the same over WebSocket and as server-sent events."""

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from app.broadcast.topic import Topic, topic_to_json
from notifymux.event import NULL, EventId

_MAX_SHORT_FRAME_BYTES = 125  # a longer text needs two or eight more bytes for its length

MESSAGE_TYPES = {
    "matchdata_change": "match-update",
    "match_change": "match-update",
    "scoreboard_change": "match-update",
    "gameclock_change": "gameclock-update",
    "playclock_change": "playclock-update",
    "football_event_change": "event-update",
    "player_match_change": "players-update",
}  # by channel; any other channel's updates have its name as their type
ROW_NAMES = {"gameclock_change": "gameclock", "playclock_change": "playclock"}  # where the row stands a second time
_EMPTY = msgspec.Raw(b"")


class Message(msgspec.Struct, gc=False):
    """A message, encoded once for all clients that receive it.

    Args:
        built: its JSON text, on one line.
        event_id: the id that a client remembers after it; empty if it is to forget the one before, None if to keep it.
        row: identifies the row whose whole state it carries, so that a newer message may replace it; None if none may.
    """

    built: bytes
    event_id: str | None = None
    row: bytes | None = None
    _parsed_id: EventId | None = None

    @property
    def text(self) -> bytes:
        """The JSON, on one line."""
        return self.built

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The JSON in pieces; a large one is shared by all messages that contain it."""
        return (self.text,)

    @property
    def websocket_pieces(self) -> list[bytes]:
        """The message as a WebSocket text frame, in pieces."""
        pieces = self.pieces
        return [_frame_head(sum(map(len, pieces))), *pieces]

    @property
    def sse_pieces(self) -> list[bytes]:
        """The message as a server-sent event, in pieces."""
        id_line = b"" if self.event_id is None else b"id: %b\n" % self.event_id.encode()
        return [id_line + b"data: ", *self.pieces, b"\n\n"]

    @property
    def parsed_id(self) -> EventId | None:
        """`event_id` as numbers, parsed at most once and only where ids are compared; None without an id."""
        if self._parsed_id is None and self.event_id:
            self._parsed_id = EventId.parse(self.event_id)
        return self._parsed_id

    @property
    def sse_chunk(self) -> bytes:
        """The message as a server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        return b"".join(self.sse_pieces)


class FirstMessage(Message, gc=False, kw_only=True):
    """A message with a snapshot, whose bytes exist once, also while they wait for many clients that read slowly.

    `built` is what comes before the snapshot, `tail` what comes after it.
    """

    data: bytes
    tail: bytes

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The JSON in pieces."""
        return self.built, self.data, self.tail

    @property
    def text(self) -> bytes:
        """The JSON, on one line."""
        return b"".join(self.pieces)


class Update(Message, gc=False, kw_only=True):
    """An event as a message for the clients of its topics.

    Its text is built from its parts when it is first needed, because most topics have no clients on a worker. Then the
    parts, which keep the event's payload in memory, are released.
    """

    topics: tuple[Topic, ...]  # at least one; a match is the first
    channel: str
    size: int  # bytes of the payload
    match_id: msgspec.Raw  # this and the next two are JSON, from the payload
    operation: msgspec.Raw
    data: msgspec.Raw
    others: tuple[tuple[str, msgspec.Raw], ...] = ()  # the payload's other keys that are topics, each with its JSON
    serial: int = 0  # set by the replay buffer

    @property
    def match(self) -> str | None:
        """The match id's text; None if it has none."""
        first = self.topics[0]
        return first if isinstance(first, str) else None

    @property
    def text(self) -> bytes:
        """The JSON, on one line, as it is shown to everybody."""
        if not self.built:
            event_id = b'"%b"' % self.event_id.encode() if self.event_id else NULL
            head, middle, row_again = _fixed_parts(self.channel)
            parts: list[bytes | msgspec.Raw] = [head, event_id, middle, self.match_id]
            for key, value in self.others:
                parts += b',"', key.encode(), b'":', value
            parts += b',"operation":', self.operation, b',"data":', self.data
            if row_again:
                parts += row_again, self.data
            parts.append(b"}")
            self.built = b"".join(parts)
            self.match_id = self.operation = self.data = _EMPTY
            self.others = ()
        return self.built

    def shown_to(self, _: str) -> Message:
        """Return the message for clients with these claims."""
        return self


class MessageBatch:
    """Messages for many clients at once; each encoding of the whole batch is built once, when it is first needed."""

    __slots__ = ("_chunks", "_frames", "messages")

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self._frames = self._chunks = b""  # empty until they are needed

    @property
    def websocket_frames(self) -> bytes:
        """One unmasked WebSocket text frame for each message."""
        if not self._frames:
            texts = [message.text for message in self.messages]
            self._frames = b"".join([part for text in texts for part in (_frame_head(len(text)), text)])
        return self._frames

    @property
    def sse_chunks(self) -> bytes:
        """One server-sent event for each message."""
        if not self._chunks:
            self._chunks = b"".join([message.sse_chunk for message in self.messages])
        return self._chunks


PING = MessageBatch([Message(b'{"type":"ping"}')])
PONG = MessageBatch([Message(b'{"type":"pong"}')])


RENEWED = MessageBatch([Message(b'{"type":"renewed"}')])


class _ClientMessage(msgspec.Struct, gc=False):
    """What matters of a message from a client."""

    type: str = ""


def is_ping(text: str) -> bool:
    """Whether a message from a client is a ping, which wants an answer."""
    try:
        return msgspec.json.decode(text, type=_ClientMessage).type == "ping"
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or no such object
        return False


def recovered(topic: Topic, event_id: EventId) -> Message:
    """Return the first message to a client that receives every event since `event_id`."""
    return _first_message(b'"type":"initial-load","recovered":true', topic, event_id, NULL, None)


def initial_load(topic: Topic, position: EventId | None, data: bytes, error: str | None) -> Message:
    """Return the first message with a snapshot; `data` is its JSON, `error` says why there is none."""
    return _first_message(b'"type":"initial-load","recovered":false', topic, position, data, error)


def resync(topic: Topic, position: EventId | None, data: bytes, error: str | None) -> Message:
    """Return the message that announces a gap, with a fresh snapshot."""
    return _first_message(b'"type":"resync"', topic, position, data, error)


def stale(topic: Topic) -> Message:
    """Return the message that announces a `resync` which has to wait for its snapshot."""
    return Message(b'{"type":"stale","id":null,%b}' % topic_to_json(topic))


def refused(code: str, reason: str, topic: Topic | None = None) -> MessageBatch:
    """Return the answer to a request that is refused, or the end of a subscription; `reason` is for people."""
    about = b"" if topic is None else topic_to_json(topic) + b","
    return MessageBatch(
        [Message(b'{"type":"refused",%b"code":%b,"reason":%b}' % (about, *map(msgspec.json.encode, (code, reason))))]
    )


def unsubscribed(topic: Topic) -> MessageBatch:
    """Return the answer after which nothing of a topic comes."""
    return MessageBatch([Message(b'{"type":"unsubscribed",%b}' % topic_to_json(topic))])


def _first_message(head: bytes, topic: Topic, position: EventId | None, data: bytes, error: str | None) -> Message:
    # Without a position, what a client last heard is no place to resume from: it would hear again what follows here.
    event_id = str(position) if position else ""
    json_error = b',"error":%b' % msgspec.json.encode(error) if error else b""
    parts = head, msgspec.json.encode(event_id or None), topic_to_json(topic)
    before = b'{%b,"id":%b,%b,"data":' % parts
    return FirstMessage(before, event_id, data=data, tail=json_error + b"}")


@lru_cache(maxsize=1024)
def _fixed_parts(channel: str) -> tuple[bytes, bytes, bytes]:
    """Return what every update of a channel has before its id, before its match id, and before the row again."""
    row_name = ROW_NAMES.get(channel)
    return (
        b'{"type":%b,"id":' % msgspec.json.encode(MESSAGE_TYPES.get(channel, channel)),
        b',"channel":%b,"match_id":' % msgspec.json.encode(channel),
        b',"%b":' % row_name.encode() if row_name else b"",
    )


@lru_cache(maxsize=4096)
def _frame_head(size: int) -> bytes:
    """Return the head of an unmasked text frame with a text of so many bytes (RFC 6455, 5.2)."""
    if size <= _MAX_SHORT_FRAME_BYTES:
        return b"\x81%c" % size
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")
