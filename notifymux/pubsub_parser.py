"""A parser for redis-py that returns all pub/sub messages of one read together."""

from typing import Any

from redis._parsers.hiredis import NOT_ENOUGH_DATA, _AsyncHiredisParser
from redis.exceptions import ConnectionError as RedisConnectionError


class BatchParser(_AsyncHiredisParser):
    """A `parser_class` for redis-py's connections: a message's data is a list of texts instead of one text.

    The list holds the messages on one channel that arrived in one read (at most 64 KiB), in order. redis-py's own
    parser returns one message per call, which costs a worker more time than everything else it does with a message.
    """

    def __init__(self, socket_read_size: int) -> None:
        super().__init__(socket_read_size)
        self._next: Any = NOT_ENOUGH_DATA  # what was parsed already and belongs to the next response

    def on_connect(self, connection: Any) -> None:
        """Start with a new connection."""
        super().on_connect(connection)  # type: ignore[no-untyped-call]
        self._next = NOT_ENOUGH_DATA

    async def read_response(self, disable_decoding: bool = False, push_request: bool = False) -> Any:
        """Return the next response."""
        response, self._next = self._next, NOT_ENOUGH_DATA
        if response is NOT_ENOUGH_DATA:
            response = await super().read_response(disable_decoding, push_request)
        elif isinstance(response, RedisConnectionError):
            raise response
        if not _is_message(response):
            return response
        kind, channel, text = response
        return [kind, channel, [text, *self._following(channel)]]

    def _following(self, channel: bytes) -> list[bytes]:
        """Return the texts of the messages on `channel` that follow in the buffer."""
        reader: Any = self._reader
        texts = []
        while _is_message(more := reader.gets()) and more[1] == channel:
            texts.append(more[2])
        self._next = more
        return texts


def _is_message(response: Any) -> bool:
    return isinstance(response, list) and len(response) == 3 and response[0] == b"message"  # noqa: PLR2004
