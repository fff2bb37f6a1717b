"""From where a request wants to resume: its header `Last-Event-ID` and its query."""

from starlette.requests import HTTPConnection

from app.monitoring.refusals import Cause
from app.web.access_control import Rejected
from app.web.subscription_requests import MAX_SUBSCRIPTIONS
from notifymux.event import EventId


def last_event_id(connection: HTTPConnection) -> EventId | None:
    """Return the last id that the client of one match has received; None if it sends none, or one that is not an id."""
    return _event_id(connection.headers.get("last-event-id") or connection.query_params.get("last_event_id", ""))


def requested_starts(connection: HTTPConnection) -> list[tuple[str, EventId | None]]:
    """Return the matches that an event stream is to have, `match=`, each with the last id that the client has of it.

    That is the `after=` behind it; the header stands for all matches, and takes precedence.

    Raises:
        Rejected: there is no match, too many, one that is no id, or an `after` without one. The status is 400.
    """
    starts: dict[str, str] = {}
    match: str | None = None
    for name, value in connection.query_params.multi_items():
        if name == "match":
            if not value:
                raise _malformed("match= has to name a match")
            match = value
            starts.setdefault(match, "")
        elif name == "after":
            if match is None:
                raise _malformed("after= belongs behind the match= that it is of")
            starts[match] = value
    if not starts:
        raise _malformed("match= is missing: it names a match, once for each")
    if len(starts) > MAX_SUBSCRIPTIONS:
        raise _malformed(f"an event stream may have {MAX_SUBSCRIPTIONS} matches")
    header = connection.headers.get("last-event-id")
    return [(match, _event_id(header or after)) for match, after in starts.items()]


def _event_id(text: str) -> EventId | None:
    try:
        return EventId.parse(text)
    except ValueError:
        return None


def _malformed(reason: str) -> Rejected:
    return Rejected(400, Cause.REQUEST, reason)
