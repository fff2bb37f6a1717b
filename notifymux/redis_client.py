"""Connections to Redis, synchronous and asynchronous.

redis-py's own retries are off: a call fails within seconds, and the caller decides whether to repeat it, because a
repeated append is harmless and a repeated publish is not.

Connections use RESP3, or RESP2 with a server that lacks HELLO.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.connection import parse_url as parse_async_url
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from notifymux.lookup import look_up
from notifymux.redis_errors import check_server, is_wrong_server, lacks_hello

TIMEOUT_SECONDS = 2.0  # for connecting, and for each answer

_RESP2, _RESP3 = 2, 3


class RedisAddress:
    """The address of one Redis, shared by all connections that have to lead to the same server.

    Args:
        url: `redis://`, `rediss://` or `unix://`; or a function that returns it, called for every connection, so that a
            secret may change. It may raise RedisConnectionError.
    """

    def __init__(self, url: str | Callable[[], str]) -> None:
        self._url: Callable[[], str] = (lambda: url) if isinstance(url, str) else url
        self.generation = 0  # of connections; those of an earlier one are not used again

    def leave(self) -> None:
        """Have every connection made anew: the server that they lead to is the wrong one."""
        self.generation += 1

    def options(self, parse: Callable[[str], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the options of a connection, with `connection_class` unless it is plain TCP.

        Raises:
            redis.ConnectionError: the URL can't be read, or is none.
        """
        url = self._url()
        try:
            parsed = parse(url)
        except ValueError:  # its text may contain a part of the password
            raise RedisConnectionError("REDIS_URL is not the URL of a Redis") from None
        return {**_OPTIONS, **parsed}


_NO_MAINTENANCE = MaintNotificationsConfig(enabled=False)
# Without driver_info and maintenance notifications connecting is one command, and one that every server knows.
_OPTIONS: dict[str, Any] = {
    "socket_timeout": TIMEOUT_SECONDS,
    "socket_connect_timeout": TIMEOUT_SECONDS,
    "socket_keepalive": True,
    "driver_info": None,
    "maint_notifications_config": _NO_MAINTENANCE,
    "protocol": _RESP3,
}


# Synchronous: connections that their owner keeps.


class SyncConnection(redis.connection.AbstractConnection):
    """A connection that remembers whether the server has said that it is not the primary."""

    is_wrong_server = False

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Greet the server."""
        try:
            super().on_connect_check_health(check_health)
        except ResponseError as error:
            if not lacks_hello(error):
                raise
            self.protocol = _RESP2
            super().on_connect_check_health(check_health)

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Return the next answer."""
        try:
            return super().read_response(*args, **options)
        except RedisError as error:
            self.is_wrong_server = self.is_wrong_server or is_wrong_server(error)
            raise


class _SyncTcp(SyncConnection, redis.Connection):
    pass


class _SyncTls(SyncConnection, redis.SSLConnection):
    pass


class _SyncUnix(SyncConnection, redis.UnixDomainSocketConnection):
    pass


_SYNC_CLASSES: dict[Any, Any] = {redis.SSLConnection: _SyncTls, redis.UnixDomainSocketConnection: _SyncUnix}


def sync_connection(address: RedisAddress) -> SyncConnection:
    """Return a connection that leads to a primary. It blocks, and looks the name up.

    Raises:
        WrongServerError: it is no primary.
        redis.RedisError: Redis can't be reached or refuses.
    """
    options = address.options(parse_url)
    connection_class = _SYNC_CLASSES.get(options.pop("connection_class", None), _SyncTcp)
    connection: SyncConnection = connection_class(retry=redis.retry.Retry(NoBackoff(), 0), **options)
    try:
        connection.connect()  # type: ignore[no-untyped-call]
        check_server(connection.handshake_metadata or {})
    except BaseException:
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    return connection


def sync_client(url: str) -> redis.Redis:
    """Return a client for a program without an event loop, for any server. It connects at its first command."""
    options = {**_OPTIONS, "protocol": _RESP2, "retry": redis.retry.Retry(NoBackoff(), 0)}
    return redis.Redis.from_url(url, **options)


# Asynchronous.


class _AsyncGreeting(redis.asyncio.connection.AbstractConnection):
    """A connection to a primary. If the server says that it is none, or no longer, its address is left."""

    def __init__(self, *, address: RedisAddress, **options: Any) -> None:
        self.address, self.generation = address, address.generation
        super().__init__(**options)

    @property
    def is_current(self) -> bool:
        """Whether it leads where a new connection would lead, as far as is known."""
        return self.generation == self.address.generation

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        try:
            await super().on_connect_check_health(check_health)
        except ResponseError as error:
            if not lacks_hello(error):
                raise
            self.protocol = _RESP2
            await super().on_connect_check_health(check_health)
        if int(self.protocol) == _RESP3:
            await self.send_command("HELLO", check_health=False)
            check_server(await self.read_response())

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except RedisError as error:
            if is_wrong_server(error) and self.is_current:
                self.address.leave()
            raise


class _AsyncLookup(redis.asyncio.Connection):
    """Looks names up without the loop's executor (`notifymux.lookup`)."""

    _resolved = ""

    async def _connect(self) -> None:
        *others, last = await look_up(self.host, self.port)
        for self._resolved in others:
            try:
                await super()._connect()  # type: ignore[no-untyped-call]
            except OSError:
                continue
            return
        self._resolved = last
        await super()._connect()  # type: ignore[no-untyped-call]

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = {**super()._connection_arguments(), "host": self._resolved}
        return {**arguments, "server_hostname": self.host} if "ssl" in arguments else arguments


class _AsyncTcp(_AsyncGreeting, _AsyncLookup):
    pass


class _AsyncTls(_AsyncGreeting, _AsyncLookup, redis.asyncio.SSLConnection):
    pass


class _AsyncUnix(_AsyncGreeting, redis.asyncio.UnixDomainSocketConnection):
    pass


_ASYNC_CLASSES: dict[Any, Any] = {
    redis.asyncio.SSLConnection: _AsyncTls,
    redis.asyncio.UnixDomainSocketConnection: _AsyncUnix,
}


class _AsyncPool(redis.asyncio.ConnectionPool):
    """A pool that reads the URL for each connection, and reuses none that was lost or leads to a server left."""

    def __init__(self, address: RedisAddress, **options: Any) -> None:
        super().__init__(**options, protocol=_RESP3)
        self._address, self._options = address, options

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        idle: list[Any] = self._available_connections
        for connection in [each for each in idle if not (each.is_connected and each.is_current)]:
            idle.remove(connection)
            await connection.disconnect(nowait=True)
        return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]

    def make_connection(self) -> Any:
        options = self._address.options(parse_async_url)
        connection_class = _ASYNC_CLASSES.get(options.pop("connection_class", None), _AsyncTcp)
        retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        return connection_class(address=self._address, retry=retry, **options, **self._options)


def async_client(address: RedisAddress, **options: Any) -> redis.asyncio.Redis:
    """Return a client for an event loop. It connects at its first command.

    `options` are passed to redis-py's connections.
    """
    return redis.asyncio.Redis.from_pool(_AsyncPool(address, **options))


def describe_redis(url: str) -> str:
    """Return a Redis URL without user, password and options, for log lines and pages."""
    without_query = url.partition("?")[0]
    return re.sub(r"//[^/]*@", "//", without_query)
