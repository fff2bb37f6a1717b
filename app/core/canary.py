"""The canary: a notification of our own that proves the path from PostgreSQL and measures it.

PostgreSQL itself writes the state of its queue and of its connections into the canary, so that a process that receives
one needs no session to know them. `app.core.postgres.canary_sql` is the query that sends it.
"""

import msgspec

VERIFY_PREFIX = "notifymux-"  # with which a token of `python -m listener verify` begins


class Canary(msgspec.Struct, frozen=True):
    """A canary's payload, or the token by which `python -m listener verify` asks which workers receive it."""

    canary: str | None = None  # the sender's token
    sent: float | None = None  # by the sender's clock, Unix seconds
    clock: float | None = None  # by PostgreSQL's clock, Unix seconds
    queue: float | None = None  # how full PostgreSQL's notification queue is, from 0 to 1
    listening: int | None = None  # sessions whose query begins with LISTEN, as far as the role may see
    connections: int | None = None  # client sessions of all databases
    max_connections: int | None = None
    verify: str | None = None


_decoder = msgspec.json.Decoder(Canary)


def read_canary(payload: bytes) -> Canary:
    """Decode a payload of our own channel; one that is not a canary yields a `Canary` without fields."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Canary()


def is_verification(payload: bytes) -> bool:
    """Whether `python -m listener verify` has notified a payload, which it may do on any channel."""
    if VERIFY_PREFIX.encode() not in payload:
        return False
    return (read_canary(payload).verify or "").startswith(VERIFY_PREFIX)
