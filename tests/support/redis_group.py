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

    @property
    @abstractmethod
    def url(self) -> str:
        """As REDIS_URL has it."""

    @property
    @abstractmethod
    def pair(self) -> tuple[RedisServer, RedisServer]:
        """The primary that has the keys, and its replica."""

    @abstractmethod
    def rejoin(self, server: RedisServer) -> None:
        """Start a primary again that was killed, as a replica of the one that was promoted; wait until all know it."""
