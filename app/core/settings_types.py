"""The types of settings: how a text becomes a value, which values are accepted, and what an error says of that."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from notifymux.event import MUX_CHANNEL
from notifymux.host_names import is_host
from notifymux.redis_url import RedisUrlError, parse_redis_url

_MAX_CHANNEL_BYTES = 63  # PostgreSQL's own limit
_MAX_WHOLE_NUMBER = 2**40
_BOOLEANS = dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True) | dict.fromkeys(
    ("0", "false", "f", "no", "n", "off"), False
)
_NO_NAME = re.compile(r"://|-----|password\s*=|[\x00-\x1f]", re.IGNORECASE)  # and the log shows names
_HOST_ALONE = "it takes the host alone"
_FIRST_KEY = re.compile(r'(?!(operation|data)$)[^\\"\x00-\x1f]*')
_OTHER_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_MESSAGE_FIELDS = (
    *("type", "id", "channel", "match_id", "operation", "data", "gameclock", "playclock", "error"),
    *("recovered", "code", "reason", "token", "last_event_id"),
)
_CLAIMS = ("matches", "operator", "exp", "nbf", "iat", "sub", "aud", "iss", "jti")
_TAKEN_KEYS = {*_MESSAGE_FIELDS, *_CLAIMS, "match", "after", "claims", "payload", "new_id", "old_id"}
MIN_SECRET_BYTES = 32  # RFC 7518, 3.2
MAKE_A_SECRET = "openssl rand -base64 48 makes one"  # noqa: S105 - a command
MAKE_A_PUBLIC_KEY = "openssl pkey -in private.pem -pubout makes its public one"
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s?#@]+")


@dataclass(frozen=True)
class Secret:
    """A text that is not in the representation of the object that holds it."""

    _value: str = field(repr=False)

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._value


class NotAcceptedError(ValueError):
    """A value is not accepted. The message says why, and how to write it; nothing of the value is in it."""


class SettingType(NamedTuple):
    """One type of setting."""

    takes: str = ""  # for errors; nothing where every text is accepted
    convert: Callable[[str], Any] = str  # a text's value, or ValueError
    accepts: Callable[[Any], object] = lambda _: True
    is_secret: bool = False  # then no error shows the text

    def parse(self, text: str) -> Any:
        """Return the value of a text.

        Raises:
            NotAcceptedError: it is not accepted, for a reason of its own.
            ValueError: it is not accepted.
        """
        if "\0" in text or not _is_utf8(text):
            raise NotAcceptedError("it takes UTF-8 text without NUL")
        value = self.convert(text)
        if not self.accepts(value):
            raise ValueError
        return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the environment that are not UTF-8
        return False
    return True


def whole_number(least: int = 1, most: int = _MAX_WHOLE_NUMBER) -> SettingType:
    """Return the type of whole numbers in a range."""
    takes = f"a whole number from {least}" + (f" to {most}" if most < _MAX_WHOLE_NUMBER else "")
    return SettingType(takes, int, lambda number: least <= number <= most)


def seconds(least: float, most: float) -> SettingType:
    """Return the type of times in a range and above 0."""
    takes = f"seconds from {least or 'above 0'} to {most}"
    return SettingType(takes, float, lambda number: number > 0 and least <= number <= most)


def one_of(*words: str) -> SettingType:
    """Return the type of a choice between words in lower case; the text may be in any case."""
    return SettingType(f"{', '.join(words[:-1])} or {words[-1]}", str.lower, words.__contains__)


def matching(pattern: str, takes: str) -> SettingType:
    """Return the type of texts that a regular expression matches as a whole."""
    return SettingType(takes, str, re.compile(pattern, re.DOTALL).fullmatch)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _is_channel(name: str) -> bool:
    return len(name.encode()) <= _MAX_CHANNEL_BYTES and "\0" not in name and not name.startswith(MUX_CHANNEL)


def _routing_keys(text: str) -> tuple[str, ...]:
    """Return the names of keys. The first may be any; a page, a token, a query and a file name the others."""
    first, *others = keys = tuple(part.strip() for part in text.split(","))
    if others and "" in keys:
        raise NotAcceptedError("one of the names is empty; it takes names separated by commas")
    if not _FIRST_KEY.fullmatch(first):
        raise ValueError
    for key in others:
        if keys.count(key) > 1:
            raise NotAcceptedError("one of the names is there twice")
        if not _OTHER_KEY.fullmatch(key):
            raise NotAcceptedError("a key after the first takes letters, digits and _, and begins with a letter")
        if key in _TAKEN_KEYS:
            raise NotAcceptedError(
                "a key after the first can't have the name of something else in messages, tokens or queries, such as id"
            )
    return keys


def _hosts(text: str) -> str:
    if "://" in text:
        raise NotAcceptedError(
            f"{_HOST_ALONE} and no URL: user, password, port and database have settings of their own"
        )
    return ",".join(_host(part.strip()) for part in text.split(","))


def _host(text: str) -> str:
    if text.startswith(("/", "@/")):  # the folder of a Unix socket; with @ it is an abstract one
        return text
    host = text[1:-1] if re.fullmatch(r"\[.*\]", text) else text
    if is_host(host):
        return host
    if re.fullmatch(r"[^:=@\s]+:[^:=@\s]*|\[.*\]:.*", text):
        raise NotAcceptedError(f"{_HOST_ALONE}: the port belongs in DB_PORT")
    if re.search(r"[\s=@]", text):
        raise NotAcceptedError(f"{_HOST_ALONE}, without spaces: user, password and port have settings of their own")
    raise ValueError


def _ports(text: str) -> str:
    if re.match(r"(tcp|udp|sctp)://", text):
        raise NotAcceptedError(
            "this is what Kubernetes sets for a service that is called db; set DB_PORT yourself, or enableServiceLinks:"
            " false in the pod"
        )
    return ",".join(str(PORT.parse(port)) for port in text.split(","))


def _redis_url(text: str) -> Secret:
    try:
        parse_redis_url(text)
    except RedisUrlError as error:
        raise NotAcceptedError(str(error)) from None
    return Secret(text)


def _jwt_secret(text: str) -> Secret:
    if not text.strip():
        raise NotAcceptedError(f"it is blank; {MAKE_A_SECRET}")
    if "-----BEGIN" in text:
        raise NotAcceptedError(
            "it is a key as PEM; WS_JWT_PUBLIC_KEY takes one, and this takes a text that is a secret"
        )
    return Secret(text)


def _public_key(text: str) -> Secret:
    pem = text.replace("\\n", "\n")
    if "PRIVATE KEY" in pem:
        raise NotAcceptedError(f"it is a private key, which stays with whoever signs; {MAKE_A_PUBLIC_KEY}")
    import jwt  # noqa: PLC0415 - with cryptography it takes 10 MB of a program, and most pods have no key

    try:
        jwt.get_algorithm_by_name("RS256").prepare_key(pem)
    except (ValueError, jwt.InvalidKeyError):
        raise ValueError from None
    return Secret(pem)


def _listening_host(text: str) -> str:
    """Return an IPv6 address without its brackets, anything else as it is."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in host:
        ipaddress.IPv6Address(host)  # or ValueError
    return host


