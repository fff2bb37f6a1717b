"""From where a request wants to resume: its header `Last-Event-ID` and its query."""

from collections.abc import Collection

from starlette.requests import HTTPConnection

from app.broadcast.topic import Topic, topic_of
from app.core.query_files import MATCH_ID
from app.monitoring.refusals import Cause
from app.web.access_control import Rejected
from app.web.subscription_requests import MAX_SUBSCRIPTIONS
from notifymux.event import EventId


def last_event_id(connection: HTTPConnection) -> EventId | None:
    """Return the last id that the client of one match has received; None if it sends none, or one that is not an id."""
    return _event_id(connection.headers.get("last-event-id") or connection.query_params.get("last_event_id", ""))


def requested_starts(
    connection: HTTPConnection, other_keys: Collection[str] = ()
) -> list[tuple[Topic, EventId | None]]:
    """Return what an event stream is to have, `match=` or another key, each with the last id that the client has of it.

    That is the `after=` behind it; the header stands for all, and takes precedence.

    Raises:
        Rejected: there is no match, too many, one that is no id, or an `after` without one. The status is 400.
    """
    starts: dict[Topic, str] = {}
    topic: Topic | None = None
    for name, value in connection.query_params.multi_items():
        if name == "match" or name in other_keys:
            if not value:
                raise _malformed(f"{name}= has to name a {name.removesuffix('_id')}")
            topic = topic_of(MATCH_ID if name == "match" else name, value)
            starts.setdefault(topic, "")
        elif name == "after":
            if topic is None:
                raise _malformed("after= belongs behind the match= that it is of")
            starts[topic] = value
    if not starts:
        raise _malformed("match= is missing: it names a match, once for each")
    if len(starts) > MAX_SUBSCRIPTIONS:
        raise _malformed(f"an event stream may have {MAX_SUBSCRIPTIONS} matches")
    header = connection.headers.get("last-event-id")
    return [(topic, _event_id(header or after)) for topic, after in starts.items()]


def _event_id(text: str) -> EventId | None:
    try:
        return EventId.parse(text)
    except ValueError:
        return None


def _malformed(reason: str) -> Rejected:
    return Rejected(400, Cause.REQUEST, reason)
