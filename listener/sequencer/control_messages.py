"""What listeners say to each other through PostgreSQL, on our own channel: marker, begin and canary."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from app.core.canary import canary_sql
from app.core.config import MUX_CHANNEL
from app.core.postgres import listen_sql, literal


class Marker(NamedTuple):
    """A newcomer's mark in the order of notifications, by which it finds its place in the stream (rule 2)."""

    token: str
    fingerprint: str


class Begin(NamedTuple):
    """Asks for a new epoch above `floor`; `previous` is the stream's head as its sender knew it (rule 5).

    `jitter` is added to the epoch, so that two that are asked for in the same millisecond, or while PostgreSQL's clock
    is behind, are not one.
    """

    token: str
    fingerprint: str
    floor: int
    jitter: int
    previous: str
    why: str


class Canary(NamedTuple):
    """Proves the way from PostgreSQL to the workers, and the count with it (rule 11)."""

    token: str


ControlMessage = Marker | Begin | Canary


class ReceivedControl(msgspec.Struct, frozen=True):
    """A message as it is heard: exactly one of the first three is set."""

    marker: str | None = None
    canary: str | None = None
    begin: int | None = None
    floor: int = 0
    by: str = ""
    fingerprint: str = ""
    previous: str = ""
    why: str = ""


_decoder = msgspec.json.Decoder(ReceivedControl)


def parse(payload: bytes) -> ReceivedControl:
    """What a payload on our channel says; nothing, if somebody else wrote it."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ReceivedControl()


def statement(message: ControlMessage, channels: Iterable[str], at: float) -> str:
    """The one simple query that sends `message`; a marker's LISTENs on our channel and all of `channels` first.

    `at` is the clock, Unix seconds, which a canary carries.
    """
    match message:
        case Marker(token, fingerprint):
            payload = _text(marker=token, fingerprint=fingerprint)
            return listen_sql([MUX_CHANNEL, *channels], f"SELECT pg_notify({literal(MUX_CHANNEL)}, {literal(payload)})")
        case Begin(token, fingerprint, floor, jitter, previous, why):
            rest = _text(by=token, fingerprint=fingerprint, previous=previous, why=why)
            now = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
            epoch = f"jsonb_build_object('begin', greatest({now}, {floor:d}) + {jitter:d}, 'floor', {floor:d})"
            return listen_sql(
                [MUX_CHANNEL], f"SELECT pg_notify({literal(MUX_CHANNEL)}, ({epoch} || {literal(rest)}::jsonb)::text)"
            )
        case Canary(token):
            return listen_sql([MUX_CHANNEL], canary_sql(MUX_CHANNEL, token, at))


def _text(**fields: str) -> str:
    return msgspec.json.encode(fields).decode()
