"""Reads a subscription as fast as it comes: all messages of one read at once."""

from typing import Any

from redis._parsers.hiredis import NOT_ENOUGH_DATA, _AsyncHiredisParser
from redis.exceptions import ConnectionError as RedisConnectionError


class BatchParser(_AsyncHiredisParser):
    """A `parser_class` for redis-py's connections, by which a subscription's message has a list of texts as its data.

    These are the messages on one channel that were in one read (64 KiB at most), in order. redis-py's own way hands
    each on by itself, which takes a worker longer than everything else it does with it.
    """

    def __init__(self, socket_read_size: int) -> None:
        super().__init__(socket_read_size)
        self._next: Any = NOT_ENOUGH_DATA  # what was parsed and belongs to the next response

    def on_connect(self, connection: Any) -> None:
        """Begins anew."""
        super().on_connect(connection)  # type: ignore[no-untyped-call]
        self._next = NOT_ENOUGH_DATA

    async def read_response(self, disable_decoding: bool = False, push_request: bool = False) -> Any:
        """The next response."""
        response, self._next = self._next, NOT_ENOUGH_DATA
        if response is NOT_ENOUGH_DATA:
            response = await super().read_response(disable_decoding, push_request)
        elif isinstance(response, RedisConnectionError):
            raise response
        if not _is_message(response):
            return response
        kind, channel, text = response
        return [kind, channel, [text, *self._rest(channel)]]

    def _rest(self, channel: bytes) -> list[bytes]:
        reader: Any = self._reader
        texts = []
        while _is_message(more := reader.gets()) and more[1] == channel:
            texts.append(more[2])
        self._next = more
        return texts


def _is_message(response: Any) -> bool:
    return isinstance(response, list) and len(response) == 3 and response[0] == b"message"  # noqa: PLR2004
