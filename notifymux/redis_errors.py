"""What Redis's errors mean: the fault and its remedy in one line, and whether another server is wanted.

Every error is an outage: what a server refuses now it may grant later, and an address may lead elsewhere later.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from notifymux.reconnect import one_line

_REPLICA = "REDIS_URL leads to a read-only replica"
_TO_PRIMARY = "set it to the primary"
_BY_SENTINEL = "begin it with redis+sentinel://, and name the master: redis+sentinel://host:26379/mymaster"
_BY_CLUSTER = "begin it with redis+cluster://"

# A script may not run a command: the same fault as NOPERM, in a text of its own.
_FORBIDDEN_IN_SCRIPT = re.compile(r"ACL failure in script|The user executing the script can't")
_UNKNOWN_COMMAND = re.compile(r"unknown (redis )?command", re.IGNORECASE)
_ANOTHER_DATABASE = "REDIS_URL names a database that this server lacks: its setting databases is their number"
# States in which a server refuses writes, or everything; and what keeps a connection from being made.
_REMEDIES = {
    "DB index is out of range": _ANOTHER_DATABASE,
    "invalid DB index": _ANOTHER_DATABASE,
    "is not valid for": "REDIS_URL's host is to be one that the server's certificate names",
    "CERTIFICATE_VERIFY_FAILED": "name the certificate's authority in REDIS_URL: ?ssl_ca_certs=/path/to/ca.pem",
    "MISCONF": "Redis's log says why it can't save: often its disk is full",
    "command not allowed when used memory": "raise maxmemory",  # OOM; redis-py leaves the word out
    "NOREPLICAS": "bring its replicas back, or lower min-replicas-to-write",
    "BUSY ": "end the script, with SCRIPT KILL",
}


class Fault(NamedTuple):
    """What is wrong, and what to do about it; `remedy` is empty where that is not known."""

    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class FaultError(RedisConnectionError):
    """A connection can't be made, and the reason is known."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class WrongServerError(FaultError):
    """The server answers, and is not a primary on its own."""


def fault(error: BaseException) -> Fault:
    """Return what an error of redis-py means. One state of a server is one text, whichever command met it."""
    text = one_line(error).removesuffix(".")
    match error:
        case FaultError():
            return error.fault
        case ReadOnlyError() | MasterDownError():
            return Fault(_REPLICA, _TO_PRIMARY)
        case AskError():
            return Fault(
                "this node of a Redis Cluster does not have the slot of our keys",
                "a REDIS_URL that begins with redis+cluster:// follows it",
            )
        case ClusterDownError():
            return Fault(f"the Redis Cluster is down: {text}", "redis-cli --cluster check HOST:PORT says why")
        case AuthenticationError() | AuthorizationError():
            return Fault(f"Redis refuses this login: {text}", "check REDIS_URL's user and password")
    if is_forbidden(error):
        found = Fault(f"Redis forbids it: {text}", "docs/operations.md lists what this user needs")
    elif lacks_command(error):
        found = Fault(f"this server lacks a command that is needed: {text}", "Redis 7 or Valkey 8 and later have it")
    else:
        found = Fault(text, next((remedy for words, remedy in _REMEDIES.items() if words in text), ""))
    return found


def is_forbidden(error: BaseException) -> bool:
    """Whether the server answers and does not let this user run a command; it may take others."""
    return isinstance(error, NoPermissionError) or bool(_FORBIDDEN_IN_SCRIPT.search(str(error)))


def is_wrong_server(error: BaseException) -> bool:
    """Whether a server's answer shows that its address has to be resolved anew: it is no primary, or no longer."""
    return isinstance(error, ReadOnlyError | ClusterDownError | AskError)


def lacks_command(error: BaseException) -> bool:
    """Whether a server does not know a command at all."""
    return bool(_UNKNOWN_COMMAND.search(str(error)))


def lacks_hello(error: ResponseError) -> bool:
    """Whether a server refuses HELLO, so that it has to be spoken to in RESP2."""
    text = str(error)
    return "NOPROTO" in text or ("HELLO" in text and lacks_command(error))


def check_server(hello: Mapping[Any, Any], *, is_cluster: bool = False) -> None:
    """Check a server's answer to HELLO 3.

    Args:
        hello: the answer.
        is_cluster: whether a node of a Cluster is wanted; else one that stands alone.

    Raises:
        WrongServerError: it is a replica, a Sentinel, or a node of a Cluster where none is wanted.
    """
    mode = _field(hello, "mode") or "standalone"
    if mode == "sentinel":
        raise WrongServerError(Fault("REDIS_URL leads to a Redis Sentinel", _BY_SENTINEL))
    if mode == "cluster" and not is_cluster:
        raise WrongServerError(Fault("REDIS_URL leads to a node of a Redis Cluster", _BY_CLUSTER))
    check_role(hello)


def check_role(hello: Mapping[Any, Any]) -> None:
    """Check of a server's answer to HELLO 3 only who it is now; its mode never changes.

    Raises:
        WrongServerError: it is a replica.
    """
    if _field(hello, "role") in {"replica", "slave"}:
        raise WrongServerError(Fault(_REPLICA, _TO_PRIMARY))


def _field(hello: Mapping[Any, Any], name: str) -> str:
    return next((_text(value) for key, value in hello.items() if _text(key) == name), "")


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
