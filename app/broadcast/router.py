"""The topics of an event, found without rebuilding the event's row."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from app.broadcast.match_id import match_from_json
from app.broadcast.messages import Update
from app.broadcast.queried_update import QueriedUpdate, query_parameters
from app.broadcast.topic import KeyValue, Topic
from app.core.query_files import QueryFile
from notifymux.event import MUX_CHANNEL, NULL, Event

Topics = tuple[Topic, ...]
Others = tuple[tuple[str, msgspec.Raw], ...]


class _Row(msgspec.Struct):
    id: msgspec.Raw


class Router:
    """Makes an update for its topics out of an event.

    Args:
        routing_key: the key of the payload whose value is the match id.
        latest_wins: channels whose rows are whole states, so that a newer event of a row may replace an older one.
        queries: of the channels whose updates carry the result of a query.
        other_keys: further keys of the payload whose values are topics.
    """

    def __init__(
        self,
        routing_key: str,
        latest_wins: Collection[str] = (),
        queries: Mapping[str, QueryFile] | None = None,
        *,
        other_keys: Sequence[str] = (),
    ) -> None:
        self.keys, self._latest_wins = (routing_key, *other_keys), frozenset(latest_wins)
        self._other_fields = {f"other_{number}": key for number, key in enumerate(other_keys)}
        self._queries = queries or {}
        self._rows = msgspec.json.Decoder(_Row)
        raw, null = msgspec.Raw, msgspec.Raw(NULL)
        fields: list[tuple[str, type, Any]] = [("key", raw, null), ("operation", raw, null), ("data", raw, raw(b""))]
        fields += [(name, raw, null) for name in self._other_fields]
        payload = msgspec.defstruct("Payload", fields, rename={"key": routing_key, **self._other_fields})
        self._decoder = msgspec.json.Decoder(payload)

    def route(self, event: Event) -> Update | None:
        """Return the event as an update of its topics; None if it has none, so that no client gets it.

        That is an event on our own channel, or one whose payload names no topic. A payload without `data` is taken as
        the row itself.
        """
        if event.channel == MUX_CHANNEL:
            return None
        payload = self._decode(event.payload)
        if payload is None:
            return None
        topics = _match_topics(bytes(payload.key))
        others: Others = ()
        if self._other_fields:
            others = self._others(payload)
            topics += tuple(filter(None, (_key_value(key, bytes(value)) for key, value in others)))
        if not topics:
            return None
        data = payload.data or event.payload
        query = self._queries.get(event.channel)
        if query is not None:
            if query.deletes or bytes(payload.operation).upper() != b'"DELETE"':
                return self._queried(event, (topics, others), payload, data, query)
            if query.claims:
                data = msgspec.Raw(NULL)  # it is not for everybody
        return Update(
            b"",
            event.id,
            self._row(event.channel, data) if event.channel in self._latest_wins else None,
            topics=topics,
            channel=event.channel,
            size=len(event.payload),
            match_id=payload.key,
            operation=payload.operation,
            data=data,
            others=others,
        )

    def _queried(
        self, event: Event, keys: tuple[Topics, Others], payload: Any, data: msgspec.Raw, query: QueryFile
    ) -> QueriedUpdate:
        topics, others = keys
        parameters = query_parameters(query, topics, event.payload)
        row = msgspec.json.encode((event.channel, parameters)) if event.channel in self._latest_wins else None
        return QueriedUpdate(
            b"",
            event.id,
            row,
            topics=topics,
            channel=event.channel,
            size=len(event.payload),
            match_id=payload.key,
            operation=payload.operation,
            data=data,
            others=others,
            query=query,
            parameters=parameters,
        )

    def has_key(self, payload: bytes) -> bool:
        """Whether a payload, a JSON object, has one of the keys with a value that is not null."""
        decoded, fields = self._decode(payload), ("key", *self._other_fields)
        return decoded is not None and any(bytes(getattr(decoded, field)) != NULL for field in fields)

    def _others(self, payload: Any) -> Others:
        """Return the other keys whose values are topics."""
        values = [(key, getattr(payload, name)) for name, key in self._other_fields.items()]
        return tuple((key, value) for key, value in values if _key_value(key, bytes(value)))

    def _decode(self, payload: bytes | msgspec.Raw) -> Any:
        """Return the keys of a payload that matter; None if it is no object."""
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            return None

    def _row(self, channel: str, data: msgspec.Raw) -> bytes | None:
        try:
            return channel.encode() + b"\0" + bytes(self._rows.decode(data).id)
        except (msgspec.DecodeError, RecursionError):
            return None  # the row has no id


@lru_cache(maxsize=4096)
def _match_topics(value: bytes) -> Topics:
    match = match_from_json(value)
    return () if match is None else (match,)


@lru_cache(maxsize=4096)
def _key_value(key: str, value: bytes) -> KeyValue | None:
    text = match_from_json(value)
    return None if text is None else KeyValue(key, text)
