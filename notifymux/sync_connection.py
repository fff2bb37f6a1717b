"""Synchronous connections to Redis, which their owner keeps; and the options of connections of both kinds.

redis-py's own retries are off: a call fails within seconds, and the caller decides whether to repeat it, because a
repeated append is harmless and a repeated publish is not.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from notifymux.redis_errors import FaultError, is_wrong_server, lacks_hello
from notifymux.redis_url import Address, RedisUrl, Transport
from notifymux.tls_mismatch import tls_mismatch

TIMEOUT_SECONDS = 2.0  # for connecting, and for each answer
RESP2, RESP3 = 2, 3

NEVER = redis.retry.Retry(NoBackoff(), 0)
NO_MAINTENANCE = MaintNotificationsConfig(enabled=False)


def connection_options(url: RedisUrl) -> dict[str, Any]:
    """Return the options of a connection.

    Without driver_info and maintenance notifications connecting is one command, and one that every server knows.
    """
    return {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "driver_info": None,
        "maint_notifications_config": NO_MAINTENANCE,
        "protocol": RESP3,
        **({} if url.transport is Transport.UNIX else {"socket_keepalive": True}),
        **url.options,
    }


class SyncConnection(redis.connection.AbstractConnection):
    """A connection that remembers whether the server has said that it is not the primary."""

    is_wrong_server = False
    found: Address | None = None  # where it leads, if others were asked for it

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
            self.protocol = RESP2
            super().on_connect_check_health(check_health)
        if int(self.protocol) == RESP2:  # nothing may have been sent yet, and a port for TLS has not refused it
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
    """A connection over TCP. `find`, if there is one, says where to."""

    _encrypted = False

    def __init__(self, *, find: Callable[[], Address] | None = None, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._find = find

    def _connect(self) -> Any:
        if self._find:
            self.host, self.port = self.found = self._find()
        return super()._connect()  # type: ignore[no-untyped-call]

    def _explain(self, error: RedisError) -> FaultError | None:
        return tls_mismatch(self.host, self.port, error, encrypted=self._encrypted)


class _SyncTls(_SyncTcp, redis.SSLConnection):
    _encrypted = True


class _SyncUnix(SyncConnection, redis.UnixDomainSocketConnection):
    host, port = "", 0  # redis-py reads them where connecting takes too long


SYNC_CLASSES: dict[Transport, Any] = {
    Transport.TCP: _SyncTcp,
    Transport.TLS: _SyncTls,
    Transport.UNIX: _SyncUnix,
}
