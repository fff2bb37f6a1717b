"""One event: its id, and its JSON text as it travels through Redis.

An event: `{"id": "1795375047782-42", "channel": "match_change", "payload": {...}, "at": 1795375047.801}`.
The payload is never rebuilt: its own text is carried inside, so no number is rounded and no key is reordered.
"""

from functools import cached_property, lru_cache
from typing import NamedTuple, Self

import msgspec

NULL = b"null"

# Brackets a payload may hold before its depth is looked at, and the depth left free for who parses it further.
_SHALLOW, _HEADROOM = 100, 300


class EventId(NamedTuple):
    """`E-S`: the epoch (milliseconds, as in a stream's entry ids) and the sequence in it, counted from 1."""

    epoch: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that `text` spells.

        Raises:
            ValueError: it spells none.
        """
        epoch, _, sequence = text.partition("-")
        if not (epoch.isascii() and epoch.isdigit() and sequence.isascii() and sequence.isdigit()):
            raise ValueError(f"{text!r} is not an event id")
        return cls(int(epoch), int(sequence))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.sequence}"


class Event(msgspec.Struct, frozen=True, dict=True):
    """An event as it was read; `id` is None for what was published directly, and in PostgreSQL mode."""

    channel: str
    payload: msgspec.Raw = msgspec.Raw(NULL)
    id: str | None = None
    at: float | None = None
    fingerprint: str | None = None  # on our own channel only: who numbered it

    @cached_property
    def parsed_id(self) -> EventId | None:
        """`id` as numbers, parsed at most once and only where they are needed; None without an id.

        Raises:
            ValueError: `id` is not an event id.
        """
        return None if self.id is None else EventId.parse(self.id)


_decoder = msgspec.json.Decoder(Event)
_validator = msgspec.json.Decoder(msgspec.Raw)


def decode(text: bytes) -> Event:
    """The event in `text`.

    Raises:
        msgspec.DecodeError: it is not one (`msgspec.ValidationError` is a kind of it).
    """
    try:
        event = _decoder.decode(text)
        text.decode()  # the decoder does not look into a payload's strings
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from None
    return event


def encode(channel: str, payload: bytes, at: float, event_id: EventId | None = None, fingerprint: str = "") -> bytes:
    """The event's JSON text; `payload` is JSON already (see `payload_json`), `at` Unix seconds.

    `fingerprint` is written when it isn't empty: whose count the id comes from.
    """
    number = b'"%d-%d"' % event_id if event_id else NULL
    by = b',"fingerprint":%b' % msgspec.json.encode(fingerprint) if fingerprint else b""
    time = _json_time(at, 6 if fingerprint else 3)  # by our own the way is measured
    return b'{"id":%b,"channel":%b,"payload":%b,"at":%b%b}' % (number, _json_name(channel), payload, time, by)


@lru_cache(maxsize=1024)
def _json_name(channel: str) -> bytes:
    return msgspec.json.encode(channel)


@lru_cache(maxsize=16)  # all that came in one read have the same
def _json_time(at: float, digits: int) -> bytes:
    return b"%.*f" % (digits, at)


# In JSON that is valid, a raw line break can only be white space; without it an event is one line everywhere.
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def payload_json(payload: bytes) -> bytes:
    """A notification's payload as JSON on one line: as it is if it is JSON, an empty one as null, else as a string.

    JSON that nests so deeply that a reader could refuse it is sent as a string too.
    """
    if not payload:
        return NULL
    try:
        _validator.decode(payload)
        if payload.count(b"[") + payload.count(b"{") > _SHALLOW:
            _validator.decode(b"[" * _HEADROOM + payload + b"]" * _HEADROOM)
        payload.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return msgspec.json.encode(payload.decode(errors="replace"))
    return payload.translate(_ONE_LINE) if b"\n" in payload or b"\r" in payload else payload
