"""Whether a Redis that can't be greeted speaks TLS where REDIS_URL doesn't say so, or the reverse.

A server that is greeted in the wrong protocol says nothing of it: it ends the connection, or waits for the rest of what
it takes for a command.
"""

import socket
import ssl

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from notifymux.redis_errors import Fault, FaultError

_TIMEOUT_SECONDS = 1.0

_SPEAKS_TLS = Fault("this port of Redis takes TLS only", "begin REDIS_URL with rediss://")
_SPEAKS_NO_TLS = Fault("this port of Redis takes no TLS", "begin REDIS_URL with redis://, or give the port for TLS")


def tls_mismatch(host: str, port: int, error: Exception, *, encrypted: bool) -> FaultError | None:
    """Return what `error`, of a connection that could not be made, comes from if it is this. It blocks, for seconds.

    The server is asked in the other protocol where the error may come from that: a server that refuses connections is
    not, and neither is one that is silent where plain commands were sent, since one that takes TLS only never is.
    """
    if isinstance(error, FaultError) or not isinstance(
        error, RedisTimeoutError | RedisConnectionError | InvalidResponse
    ):
        return None
    if not encrypted and isinstance(error, RedisTimeoutError):
        return None
    try:
        with socket.create_connection((host, port), _TIMEOUT_SECONDS) as connection:
            if encrypted:
                return FaultError(_SPEAKS_NO_TLS) if _answers_plainly(connection) else None
            return FaultError(_SPEAKS_TLS) if _answers_in_tls(connection) else None
    except (OSError, UnicodeError):
        return None


def _answers_plainly(connection: socket.socket) -> bool:
    connection.sendall(b"PING\r\n")
    return connection.recv(1) in {b"+", b"-"}  # PONG, or an error, for example that a password is needed


def _answers_in_tls(connection: socket.socket) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent, nor read
    try:
        context.wrap_socket(connection).close()
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it refuses, in TLS
    return True
