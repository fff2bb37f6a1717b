"""The canary: a notification of our own that proves the way from PostgreSQL, and measures it.

PostgreSQL itself writes into it how its queue and its connections stand, so that whoever hears it needs no session.
"""

import msgspec

from app.core.postgres import literal

CANARY_TIMEOUT_SECONDS = 4.0  # a session whose own canary or marker takes longer to come back is replaced


class Canary(msgspec.Struct, frozen=True):
    """What is heard: a canary, or the token by which `python -m listener verify` asks who hears."""

    canary: str | None = None  # its sender's token
    sent: float | None = None  # by the sender's clock, Unix seconds
    queue: float | None = None  # how full PostgreSQL's queue of notifications is, from 0 to 1
    listening: int | None = None  # sessions whose query begins with LISTEN, as far as the role may see
    connections: int | None = None  # clients' sessions, of all databases
    max_connections: int | None = None
    verify: str | None = None


_decoder = msgspec.json.Decoder(Canary)


# Not by the view pg_stat_activity: its joins take four times as long, and the canary's time is what is measured.
_ACTIVITY = "pg_stat_get_activity(NULL)"
_MEASURED = (
    "'queue', pg_notification_queue_usage(), "
    "'listening', count(*) FILTER (WHERE query LIKE 'LISTEN%'), "
    "'connections', count(*) FILTER (WHERE backend_type = 'client backend'), "
    "'max_connections', current_setting('max_connections')::int"
)


def canary_sql(channel: str, token: str, sent: float) -> str:
    """The query that notifies a canary on `channel`; `sent` is the clock now, Unix seconds."""
    canary = f"json_build_object('canary', {literal(token)}, 'sent', {sent:.6f}, {_MEASURED})::text"
    return f"SELECT pg_notify({literal(channel)}, {canary}) FROM {_ACTIVITY}"  # noqa: S608 - literals only


def read_canary(payload: bytes) -> Canary:
    """What a payload on our channel says of the above; nothing, if it says something else."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Canary()
