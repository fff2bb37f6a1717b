"""An event, its id, and its JSON text as it is published and stored in Redis.

`{"id": "1795375047782-42", "channel": "match_change", "payload": {...}, "at": 1795375047.801}`: the payload's own text
is embedded unchanged, so that no number is rounded and no key is moved.
"""

import json
import logging
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Self

import msgspec

logger = logging.getLogger(__name__)

# Our own channel in PostgreSQL: the listeners' control messages travel on it, and no client ever receives them.
MUX_CHANNEL = "pg_notify_mux"

NULL = b"null"

# In valid JSON a line break is white space, because within a string it has to be escaped.
_LINE_BREAKS_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")
_LF, _CR = b"\n\r"  # a byte is found five times as fast by its number

# JSON parsers limit the depth of what they parse. A payload with more brackets than the first is parsed once more with
# the second added around it, so that an event and a message built around the payload stay within a parser's limit.
_MAX_UNCHECKED_BRACKETS, _SPARE_DEPTH = 100, 300


class EventId(NamedTuple):
    """`E-S`: the epoch (in milliseconds, as in the ids of stream entries) and the sequence number in it, from 1 up."""

    epoch: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an id.

        Raises:
            ValueError: `text` is not an id.
        """
        epoch, _, sequence = text.partition("-")
        if not (epoch.isascii() and epoch.isdigit() and sequence.isascii() and sequence.isdigit()):
            raise ValueError(f"{text!r} is not an event id")
        return cls(int(epoch), int(sequence))

    @property
    def next(self) -> "EventId":
        """The id that follows in the same epoch."""
        return EventId(self.epoch, self.sequence + 1)

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"


class Event(msgspec.Struct, frozen=True, dict=True):
    """A received event. `id` is None if it was published directly to Redis or received from PostgreSQL."""

    channel: str
    payload: msgspec.Raw = msgspec.Raw(NULL)
    id: str | None = None
    at: float | None = None  # when the listener received it, Unix seconds
    fingerprint: str | None = None  # on the project's own channel only: of the listener that assigned the id
    cluster: str | None = None  # the same: of its PostgreSQL
    is_copy: bool = msgspec.field(default=False, name="copy")  # whether it is published on another channel too

    @cached_property
    def parsed_id(self) -> EventId | None:
        """`id` as numbers, parsed when first used; None without an id.

        Raises:
            ValueError: `id` is not an event id.
        """
        return None if self.id is None else EventId.parse(self.id)

    def json(self) -> Any:
        """Return the payload, parsed anew at each call.

        Raises:
            ValueError: Python can't represent it, for instance an integer with thousands of digits.
            RecursionError: it nests too deeply.
        """
        return json.loads(bytes(self.payload))


_decoder = msgspec.json.Decoder(Event)
_validator = msgspec.json.Decoder(msgspec.Raw)


def decode(text: bytes) -> Event:
    """Parse an event's JSON text. The payload is on one line, whatever program wrote it.

    Raises:
        msgspec.DecodeError: it is not an event (`msgspec.ValidationError` is a subclass).
    """
    if _LF in text or _CR in text:
        text = text.translate(_LINE_BREAKS_TO_SPACES)
    try:
        event = _decoder.decode(text)
        if not text.isascii():
            text.decode()  # the decoder does not check that the strings in a payload are UTF-8
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from None
    return event


def decode_all(texts: Iterable[bytes]) -> list[Event]:
    """Return the events of texts; one that is none is logged."""
    events = []
    for text in texts:
        try:
            event = decode(text)
        except ValueError as error:
            logger.warning("what was published is not an event: %s", error)
        else:
            events.append(event)
    return events


class Origin(NamedTuple):
    """Who assigned an event's id: a listener's fingerprint, and its PostgreSQL cluster if that is known."""

    fingerprint: str
    cluster: str = ""


def encode(
    channel: str,
    payload: bytes,
    at: float,
    event_id: EventId | None = None,
    origin: Origin | None = None,
    *,
    is_copy: bool = False,
    place: str = "",
) -> bytes:
    """Return an event's JSON text. `payload` is JSON (see `payload_json`), `at` in Unix seconds.

    The listener passes its origin for events on the project's own channel; otherwise these fields are left out.
    `is_copy`: the same event is published on another channel too. `place` is where the WAL has it, and comes last.
    """
    number = b'"%d-%d"' % event_id if event_id else NULL
    by = b""
    if origin:
        by = b',"fingerprint":%b' % msgspec.json.encode(origin.fingerprint)
        by += b',"cluster":%b' % msgspec.json.encode(origin.cluster) if origin.cluster else b""
    if is_copy:
        by = b',"copy":true'
    if place:
        by += b',"place":"%b"' % place.encode()
    time = _json_time(at, 6 if origin else 3)  # latencies are measured by the events on the project's own channel
    return b'{"id":%b,"channel":%b,"payload":%b,"at":%b%b}' % (number, _json_name(channel), payload, time, by)


@lru_cache(maxsize=1024)
def _json_name(channel: str) -> bytes:
    return msgspec.json.encode(channel)


@lru_cache(maxsize=16)  # all notifications of one read have the same time
def _json_time(at: float, digits: int) -> bytes:
    return b"%.*f" % (digits, at)


def payload_json(payload: bytes) -> bytes:
    """Return a notification's payload as JSON on one line: unchanged if it is JSON, null if empty, else as a string.

    JSON that nests so deeply that a parser could refuse it becomes a string too.
    """
    if not payload:
        return NULL
    try:
        _validator.decode(payload)
        if payload.count(b"[") + payload.count(b"{") > _MAX_UNCHECKED_BRACKETS:
            _validator.decode(b"[" * _SPARE_DEPTH + payload + b"]" * _SPARE_DEPTH)
        if not payload.isascii():
            payload.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return msgspec.json.encode(payload.decode(errors="replace"))
    return payload.translate(_LINE_BREAKS_TO_SPACES) if _LF in payload or _CR in payload else payload
