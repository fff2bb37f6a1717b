"""Settings: environment over `.env` over `.run/embedded.env` over the defaults below.

Every process reads them once, when it starts, from its working directory. Nothing exports them, so editing
`.env` and restarting a program is enough.
"""

import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import jwt
import redis
from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.core.canary import MUX_CHANNEL

ENV_FILE = Path(".env")
RUN_DIR = Path(".run")
EMBEDDED_ENV_FILE = RUN_DIR / "embedded.env"

# Of these, NAME_FILE may name a file that holds the value.
_FROM_FILES = ("DB_PASSWORD", "REDIS_URL", "WS_JWT_SECRET", "WS_JWT_PUBLIC_KEY")

# Any of these makes the servers the operator's own; without them the appliance brings its own.
OWN_SERVERS = ("DB_HOST", "REDIS_URL", "REDIS_URL_FILE")

_MOST_NAME = 63  # bytes of a channel's name, PostgreSQL's own limit

DEFAULT_CHANNELS = (
    "matchdata_change",
    "match_change",
    "scoreboard_change",
    "playclock_change",
    "gameclock_change",
    "football_event_change",
    "player_match_change",
)


class SettingsError(Exception):
    """One line per wrong setting, naming the variable, what it was given and what it takes."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    return value


def _check_channels(channels: tuple[str, ...]) -> tuple[str, ...]:
    if not channels or any(len(c.encode()) > _MOST_NAME or "\0" in c or c.startswith(MUX_CHANNEL) for c in channels):
        raise ValueError
    return channels


def _check_redis_url(url: SecretStr) -> SecretStr:
    if not re.match(r"(rediss?://[^/\s]+|unix://[^/\s]*/)", url.get_secret_value()):
        raise ValueError
    try:
        redis.ConnectionPool.from_url(url.get_secret_value()).make_connection()  # it does not connect yet
    except (TypeError, redis.RedisError):
        raise ValueError from None
    return url


def _check_routing_key(key: str) -> str:
    if key in {"operation", "data"} or re.search(r'[\\"\x00-\x1f]', key):
        raise ValueError
    return key


def _check_snapshot_query(query: str) -> str:
    if "%(match_id)s" not in query:
        raise ValueError
    return query


def _check_public_key(key: SecretStr) -> SecretStr:
    pem = key.get_secret_value().replace("\\n", "\n")
    try:
        jwt.get_algorithm_by_name("RS256").prepare_key(pem)
    except (ValueError, jwt.InvalidKeyError):
        raise ValueError from None
    if "PRIVATE" in pem:
        raise ValueError
    return SecretStr(pem)


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    origins = tuple(origin.rstrip("/").lower() for origin in origins)
    if any(origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+", origin) for origin in origins):
        raise ValueError
    return origins


Channels = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_channels)]
OptionalChannels = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_origins)]
PublicKey = Annotated[SecretStr, AfterValidator(_check_public_key)]
RedisUrl = Annotated[SecretStr, AfterValidator(_check_redis_url)]
SnapshotQuery = Annotated[str, AfterValidator(_check_snapshot_query)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Positive = Annotated[int, Field(ge=1, le=2**40)]


def _setting(default: Any, about: str, takes: str) -> Any:
    """A field with its one-line explanation (as in `.env.example`) and, for errors, what it takes."""
    return Field(default, description=about, json_schema_extra={"takes": takes})


class Settings(BaseSettings):
    """Everything that can be configured; the variable is the field's name in capitals."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    db_host: str | None = _setting(
        None,
        "PostgreSQL's host, reached directly, not through a transaction pooler",
        "a host name, an address or a socket's folder",
    )
    db_port: Port = _setting(5432, "PostgreSQL's port", "a whole number from 1 to 65535")
    db_user: str = _setting(
        "postgres", "PostgreSQL's user; it needs nothing but CONNECT (and what SNAPSHOT_QUERY reads)", "a name"
    )
    db_password: SecretStr | None = _setting(None, "PostgreSQL's password", "a password")
    db_password_file: Path | None = _setting(
        None, "a file that holds the password instead", "the path of a readable file; not together with DB_PASSWORD"
    )
    db_name: str = _setting("postgres", "the database whose notifications are heard", "a name")
    db_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = _setting(
        "prefer", "TLS to PostgreSQL", "disable, allow, prefer, require, verify-ca or verify-full"
    )
    db_sslrootcert: str | None = _setting(
        None, "the certificate authority for verify-ca and verify-full", "the path of a file, or system"
    )

    use_redis_notifier: bool = _setting(
        False, "true: workers hear Redis; false: each worker LISTENs directly (the rollback)", "true or false"
    )
    redis_url: RedisUrl = _setting(
        SecretStr("redis://localhost:6379"),
        "the shared Redis or Valkey",
        "redis://, rediss:// (TLS) or unix:// with host, and if needed :password@, port and /number",
    )
    redis_url_file: Path | None = _setting(
        None, "a file that holds the URL instead", "the path of a readable file; not together with REDIS_URL"
    )
    redis_namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = _setting(
        "pg_notify", "what every name in Redis begins with", "up to 64 letters, digits and _ . : -"
    )
    stream_maxlen: Annotated[int, Field(ge=100, le=100_000_000)] = _setting(
        20_000, "events kept in Redis for resuming, approximately", "a whole number from 100 to 100000000"
    )

    notify_channels: Channels = _setting(
        DEFAULT_CHANNELS,
        "the channels to LISTEN on, by comma",
        "names of up to 63 bytes, separated by commas, none beginning with pg_notify_mux",
    )
    routing_key: Annotated[str, AfterValidator(_check_routing_key)] = _setting(
        "match_id",
        "the key in a payload that says which match it belongs to",
        "a key's name without quotes, not operation or data",
    )
    snapshot_query: SnapshotQuery | None = _setting(
        None,
        "SQL that returns a match's snapshot as one JSON value; none: snapshots are null",
        "one SQL query that contains %(match_id)s",
    )
    snapshot_pool: Annotated[int, Field(ge=1, le=100)] = _setting(
        2, "connections a worker may open for snapshots; none are held at rest", "a whole number from 1 to 100"
    )
    snapshot_timeout: Seconds = _setting(
        5.0, "seconds a snapshot may take before the client is served without", "seconds from above 0 to 3600"
    )

    listener_standby: bool = _setting(
        False, "true: a second listener takes over when the first ends; one more connection", "true or false"
    )
    buffer_events: Positive = _setting(
        100_000,
        "events the listener holds while Redis is away; past it they are announced as a gap",
        "a whole number from 1",
    )
    buffer_bytes: Positive = _setting(64 * 2**20, "the same in bytes", "a whole number from 1")
    canary_interval: Annotated[float, Field(ge=0.1, le=60)] = _setting(
        2.0,
        "seconds between the canaries that prove the whole way; readiness and dead-path detection go by it",
        "seconds from 0.1 to 60",
    )

    web_concurrency: Annotated[int, Field(ge=1, le=256)] = _setting(
        4, "gunicorn workers", "a whole number from 1 to 256"
    )
    host: str = _setting("0.0.0.0", "the address to serve on", "an address")  # noqa: S104 - a container serves its network
    port: Port = _setting(8000, "the port to serve on", "a whole number from 1 to 65535")
    root_path: Annotated[str, Field(pattern=r"^(/[^/?#\s]+)*$")] = _setting(
        "",
        "the path prefix a reverse proxy strips, such as /live",
        "empty, or a path that begins with / and does not end with it",
    )
    forwarded_allow_ips: str = _setting(
        "127.0.0.1",
        "proxies whose X-Forwarded-* headers are believed, by comma; * for all",
        "addresses or networks separated by commas, or *",
    )
    client_queue_bytes: Positive = _setting(
        2**20, "bytes that may wait for one client before it is closed with 3008", "a whole number from 1"
    )
    latest_wins_channels: OptionalChannels = _setting(
        ("gameclock_change", "playclock_change"),
        "channels on which a newer event of a row replaces one that waits, once a client's queue is half full",
        "names of channels, separated by commas; a comma alone for none",
    )
    history_bytes: Positive = _setting(
        32 * 2**20,
        "bytes of recent events a worker remembers for clients that come back; older ones it reads from Redis",
        "a whole number from 1",
    )
    ping_interval: Seconds = _setting(
        30.0, "seconds between pings to a client; one that is silent for two is closed", "seconds from above 0 to 3600"
    )

    ws_jwt_secret: SecretStr | None = _setting(
        None,
        "clients must show a token signed with this (HS256); without it and WS_JWT_PUBLIC_KEY anyone may listen",
        "a secret, best 32 bytes and more; not together with WS_JWT_PUBLIC_KEY",
    )
    ws_jwt_secret_file: Path | None = _setting(
        None, "a file that holds the secret instead", "the path of a readable file; not together with WS_JWT_SECRET"
    )
    ws_jwt_public_key: PublicKey | None = _setting(
        None,
        "clients must show a token that this key verifies (RS256)",
        "an RSA public key as PEM, its lines separated by line breaks or \\n; not together with WS_JWT_SECRET",
    )
    ws_jwt_public_key_file: Path | None = _setting(
        None, "a file that holds the key instead", "the path of a readable file; not together with WS_JWT_PUBLIC_KEY"
    )
    allowed_origins: Origins = _setting(
        (),
        "pages that may connect besides those of the same host, by comma; * for all",
        "origins such as https://example.com, separated by commas, or *",
    )
    max_clients: Positive = _setting(
        10_000, "clients a worker takes; more are refused with 503", "a whole number from 1"
    )
    max_clients_per_address: Positive | None = _setting(
        None,
        "the same for one client address; none: no such limit (behind a proxy, FORWARDED_ALLOW_IPS has to be right)",
        "a whole number from 1",
    )

    status_page: bool = _setting(
        True,
        "the status page at / and /api/status; with tokens, they and /metrics need one whose claim operator is true",
        "true or false",
    )

    data_dir: Path = _setting(Path("data"), "where the embedded servers keep their data", "the path of a folder")
    pod_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")] = _setting(
        socket.gethostname()[:63] or "pod",
        "this pod's name, as operators see it (the host's name)",
        "up to 63 letters, digits and _ . -",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "the least severe lines to log", "debug, info, warning or error"
    )
    log_format: Literal["text", "json"] = _setting("text", "lines for people or for machines", "text or json")

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        if isinstance(data, dict):
            data = dict(data)
            for name in ("log_level", "log_format", "db_sslmode"):
                if isinstance(data.get(name), str):
                    data[name] = data[name].lower()
        return data

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *_: PydanticBaseSettingsSource, **__: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The files and the environment as one source, so that every layer is read the same way."""
        return (_LayeredSource(settings_cls),)


class _LayeredSource(EnvSettingsSource):
    """The environment and both files as one mapping."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in _layers().items()}


