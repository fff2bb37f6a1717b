"""Commands that have been sent to Redis, whose answers nobody waits for."""

import select
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from notifymux.sync_connection import TIMEOUT_SECONDS


class RedisCall:
    """The commands of a pipeline, sent at once over the listener's one connection. There may be one at a time.

    Args:
        client: of Redis; its pool has one connection.
        pipeline: holds the commands. It is not executed: that would wait.
        parse: makes the result out of the answers.

    Raises:
        redis.RedisError: there is no connection, or it is lost.
        ValueError: the pipeline has no command, so there would be no answer.
    """

    def __init__(self, client: redis.Redis, pipeline: Pipeline, parse: Callable[[Sequence[Any]], Any]) -> None:
        self._client: Any = client
        self._commands, self._parse = list(pipeline.command_stack), parse
        if not self._commands:
            raise ValueError("there is nothing to send to Redis")
        self._connection = _connection_of(client)
        self._until = time.monotonic() + TIMEOUT_SECONDS
        try:
            packed = self._connection.pack_commands([arguments for arguments, _ in self._commands])
            self._connection.send_packed_command(packed)
        except (RedisConnectionError, RedisTimeoutError, OSError):
            self._connection.disconnect()
            raise

    def fileno(self) -> int:
        """The socket, to wait on."""
        return int(self._connection._sock.fileno())  # noqa: SLF001 - redis-py has no other way to wait on it

    @property
    def is_done(self) -> bool:
        """Whether an answer is here, or is not waited for any longer."""
        return self._has_first(0.0) or time.monotonic() >= self._until

    def result(self) -> Any:
        """Return the result; wait for the answers, within Redis's timeout.

        Raises:
            redis.RedisError: Redis refuses one of the commands, or is away.
        """
        try:
            answers = [self._answer(number, *command) for number, command in enumerate(self._commands)]
        finally:
            self._client.connection_pool.release(self._connection)
        if refused := next((answer for answer in answers if isinstance(answer, redis.ResponseError)), None):
            raise refused
        return self._parse(answers)

    def _answer(self, number: int, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        try:
            if not self._is_here(number):
                raise RedisTimeoutError("Timeout reading from socket")  # noqa: TRY301 - handled as redis-py's own
            return self._client.parse_response(self._connection, arguments[0], **options)
        except redis.ResponseError as error:
            return error
        except (RedisConnectionError, RedisTimeoutError, OSError):
            self._connection.disconnect()  # an answer that comes too late must not be taken for another one's
            raise

    def _is_here(self, number: int) -> bool:
        """Wait for an answer. Those after the first may have been read with it, which only redis-py knows."""
        left = max(0.0, self._until - time.monotonic())
        return self._has_first(left) if number == 0 else bool(self._connection.can_read(timeout=left))

    def _has_first(self, seconds: float) -> bool:
        """Wait for the first answer, or the end of the connection. `can_read` would take four system calls."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def _connection_of(client: redis.Redis) -> Any:
    return client.connection_pool.get_connection()


class CallOf:
    """A call that was made at once: its result, or the error that it raised.

    Args:
        call: makes it.
    """

    is_done = True

    def __init__(self, call: Callable[[], Any]) -> None:
        self._result = call()

    def result(self) -> Any:
        """Return it."""
        return self._result
