"""The URL of a Redis: what it means, and what is wrong with it, said without a part of it.

redis-py's own parser takes more than its connections do, and passes over what it can't read: `/abc` is database 0.
"""

import re
import ssl
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import unquote

from notifymux.host_names import is_host


class RedisUrlError(ValueError):
    """A text is not the URL of a Redis. The message says which part is wrong and how to write it; nothing is quoted."""


class Transport(Enum):
    """How a URL's server is reached."""

    TCP = "redis"
    TLS = "rediss"
    UNIX = "unix"


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Sentinels(NamedTuple):
    """Sentinels, which know the primary by its name."""

    addresses: tuple[Address, ...]
    master: str
    credentials: dict[str, str]  # of the Sentinels: `username`, `password`


class ClusterNodes(NamedTuple):
    """Some nodes of a Cluster, each of which knows who has which hash slot."""

    addresses: tuple[Address, ...]


class RedisUrl(NamedTuple):
    """What a URL says."""

    transport: Transport
    options: dict[str, Any]  # of redis-py's connections
    found_by: Sentinels | ClusterNodes | None = None  # who knows the primary's address; None: the options have it

    @property
    def is_cluster(self) -> bool:
        """Whether it leads to a node of a Cluster."""
        return isinstance(self.found_by, ClusterNodes)


_SCHEMES = {
    "redis": Transport.TCP,
    "valkey": Transport.TCP,
    "rediss": Transport.TLS,
    "valkeys": Transport.TLS,
    "unix": Transport.UNIX,
}
_SENTINEL, _CLUSTER = "sentinel", "cluster"  # after a scheme and a +
_BEGINNINGS = "redis://, rediss:// (TLS), valkey://, valkeys:// (TLS), unix://, redis+sentinel:// or redis+cluster://"
_PORT, _SENTINEL_PORT = 6379, 26379  # where a URL names none
_MAX_PORT = 65535
_MAX_DATABASE = 2**31 - 1
_MASTER_NAME = re.compile(r"[\w.-]+", re.ASCII)  # as Sentinel takes it
_MAX_PATH_BYTES = 107  # of a Unix socket
_BRACKETS = "its host is none: an IPv6 address stands in [brackets]"
_CREDENTIALS = "in user and password write %23 for #, %2F for /, %3F for ? and %40 for @"


def parse_redis_url(url: str) -> RedisUrl:
    """Return what a URL says.

    Raises:
        RedisUrlError: it says nothing that a connection can be made of.
    """
    _check_characters(url)
    transport, kind, rest = _scheme(url)
    if "#" in rest:
        raise RedisUrlError(f"there is a # in it: {_CREDENTIALS}")
    address, question_mark, query = rest.partition("?")
    authority, slash, path = address.partition("/")
    if "@" in path and "@" not in authority and transport is not Transport.UNIX:
        raise RedisUrlError(f"there is a / before its @: {_CREDENTIALS}")
    try:
        options = _query(query, transport, kind) if question_mark else {}
    except RedisUrlError:
        if "@" in query and "@" not in authority:
            raise RedisUrlError(f"there is a ? before its @: {_CREDENTIALS}") from None
        raise
    userinfo, _, place = authority.rpartition("@")
    options = _credentials(userinfo) | options
    if kind == _SENTINEL:
        return _sentinel_url(transport, options, place, path)
    if kind == _CLUSTER:
        return _cluster_url(transport, options, place, path)
    if transport is Transport.UNIX:
        return RedisUrl(transport, options | _socket(place, slash + path))
    return RedisUrl(transport, options | _host_and_port(place) | _database(path, options))


def _check_characters(url: str) -> None:
    if re.match(r"['\"]", url):
        raise RedisUrlError("it begins with a quote, which belongs to it: docker's --env-file takes no quotes")
    if re.search(r"\s", url):
        raise RedisUrlError("there is a space or a line break in it: remove it, or write %20 for a space in a password")


def _sentinel_url(transport: Transport, options: dict[str, Any], place: str, path: str) -> RedisUrl:
    credentials = {name: options.pop(f"sentinel_{name}", "") for name in ("username", "password")}
    credentials = {name: text for name, text in credentials.items() if text}
    master, _, database = path.partition("/")
    master = _unquote(master, "its master's name")
    if not _MASTER_NAME.fullmatch(master):
        raise RedisUrlError(
            "after its hosts has to stand the master's name, as the Sentinels' configuration has it:"
            " redis+sentinel://host:26379/mymaster"
        )
    addresses = _addresses(place, _SENTINEL_PORT)
    return RedisUrl(transport, options | _database(database, options), Sentinels(addresses, master, credentials))


def _cluster_url(transport: Transport, options: dict[str, Any], place: str, path: str) -> RedisUrl:
    if path or options.pop("db", 0):
        raise RedisUrlError("a Cluster has no database numbers: nothing may follow its hosts but ?options")
    return RedisUrl(transport, options, ClusterNodes(_addresses(place, _PORT)))


def _scheme(url: str) -> tuple[Transport, str, str]:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise RedisUrlError(f"it does not begin with {_BEGINNINGS}")
    base, plus, kind = scheme.lower().partition("+")
    kinds = {_SENTINEL, _CLUSTER} if plus and base != Transport.UNIX.value else {""}
    if base not in _SCHEMES or kind not in kinds:
        raise RedisUrlError(f"it begins with none of {_BEGINNINGS}")
    return _SCHEMES[base], kind, rest