def servers_given() -> bool:
    """Whether the operator gave a server of their own, so that none is embedded."""
    given = _own_layers()
    return any(given.get(name) for name in OWN_SERVERS)


def _own_layers() -> dict[str, str]:
    return _read(ENV_FILE) | {name: value for name, value in os.environ.items() if value}


def _layers() -> dict[str, str]:
    values = _own_layers() if servers_given() else _read(EMBEDDED_ENV_FILE) | _own_layers()
    for name in _FROM_FILES:
        if path := values.get(f"{name}_FILE"):
            values[name] = _secret(name, path, values)
    return values


def _read(path: Path) -> dict[str, str]:
    # No interpolation: a password may contain ${...}.
    try:
        return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read: {error}") from None


def _secret(name: str, path: str, values: Mapping[str, str]) -> str:
    if values.get(name):
        raise SettingsError(f"{name} and {name}_FILE are both given: give one of them")
    try:
        return Path(path).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"{name}_FILE={path!r}: {reason}; it takes the path of a readable file") from None


def where_settings_come_from() -> str:
    """Which settings are set where, for the log: names only."""
    names = {name.upper() for name in Settings.model_fields}
    layers = {"the environment": {name for name, value in os.environ.items() if value}, ".env": set(_read(ENV_FILE))}
    if not servers_given():
        layers["the embedded demo"] = set(_read(EMBEDDED_ENV_FILE))
    parts = []
    left = names
    for layer, given in layers.items():
        if found := sorted(given & left):
            parts.append(f"from {layer}: {', '.join(found)}")
        left = left - given
    if strange := sorted(layers[".env"] - names):
        parts.append(f"in .env, but no settings: {', '.join(strange)}")
    return "; ".join([*parts, "the rest: defaults"])


def load_settings() -> Settings:
    """The settings of this process, read now.

    Raises:
        SettingsError: a value is wrong; the message has one line for each, and never a secret.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(detail) for detail in error.errors(include_url=False))) from None
    if settings.ws_jwt_secret and settings.ws_jwt_public_key:
        raise SettingsError(
            "WS_JWT_SECRET and WS_JWT_PUBLIC_KEY are both given: give the one your tokens are signed for"
        )
    return settings


def _explain(detail: ErrorDetails) -> str:
    name = str(detail["loc"][0])
    field = Settings.model_fields[name]
    secret = SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ()))
    given = "(hidden)" if secret else repr(_layers().get(name.upper(), detail["input"]))
    extra = field.json_schema_extra
    takes = extra["takes"] if isinstance(extra, dict) else field.description
    return f"{name.upper()}={given}: it takes {takes}"


def load_settings_or_exit() -> Settings:
    """`load_settings` for a program's entry: a wrong value is printed, one line each, and ends it with exit code 2."""
    try:
        return load_settings()
    except SettingsError as error:
        print(f"notifymux: {error}".replace("\n", "\nnotifymux: "), file=sys.stderr)  # noqa: T201 - logging is not set up yet
        raise SystemExit(2) from None
