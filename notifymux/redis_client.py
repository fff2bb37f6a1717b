"""Connections to Redis, synchronous and asynchronous.

redis-py's own retries are off: a call fails within seconds, and the caller decides whether to repeat it, because a
repeated append is harmless and a repeated publish is not.

Connections use RESP3, or RESP2 with a server that lacks HELLO.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from notifymux.background_call import in_background
from notifymux.lookup import look_up
from notifymux.redis_errors import FaultError, check_server, is_wrong_server, lacks_hello
from notifymux.redis_url import RedisUrl, RedisUrlError, Transport, parse_redis_url
from notifymux.tls_mismatch import tls_mismatch

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

    def read(self) -> RedisUrl:
        """Return what the URL says now.

        Raises:
            redis.ConnectionError: it can't be read, or says nothing that a connection can be made of.
        """
        try:
            return parse_redis_url(self._url())
        except RedisUrlError as error:
            raise RedisConnectionError(f"REDIS_URL: {error}") from None


_NEVER = redis.retry.Retry(NoBackoff(), 0)
_NO_MAINTENANCE = MaintNotificationsConfig(enabled=False)


def _options(url: RedisUrl) -> dict[str, Any]:
    """Return the options of a connection.

    Without driver_info and maintenance notifications connecting is one command, and one that every server knows.
    """
    return {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "driver_info": None,
        "maint_notifications_config": _NO_MAINTENANCE,
        "protocol": _RESP3,
        **({} if url.transport is Transport.UNIX else {"socket_keepalive": True}),
        **url.options,
    }


# Synchronous: connections that their owner keeps.


class SyncConnection(redis.connection.AbstractConnection):
    """A connection that remembers whether the server has said that it is not the primary."""

    is_wrong_server = False

    def connect(self) -> None:
        """Connect."""
        try:
            super().connect()  # type: ignore[no-untyped-call]
        except RedisError as error:
            if found := self._explain(error):
                raise found from error
            raise

    def _explain(self, error: RedisError) -> FaultError | None:
        """Return the reason for an error where it is another than the error says."""
        del error
        return None

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Greet the server."""
        try:
            super().on_connect_check_health(check_health)
        except ResponseError as error:
            if not lacks_hello(error):
                raise
            self.protocol = _RESP2
            super().on_connect_check_health(check_health)
        if int(self.protocol) == _RESP2:  # nothing may have been sent yet, and a port for TLS has not refused it
            self.send_command("PING", check_health=False)  # type: ignore[no-untyped-call]
            with suppress(ResponseError):  # this user may not; it is an answer all the same
                self.read_response()

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Return the next answer."""
        try:
            return super().read_response(*args, **options)
        except RedisError as error:
            self.is_wrong_server = self.is_wrong_server or is_wrong_server(error)
            raise


class _SyncTcp(SyncConnection, redis.Connection):
    def _explain(self, error: RedisError) -> FaultError | None:
        return tls_mismatch(self.host, self.port, error, encrypted=False)


class _SyncTls(SyncConnection, redis.SSLConnection):
    def _explain(self, error: RedisError) -> FaultError | None:
        return tls_mismatch(self.host, self.port, error, encrypted=True)


class _SyncUnix(SyncConnection, redis.UnixDomainSocketConnection):
    host, port = "", 0  # redis-py reads them where connecting takes too long


_SYNC_CLASSES: dict[Transport, Any] = {
    Transport.TCP: _SyncTcp,
    Transport.TLS: _SyncTls,
    Transport.UNIX: _SyncUnix,
}


def sync_connection(address: RedisAddress) -> SyncConnection:
    """Return a connection that leads to a primary. It blocks, and looks the name up.

    Raises:
        WrongServerError: it is no primary.
        redis.RedisError: Redis can't be reached or refuses.
    """
    url = address.read()
    connection: SyncConnection = _SYNC_CLASSES[url.transport](retry=_NEVER, **_options(url))
    try:
        connection.connect()
        check_server(connection.handshake_metadata or {})
    except BaseException:
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    return connection


def sync_client(url: str) -> redis.Redis:
    """Return a client for a program without an event loop, for any server. It connects at its first command.

    Raises:
        RedisUrlError: the URL is none.
    """
    parsed = parse_redis_url(url)
    options = _options(parsed) | {"protocol": _RESP2, "retry": _NEVER}
    return redis.Redis.from_pool(redis.ConnectionPool(_SYNC_CLASSES[parsed.transport], **options))


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

    async def connect(self) -> None:
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except RedisError as error:
            encrypted = isinstance(self, redis.asyncio.SSLConnection)
            ask = partial(tls_mismatch, self._resolved, self.port, error, encrypted=encrypted)
            if self._resolved and (found := await in_background(ask)):
                raise found from error
            raise

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = {**super()._connection_arguments(), "host": self._resolved}
        return {**arguments, "server_hostname": self.host} if "ssl" in arguments else arguments


class _AsyncTcp(_AsyncGreeting, _AsyncLookup):
    pass


class _AsyncTls(_AsyncGreeting, _AsyncLookup, redis.asyncio.SSLConnection):
    pass


class _AsyncUnix(_AsyncGreeting, redis.asyncio.UnixDomainSocketConnection):
    pass


_ASYNC_CLASSES: dict[Transport, Any] = {
    Transport.TCP: _AsyncTcp,
    Transport.TLS: _AsyncTls,
    Transport.UNIX: _AsyncUnix,
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
        url = self._address.read()
        retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        options = _options(url) | self._options
        return _ASYNC_CLASSES[url.transport](address=self._address, retry=retry, **options)


def async_client(address: RedisAddress, **options: Any) -> redis.asyncio.Redis:
    """Return a client for an event loop. It connects at its first command.

    `options` are passed to redis-py's connections.
    """
    return redis.asyncio.Redis.from_pool(_AsyncPool(address, **options))


def describe_redis(url: str) -> str:
    """Return a Redis URL without user, password and options, for log lines and pages."""
    without_query = url.partition("?")[0]
    return re.sub(r"//[^/]*@", "//", without_query)