def _credentials(userinfo: str) -> dict[str, str]:
    user, _, password = userinfo.partition(":")
    found = {"username": user, "password": password}
    return {name: _unquote(text, "user or password") for name, text in found.items() if text}


def _unquote(text: str, part: str) -> str:
    try:
        unquoted = unquote(text, errors="strict")
        unquoted.encode()
    except UnicodeError:
        raise RedisUrlError(f"{part} is not UTF-8 where it is written with %: write %25 for %") from None
    if "\0" in unquoted:
        raise RedisUrlError(f"{part} contains %00")
    return unquoted


def _addresses(place: str, default_port: int) -> tuple[Address, ...]:
    found = [_host_and_port(each) for each in place.split(",")]
    return tuple(Address(each["host"], each.get("port", default_port)) for each in found)


def _host_and_port(place: str) -> dict[str, Any]:
    if "," in place:
        raise RedisUrlError(
            "it names several hosts: give one primary, or begin with redis+sentinel:// or redis+cluster://"
        )
    if place.count(":") > 1 and "[" not in place:
        raise RedisUrlError(_BRACKETS)
    parts = re.fullmatch(r"(?:\[(?P<address>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?P<colon>:(?P<port>.*))?", place)
    if parts is None:
        raise RedisUrlError(_BRACKETS)
    host = _unquote(parts["address"] or parts["host"] or "", "its host")
    if not host:
        raise RedisUrlError("it names no host")
    if not is_host(host) or bool(parts["address"]) != (":" in host):
        raise RedisUrlError(f"its host is neither a name nor an address; {_CREDENTIALS}")
    if not parts["colon"]:
        return {"host": host}
    if not re.fullmatch(r"[0-9]{1,5}", parts["port"]) or not 1 <= int(parts["port"]) <= _MAX_PORT:
        raise RedisUrlError(f"its port is no number from 1 to 65535; {_CREDENTIALS}")
    return {"host": host, "port": int(parts["port"])}


def _database(path: str, options: dict[str, Any]) -> dict[str, int]:
    if not path:
        return {}
    number = _database_number(path)
    if options.get("db", number) != number:
        raise RedisUrlError("it names two databases, after the host and as ?db=")
    return {"db": number}


def _database_number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > _MAX_DATABASE:
        raise RedisUrlError("its database is no number: after host and port may stand one such as /0")
    return int(text)


def _socket(place: str, path: str) -> dict[str, str]:
    path = _unquote(path, "its path")
    if place or len(path) < 2:  # noqa: PLR2004 - a slash and a name
        raise RedisUrlError("after unix:// stands the absolute path of a socket: unix:///run/redis.sock")
    if len(path.encode()) > _MAX_PATH_BYTES:
        raise RedisUrlError(f"its path is too long for a socket: at most {_MAX_PATH_BYTES} bytes")
    return {"path": path}


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]+)?", text) or not float(text):
        raise RedisUrlError("its timeout is no number of seconds above 0")
    return float(text)


def _verification(text: str) -> str:
    if text not in {"none", "optional", "required"}:
        raise RedisUrlError("its ssl_cert_reqs takes none, optional or required")
    return text


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
        raise RedisUrlError("its ssl_check_hostname is neither true nor false")
    return text.lower() in {"true", "1", "yes"}


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "db": _database_number,
    "username": str,
    "password": str,
    "client_name": str,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_cert_reqs": _verification,
    "ssl_check_hostname": _truth,
    "sentinel_username": str,
    "sentinel_password": str,
}


def _query(query: str, transport: Transport, kind: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in _OPTIONS or not value:
            # Its name is not shown: after a raw ? in a password it is a part of that.
            raise RedisUrlError(f"after the ? stands an option that is none of these: {', '.join(_OPTIONS)}")
        options[name] = _OPTIONS[name](_unquote(value.replace("+", " "), f"its {name}"))
    if kind != _SENTINEL and (foreign := [name for name in options if name.startswith("sentinel_")]):
        raise RedisUrlError(f"{foreign[0]} is for Sentinels: begin with redis+sentinel://")
    encryption = [name for name in options if name.startswith("ssl_")]
    if encryption and transport is not Transport.TLS:
        raise RedisUrlError(f"{encryption[0]} is for TLS: begin with rediss://")
    _check_files(options)
    return options


def _check_files(options: dict[str, Any]) -> None:
    """Read the files of TLS as a connection does, which says the same of every fault: it can't connect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities, folder = options.get("ssl_ca_certs"), options.get("ssl_ca_path")
    certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    if authorities or folder:
        _read_file("ssl_ca_certs or ssl_ca_path", lambda: context.load_verify_locations(authorities, folder))
    if key and not certificate:
        raise RedisUrlError("ssl_keyfile needs ssl_certfile")
    if certificate:
        password = options.setdefault("ssl_password", "")  # without one, OpenSSL would ask the terminal
        _read_file("ssl_certfile or ssl_keyfile", lambda: context.load_cert_chain(certificate, key, password))


def _read_file(name: str, read: Callable[[], None]) -> None:
    try:
        read()
    except ssl.SSLError:
        raise RedisUrlError(f"the file that its {name} names is not in PEM, or of another key or password") from None
    except OSError as error:
        raise RedisUrlError(f"the file that its {name} names can't be read: {error.strerror}") from None
