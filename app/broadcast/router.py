"""The match of an event, found without rebuilding the event's row."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from app.broadcast.match_id import match_from_json
from app.broadcast.messages import Update
from app.broadcast.queried_update import QueriedUpdate, query_parameters
from app.core.query_files import QueryFile
from notifymux.event import MUX_CHANNEL, NULL, Event


class _Row(msgspec.Struct):
    id: msgspec.Raw


class Router:
    """Makes an update for its match out of an event.

    Args:
        routing_key: the key of the payload whose value is the match id.
        latest_wins: channels whose rows are whole states, so that a newer event of a row may replace an older one.
        queries: of the channels whose updates carry the result of a query.
    """

    def __init__(
        self, routing_key: str, latest_wins: Collection[str] = (), queries: Mapping[str, QueryFile] | None = None
    ) -> None:
        self.routing_key, self._latest_wins = routing_key, frozenset(latest_wins)
        self._queries = queries or {}
        self._rows = msgspec.json.Decoder(_Row)
        raw, null = msgspec.Raw, msgspec.Raw(NULL)
        fields: list[tuple[str, type, Any]] = [("key", raw, null), ("operation", raw, null), ("data", raw, raw(b""))]
        payload = msgspec.defstruct("Payload", fields, rename={"key": routing_key})
        self._decoder = msgspec.json.Decoder(payload)

    def route(self, event: Event) -> Update | None:
        """Return the event as an update of its match; None if it has no match, so that no client gets it.

        That is an event on our own channel, or one whose payload names no match. A payload without `data` is taken as
        the row itself.
        """
        if event.channel == MUX_CHANNEL:
            return None
        payload = self._decode(event.payload)
        if payload is None:
            return None
        match = _match_text(bytes(payload.key))
        if match is None:
            return None
        data = payload.data or event.payload
        query = self._queries.get(event.channel)
        if query is not None:
            if query.deletes or bytes(payload.operation).upper() != b'"DELETE"':
                return self._queried(event, match, payload, data, query)
            if query.claims:
                data = msgspec.Raw(NULL)  # it is not for everybody
        return Update(
            b"",
            event.id,
            self._row(event.channel, data) if event.channel in self._latest_wins else None,
            match=match,
            channel=event.channel,
            size=len(event.payload),
            match_id=payload.key,
            operation=payload.operation,
            data=data,
        )

    def _queried(self, event: Event, match: str, payload: Any, data: msgspec.Raw, query: QueryFile) -> QueriedUpdate:
        parameters = query_parameters(query, match, event.payload)
        row = msgspec.json.encode((event.channel, parameters)) if event.channel in self._latest_wins else None
        return QueriedUpdate(
            b"",
            event.id,
            row,
            match=match,
            channel=event.channel,
            size=len(event.payload),
            match_id=payload.key,
            operation=payload.operation,
            data=data,
            query=query,
            parameters=parameters,
        )

    def has_key(self, payload: bytes) -> bool:
        """Whether a payload, a JSON object, has the routing key with a value that is not null."""
        decoded = self._decode(payload)
        return decoded is not None and bytes(decoded.key) != NULL

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


_match_text = lru_cache(maxsize=4096)(match_from_json)
