"""Connections to the primary of a Redis, synchronous and asynchronous (`notifymux.sync_connection`).

Connections use RESP3, or RESP2 with a server that lacks HELLO.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from notifymux.background_call import in_background
from notifymux.discovery import Discovery, discover, discovery
from notifymux.lookup import look_up
from notifymux.redis_errors import FaultError, check_server, is_wrong_server, lacks_hello
from notifymux.redis_keys import DEFAULT_NAMESPACE, RedisNames
from notifymux.redis_url import Address, RedisUrl, RedisUrlError, Transport, parse_redis_url
from notifymux.sync_connection import (
    NEVER,
    RESP2,
    RESP3,
    SYNC_CLASSES,
    SyncConnection,
    connection_options,
)
from notifymux.tls_mismatch import tls_mismatch


class RedisAddress:
    """The address of one Redis, shared by all connections that have to lead to the same server.

    Args:
        url: of `REDIS_URL`'s form; or a function that returns it, called for every connection, so that a secret may
            change. It may raise RedisConnectionError.
        key: in a Cluster, the node that has its hash slot is wanted.
    """

    def __init__(self, url: str | Callable[[], str], key: str = RedisNames(DEFAULT_NAMESPACE).log) -> None:
        self._url: Callable[[], str] = (lambda: url) if isinstance(url, str) else url
        self._key = key
        self._discovery: tuple[RedisUrl, Discovery | None] | None = None  # of the last URL
        self._found: Address | None = None  # where the last connection led, if others were asked for it
        self.generation = 0  # of connections; those of an earlier one are not used again

    def leave(self) -> None:
        """Have every connection made anew: the server that they lead to is the wrong one."""
        self.generation += 1

    def leads_to(self, found: Address) -> None:
        """Record where a new connection leads. If that is elsewhere, those before are left.

        They may never learn it themselves: a node of a Cluster that has lost the slot goes on passing messages on.
        """
        if self._found not in {None, found}:
            self.leave()
        self._found = found

    def read(self) -> RedisUrl:
        """Return what the URL says now.

        Raises:
            redis.ConnectionError: it can't be read, or says nothing that a connection can be made of.
        """
        try:
            return parse_redis_url(self._url())
        except RedisUrlError as error:
            raise RedisConnectionError(f"REDIS_URL: {error}") from None

    def discovery(self, url: RedisUrl) -> Discovery | None:
        """Return whom to ask where the primary is; None if the URL has its address.

        It is kept for as long as the URL stays the same, because it learns who answers.
        """
        if self._discovery is None or self._discovery[0] != url:
            self._discovery = url, discovery(url, self._key)
        return self._discovery[1]


def sync_connection(address: RedisAddress) -> SyncConnection:
    """Return a connection that leads to a primary. It blocks, and looks the name up.

    Raises:
        WrongServerError: it is no primary.
        redis.RedisError: Redis can't be reached or refuses.
    """
    url = address.read()
    options = connection_options(url) | _found_by(address.discovery(url))
    connection: SyncConnection = SYNC_CLASSES[url.transport](retry=NEVER, **options)
    try:
        connection.connect()
        check_server(connection.handshake_metadata or {}, is_cluster=url.is_cluster)
    except BaseException:
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    return connection


def sync_client(address: RedisAddress) -> redis.Redis:
    """Return a client for a program without an event loop, for any server. It connects at its first command.

    Raises:
        redis.ConnectionError: the URL is none.
    """
    url = address.read()
    options = connection_options(url) | {"protocol": RESP2, "retry": NEVER} | _found_by(address.discovery(url))
    return redis.Redis.from_pool(redis.ConnectionPool(SYNC_CLASSES[url.transport], **options))


def _found_by(asked: Discovery | None) -> dict[str, Any]:
    return {"find": asked.find} if asked else {}


# Asynchronous.


class _AsyncGreeting(redis.asyncio.connection.AbstractConnection):
    """A connection to a primary. If the server says that it is none, or no longer, its address is left."""

    def __init__(self, *, address: RedisAddress, is_cluster: bool, **options: Any) -> None:
        self.address, self.generation = address, address.generation
        self._is_cluster = is_cluster
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
            self.protocol = RESP2
            await super().on_connect_check_health(check_health)
        if int(self.protocol) == RESP3:
            await self.send_command("HELLO", check_health=False)
            check_server(await self.read_response(), is_cluster=self._is_cluster)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except RedisError as error:
            if is_wrong_server(error) and self.is_current:
                self.address.leave()
            raise


class _AsyncLookup(redis.asyncio.Connection):
    """Finds the server and looks its name up without the loop's executor (`notifymux.shared_call`)."""

    address: RedisAddress
    generation: int
    _resolved = ""

    def __init__(self, *, asked: Discovery | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._asked = asked

    async def _connect(self) -> None:
        self._resolved = ""
        if self._asked:
            self.host, self.port = found = await discover(self._asked)
            self.address.leads_to(found)
            self.generation = self.address.generation
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
            if isinstance(error.__cause__, FaultError):  # redis-py has made it an error without a fault
                raise error.__cause__ from None
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
        super().__init__(**options, protocol=RESP3)
        self._address, self._options = address, options

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        idle: list[Any] = self._available_connections
        for connection in [each for each in idle if not (each.is_connected and each.is_current)]:
            idle.remove(connection)
            await connection.disconnect(nowait=True)
        return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]

    def make_connection(self) -> Any:
        url = self._address.read()
        options = connection_options(url) | self._options
        if asked := self._address.discovery(url):
            options["asked"] = asked
        retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        cls = _ASYNC_CLASSES[url.transport]
        return cls(address=self._address, is_cluster=url.is_cluster, retry=retry, **options)


def async_client(address: RedisAddress, **options: Any) -> redis.asyncio.Redis:
    """Return a client for an event loop. It connects at its first command.

    `options` are passed to redis-py's connections.
    """
    return redis.asyncio.Redis.from_pool(_AsyncPool(address, **options))


def describe_redis(url: str) -> str:
    """Return a Redis URL without user, password and options, for log lines and pages."""
    without_query = url.partition("?")[0]
    return re.sub(r"//[^/]*@", "//", without_query)
