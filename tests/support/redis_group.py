"""Redis servers that start and end together."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from tests.support.redis_server import RedisServer


class RedisGroup(ABC):
    """Several servers, which know each other once the block has begun."""

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        self._servers, self._stack = servers, ExitStack()

    def __enter__(self) -> Self:
        try:
            for server in self._servers:
                self._stack.enter_context(server)
            self.introduce()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def introduce(self) -> None:
        """Have the servers know each other."""
