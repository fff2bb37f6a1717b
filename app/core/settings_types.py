"""The types of settings: how a text becomes a value, which values are accepted, and what an error says of that."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import redis

from app.core.canary import MUX_CHANNEL

_MAX_CHANNEL_BYTES = 63  # PostgreSQL's own limit
_MAX_WHOLE_NUMBER = 2**40
_BOOLEANS = dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True) | dict.fromkeys(
    ("0", "false", "f", "no", "n", "off"), False
)
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s?#@]+")
_REDIS_URL = re.compile(r"(rediss?://[^/\s]+|unix://[^/\s]*/)")


@dataclass(frozen=True)
class Secret:
    """A text that is not in the representation of the object that holds it."""

    _value: str = field(repr=False)

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._value


class SettingType(NamedTuple):
    """One type of setting."""

    takes: str = ""  # for errors; nothing where every text is accepted
    convert: Callable[[str], Any] = str  # a text's value, or ValueError
    accepts: Callable[[Any], object] = lambda _: True
    is_secret: bool = False  # then no error shows the text

    def parse(self, text: str) -> Any:
        """Return the value of a text.

        Raises:
            ValueError: it is not accepted.
        """
        value = self.convert(text)
        if not self.accepts(value):
            raise ValueError
        return value


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


def _is_redis_url(url: Secret) -> bool:
    text = url.get_secret_value()
    try:
        redis.ConnectionPool.from_url(text).make_connection()  # it does not connect yet
    except (TypeError, ValueError, redis.RedisError):
        return False
    return _REDIS_URL.match(text) is not None


def _is_public_key(key: Secret) -> bool:
    import jwt  # noqa: PLC0415 - with cryptography it takes 10 MB of a program, and most pods have no key

    pem = key.get_secret_value()
    try:
        jwt.get_algorithm_by_name("RS256").prepare_key(pem)
    except (ValueError, jwt.InvalidKeyError):
        return False
    return "PRIVATE" not in pem


def _listening_host(text: str) -> str:
    """Return an IPv6 address without its brackets, anything else as it is."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in host:
        ipaddress.IPv6Address(host)  # or ValueError
    return host


TEXT = SettingType()
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
HOSTS = SettingType(
    "a host, or several by comma",
    lambda text: ",".join(host.strip() for host in text.split(",")),
    lambda hosts: all(hosts.split(",")),
)
PORTS = SettingType(
    f"{PORT.takes}, or several by comma, one for each host",
    lambda text: ",".join(str(PORT.parse(port)) for port in text.split(",")),
)
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
REDIS_URL = SettingType(
    "redis://, rediss:// (TLS) or unix:// with host, and if needed :password@, port and /number",
    Secret,
    _is_redis_url,
    is_secret=True,
)
PUBLIC_KEY = SettingType(
    "an RSA public key as PEM, its lines separated by line breaks or \\n; not together with WS_JWT_SECRET",
    lambda text: Secret(text.replace("\\n", "\n")),
    _is_public_key,
    is_secret=True,
)
ROUTING_KEY = matching(r'(?!(operation|data)$)[^\\"\x00-\x1f]*', "a key's name without quotes, not operation or data")
SNAPSHOT_QUERY = matching(r".*%\(match_id\)s.*", "one SQL query that contains %(match_id)s")
