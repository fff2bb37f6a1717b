"""An update whose data is the result of a query, since the notification carries ids only."""

from typing import Any

import msgspec

from app.broadcast.messages import MESSAGE_TYPES, ROW_NAMES, Update
from app.core.query_files import QueryFile
from notifymux.event import NULL

_PROTOCOL_KEYS = ("type", "id", "channel", "match_id", "operation", "data", "error")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class QueriedUpdate(Update, gc=False, kw_only=True):
    """An update whose text can be built once its query has a result, or has failed.

    Two updates with equal `parameters` ask for the same: the newer one covers the older one.
    """

    query: QueryFile
    parameters: tuple[tuple[str, str | None], ...]  # those that the query names, by name
    heard_at: float = 0.0  # when the first one that it covers was received, on the monotonic clock
    is_done: bool = False
    is_covered: bool = False
    result: bytes | None = None
    error: str | None = None

    def set_result(self, result: bytes) -> None:
        """Set the JSON that the query returned.

        Raises:
            msgspec.DecodeError: its keys have to stand beside `type`, but it is no object.
        """
        if self.query.spread:
            _object.decode(result)
        self.result, self.is_done = result, True

    def fail(self, error: str) -> None:
        """Let the payload's own data go out, with why."""
        self.error, self.is_done = error, True

    @property
    def text(self) -> bytes:
        """The JSON, on one line."""
        if not self.built:
            self.built = self._build()
            self.match_id = self.operation = self.data = msgspec.Raw(b"")
            self.result = None
        return self.built

    def _build(self) -> bytes:
        data = self.data if self.result is None else msgspec.Raw(self.result)
        spread: dict[str, Any] = {}
        if self.query.spread and self.result is not None:
            spread, data = _object.decode(self.result), msgspec.Raw(NULL)
        message: dict[str, Any] = {
            "type": self.query.message or MESSAGE_TYPES.get(self.channel, self.channel),
            "id": self.event_id,
            "channel": self.channel,
            "match_id": self.match_id,
            "operation": self.operation,
            "data": data,
        }
        if self.error is not None:
            message["error"] = self.error
        if (again := ROW_NAMES.get(self.channel)) and not spread:
            message[again] = data
        return msgspec.json.encode(message | {key: spread[key] for key in spread if key not in _PROTOCOL_KEYS})


class _Change(msgspec.Struct):
    operation: msgspec.Raw = msgspec.Raw(NULL)
    new_id: msgspec.Raw = msgspec.Raw(NULL)
    old_id: msgspec.Raw = msgspec.Raw(NULL)


_change = msgspec.json.Decoder(_Change)


def query_parameters(query: QueryFile, match: str, payload: msgspec.Raw) -> tuple[tuple[str, str | None], ...]:
    """Return the parameters that a query names, for an event.

    Args:
        query: the channel's.
        match: the match id as it is in a path.
        payload: the event's, a JSON object.
    """
    change = _change.decode(payload)
    values = {
        "match_id": match,
        "operation": _sql_text(change.operation),
        "new_id": _sql_text(change.new_id),
        "old_id": _sql_text(change.old_id),
        "payload": bytes(payload).decode(),
    }
    return tuple((name, values[name]) for name in sorted(query.parameters))


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