TEXT = SettingType()
NAME = SettingType("a name alone", accepts=lambda name: not _NO_NAME.search(name), is_secret=True)  # it may be a URL
SECRET = SettingType(convert=Secret, is_secret=True)
PATH = SettingType(convert=Path)
NAMES = SettingType(convert=_names)
BOOLEAN = SettingType("true or false", lambda text: _BOOLEANS.get(text.lower()), lambda value: value is not None)
PORT = whole_number(1, 65535)
LISTENING_HOST = SettingType(
    "an IPv4 or IPv6 address or a name of this machine; the port is PORT",
    _listening_host,
    re.compile(r"[^/\s@,\[\]]+").fullmatch,
)
HOSTS = SettingType("a host, or several by comma", _hosts, is_secret=True)  # what is no host may hold a password
PORTS = SettingType(f"{PORT.takes}, or several by comma, one for each host", _ports)
CHANNELS = SettingType(
    f"names of up to {_MAX_CHANNEL_BYTES} bytes, separated by commas, none beginning with {MUX_CHANNEL}",
    _names,
    lambda names: names and all(map(_is_channel, names)),
)
ORIGINS = SettingType(
    "origins such as https://example.com, separated by commas, or *",
    lambda text: tuple(origin.rstrip("/").lower() for origin in _names(text)),
    lambda origins: all(map(_ORIGIN.fullmatch, origins)),
)
REDIS_URL = SettingType(convert=_redis_url, is_secret=True)
JWT_SECRET = SettingType(convert=_jwt_secret, is_secret=True)
PUBLIC_KEY = SettingType(
    "an RSA public key as PEM, its lines separated by line breaks or \\n; not together with WS_JWT_SECRET",
    _public_key,
    is_secret=True,
)
ROUTING_KEY = SettingType("a key's name without quotes, not operation or data; or several by comma", _routing_keys)
SNAPSHOT_QUERY = matching(r".*%\(match_id\)s.*", "one SQL query that contains %(match_id)s")
