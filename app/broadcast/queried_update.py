"""An update whose data is the result of a query, since the notification carries ids only."""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.broadcast.messages import MESSAGE_TYPES, ROW_NAMES, Message, Update
from app.broadcast.topic import Topic, topic_name
from app.core.query_files import QueryFile
from notifymux.event import NULL

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class QueriedUpdate(Update, gc=False, kw_only=True):
    """An update that is shown to clients once its query has a result for their claims, or has failed.

    Two updates with equal `parameters` ask for the same: the newer one covers the older one.
    """

    query: QueryFile
    parameters: tuple[tuple[str, str | None], ...]  # those that the query names, by name, without the claims
    heard_at: float = 0.0  # when the first one that it covers was received, on the monotonic clock
    is_covered: bool = False
    shown: dict[str, Message] = msgspec.field(default_factory=dict)  # by the claims that the query names

    def is_fetched_for(self, claims: str) -> bool:
        """Whether `shown_to` has something for clients with these claims."""
        return self.query.claims.of(claims) in self.shown

    def shown_to(self, claims: str) -> Message:
        """Return the message for clients with these claims.

        Raises:
            KeyError: the query has not run for them.
        """
        return self.shown[self.query.claims.of(claims)]

    def show(self, claims: str, result: bytes) -> int:
        """Set the JSON that the query returned for clients with these claims; return the update's size in memory.

        Raises:
            msgspec.DecodeError: its keys have to stand beside `type`, but it is no object.
        """
        return self._add(claims, self._message(msgspec.Raw(result)))

    def fail(self, claims: str, error: str) -> int:
        """Show why there is no result, with the payload's own data if the query shows the same to everybody.

        Return the update's size in memory.
        """
        message = self._build({"data": msgspec.Raw(NULL) if self.query.claims else self.data, "error": error})
        return self._add(claims, message | self._row_again(message["data"]))

    def _message(self, result: msgspec.Raw) -> dict[str, Any]:
        if not self.query.spread:
            return self._build({"data": result}) | self._row_again(result)
        ours = self._build({"data": msgspec.Raw(NULL)})
        return ours | {key: value for key, value in _object.decode(result).items() if key not in {*ours, "error"}}

    def _build(self, shown: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": self.query.message or MESSAGE_TYPES.get(self.channel, self.channel),
            "id": self.event_id,
            "channel": self.channel,
            "match_id": self.match_id,
            **dict(self.others),
            "operation": self.operation,
            **shown,
        }

    def _row_again(self, data: msgspec.Raw) -> dict[str, Any]:
        return {again: data} if (again := ROW_NAMES.get(self.channel)) else {}

    def _add(self, claims: str, message: dict[str, Any]) -> int:
        text = msgspec.json.encode(message)
        self.shown[self.query.claims.of(claims)] = Message(text, self.event_id, self.row)
        if self.query.claims:
            return self.size + len(text)
        self.match_id = self.operation = self.data = msgspec.Raw(b"")  # all are shown this one
        self.others = ()
        return len(text)


class _Change(msgspec.Struct):
    operation: msgspec.Raw = msgspec.Raw(NULL)
    new_id: msgspec.Raw = msgspec.Raw(NULL)
    old_id: msgspec.Raw = msgspec.Raw(NULL)


_change = msgspec.json.Decoder(_Change)


def query_parameters(
    query: QueryFile, topics: Sequence[Topic], payload: msgspec.Raw
) -> tuple[tuple[str, str | None], ...]:
    """Return the parameters that a query names, for an event, without the claims.

    Args:
        query: the channel's.
        topics: the event's.
        payload: the event's, a JSON object.
    """
    change = _change.decode(payload)
    values: dict[str, str | None] = {
        **dict(map(topic_name, topics)),
        "operation": _sql_text(change.operation),
        "new_id": _sql_text(change.new_id),
        "old_id": _sql_text(change.old_id),
        "payload": bytes(payload).decode(),
    }
    return tuple((name, values.get(name)) for name in sorted(query.parameters - {"claims"}))


def _sql_text(value: msgspec.Raw) -> str | None:
    """Return a JSON value as the text of a SQL literal: a string's characters, NULL for null, else the JSON."""
    raw = bytes(value)
    if raw == NULL:
        return None
    try:
        text: str = msgspec.json.decode(raw) if raw.startswith(b'"') else raw.decode()
    except msgspec.DecodeError:
        return raw.decode()  # half of a surrogate pair, which PostgreSQL has no character for
    return text
