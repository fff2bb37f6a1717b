"""The settings of a program, read once when it starts.

Nothing exports them, so editing `.env` and restarting a program is enough. `app.core.settings_sources` says where they
are set, `app.core.settings_types` what each may be.
"""

import socket
import sys
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from app.core import libpq_environment
from app.core import settings_types as types
from app.core.logging_config import FORMATS, LEVELS
from app.core.query_files import AUTHORIZE, MATCH_ID, SNAPSHOT, Queries, parse_query, read_queries
from app.core.serving_address import ServingAddress
from app.core.settings_sources import (
    SettingsError,
    check_quotes,
    given_empty,
    names_by_source,
    servers_given,
    setting_texts,
    shown,
)
from app.core.settings_types import Secret, SettingType
from notifymux.redis_keys import DEFAULT_NAMESPACE

T = TypeVar("T")

_QUERIES_DIR = Path("queries")

DEFAULT_CHANNELS = (
    "matchdata_change",
    "match_change",
    "scoreboard_change",
    "playclock_change",
    "gameclock_change",
    "football_event_change",
    "player_match_change",
)


def _setting(default: Any, kind: SettingType, about: str) -> Any:
    """Return a field of `Settings` with its one-line explanation, as in `.env.example`."""
    return field(default=default, metadata={"type": kind, "about": about})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be configured; the variable is the field's name in capitals."""

    db_host: str | None = _setting(
        None, types.HOSTS, "PostgreSQL's host, or several by comma (the primary is used); no transaction pooler"
    )
    db_port: str = _setting("5432", types.PORTS, "PostgreSQL's port, or one for each host")
    db_user: str = _setting(
        "postgres", types.NAME, "PostgreSQL's user; it needs CONNECT only (and what SNAPSHOT_QUERY reads)"
    )
    db_password: Secret | None = _setting(None, types.SECRET, "PostgreSQL's password")
    db_password_file: Path | None = _setting(None, types.PATH, "a file that holds the password instead")
    db_name: str = _setting("postgres", types.NAME, "the database whose notifications are received")
    db_sslmode: str = _setting(
        "prefer", types.one_of("disable", "allow", "prefer", "require", "verify-ca", "verify-full"), "TLS to PostgreSQL"
    )
    db_sslrootcert: str | None = _setting(None, types.TEXT, "the certificate authority for verify-ca and verify-full")

    source: Literal["notify", "wal"] = _setting(
        "notify",
        types.one_of("notify", "wal"),
        "how changes leave PostgreSQL: by NOTIFY, or in the WAL (docs/wal.md)",
    )

    use_redis_notifier: bool = _setting(
        False, types.BOOLEAN, "true: workers receive from Redis; false: each worker LISTENs directly (the rollback)"
    )
    redis_url: Secret = _setting(
        Secret("redis://localhost:6379"),
        types.REDIS_URL,
        "the shared Redis or Valkey: one server, or redis+sentinel://, redis+cluster:// (docs/settings.md)",
    )
    redis_url_file: Path | None = _setting(None, types.PATH, "a file that holds the URL instead")
    redis_namespace: str = _setting(
        DEFAULT_NAMESPACE,
        types.matching(r"[A-Za-z0-9_.:-]{1,64}", "up to 64 letters, digits and _ . : -"),
        "the beginning of every name in Redis; each environment needs one of its own",
    )
    stream_maxlen: int = _setting(
        20_000, types.whole_number(100, 100_000_000), "events to keep in Redis, approximately"
    )
    stream_maxbytes: int = _setting(256 * 2**20, types.whole_number(2**20, 2**40), "the same in bytes of their texts")

    notify_channels: tuple[str, ...] = _setting(
        DEFAULT_CHANNELS, types.CHANNELS, "the channels to LISTEN on, separated by commas"
    )
    routing_key: tuple[str, ...] = _setting(
        ("match_id",),
        types.ROUTING_KEY,
        "the key of the match id in a payload; after a comma, further keys that clients may subscribe to",
    )
    snapshot_query: str | None = _setting(
        None,
        types.SNAPSHOT_QUERY,
        "SQL that returns a match's snapshot as one JSON value; without it snapshots are null",
    )
    queries_dir: Path | None = _setting(
        None, types.PATH, "a folder of SQL files that say what clients are shown (queries, if there is one)"
    )
    query_timeout: float = _setting(
        1.0, types.seconds(0, 60), "seconds an update waits for its query before its payload's own data is sent"
    )
    snapshot_pool: int = _setting(2, types.whole_number(1, 100), "a worker's connections for snapshots; none at rest")
    snapshot_timeout: float = _setting(
        5.0, types.seconds(0, 3600), "seconds a snapshot query may take before the client is served without a snapshot"
    )

    wal_slot: str = _setting(
        "notifymux",
        types.matching(r"[a-z0-9_]{1,63}", "up to 63 lower-case letters, digits and _"),
        "with SOURCE=wal: the replication slot and its publication, made if they are missing",
    )
    wal_trail: float = _setting(
        2.0,
        types.seconds(0, 3600),
        "with SOURCE=wal: seconds for which events are in Redis until the slot forgets them",
    )
    wal_limit: int = _setting(
        16 * 2**30,
        types.whole_number(),
        "with SOURCE=wal: bytes of WAL that the slot keeps back while Redis is away; past it, it is made anew: a gap",
    )
    listeners_max: int = _setting(
        3, types.whole_number(), "listeners of a namespace that hold a session of PostgreSQL; the others are reserves"
    )
    listener_standby: bool = _setting(
        False, types.BOOLEAN, "true: a second listener takes over when the first ends; one more connection"
    )
    buffer_events: int = _setting(
        100_000, types.whole_number(), "events to hold while Redis is away; past it they are dropped, which is a gap"
    )
    buffer_bytes: int = _setting(64 * 2**20, types.whole_number(), "the same in bytes")
    canary_interval: float = _setting(
        2.0, types.seconds(0.1, 60), "seconds between canaries; readiness and the detection of dead paths depend on it"
    )

    web_concurrency: int = _setting(4, types.whole_number(1, 256), "gunicorn workers")
    host: str = _setting("0.0.0.0", types.LISTENING_HOST, "the address to serve on; :: for IPv6 and IPv4")  # noqa: S104 - a container serves its network
    port: int = _setting(8000, types.PORT, "the port to serve on")
    root_path: str = _setting(
        "",
        types.matching(r"(/[^/?#\s]+)*", "empty, or a path that begins with / and does not end with it"),
        "the path prefix a reverse proxy strips, such as /live",
    )
    forwarded_allow_ips: str = _setting(
        "127.0.0.1", types.TEXT, "proxies whose X-Forwarded-* headers are trusted, by comma; * for all"
    )
    client_queue_bytes: int = _setting(
        2**20, types.whole_number(), "bytes that may wait for one client before it is closed with 3008"
    )
    latest_wins_channels: tuple[str, ...] = _setting(
        ("gameclock_change", "playclock_change"),
        types.NAMES,
        "channels on which a newer event of a row replaces a waiting one, once a client's queue is half full",
    )
    history_bytes: int = _setting(
        32 * 2**20,
        types.whole_number(),
        "bytes of events that a worker keeps for clients that reconnect; older ones are in Redis",
    )
    ping_interval: float = _setting(
        30.0, types.seconds(0, 3600), "seconds between pings to a client; one that leaves two unanswered is closed"
    )
    drain_seconds: int = _setting(
        5, types.whole_number(0, 300), "seconds over which workers that end close their clients, evenly; 0: all at once"
    )

    ws_jwt_secret: Secret | None = _setting(
        None, types.JWT_SECRET, "clients need a token signed with this (HS256); without it and WS_JWT_PUBLIC_KEY none"
    )
    ws_jwt_secret_file: Path | None = _setting(None, types.PATH, "a file that holds the secret instead")
    ws_jwt_public_key: Secret | None = _setting(
        None, types.PUBLIC_KEY, "clients need a token that this verifies (RS256)"
    )
    ws_jwt_public_key_file: Path | None = _setting(None, types.PATH, "a file that holds the key instead")
    allowed_origins: tuple[str, ...] = _setting(
        (),
        types.ORIGINS,
        "origins whose pages may connect besides those of the same host, separated by commas; * for all",
    )
    max_clients: int = _setting(10_000, types.whole_number(), "clients of a worker; more are refused with 503")
    max_clients_per_address: int | None = _setting(
        None,
        types.whole_number(),
        "the same for one client address; empty: no such limit (behind a proxy, FORWARDED_ALLOW_IPS has to be right)",
    )

    status_page: bool = _setting(
        True,
        types.BOOLEAN,
        "the status page at / and /api/status; with tokens, these and /metrics need one whose claim operator is true",
    )

    data_dir: Path = _setting(Path("data"), types.PATH, "where the embedded servers keep their data")
    pod_name: str = _setting(
        socket.gethostname()[:63] or "pod",
        types.matching(r"[A-Za-z0-9_.-]{1,63}", "up to 63 letters, digits and _ . -"),
        "this pod's name in PostgreSQL's sessions, in Redis and on the status page (the host's name)",
    )
    log_level: str = _setting("info", types.one_of(*LEVELS), "the least severe lines to log")
    log_format: str = _setting("text", types.one_of(*FORMATS), "log lines as text or as JSON")

    @property
    def other_keys(self) -> tuple[str, ...]:
        """The keys of ROUTING_KEY after the match id's."""
        return self.routing_key[1:]

    @property
    def serving_address(self) -> ServingAddress:
        """HOST and PORT."""
        return ServingAddress(self.host, self.port)


_ignored: list[str] = []  # variables of libpq that were set, for the log
_GUARDS = ("WS_JWT_SECRET", "WS_JWT_SECRET_FILE", "WS_JWT_PUBLIC_KEY", "WS_JWT_PUBLIC_KEY_FILE")

SETTINGS: dict[str, Field[Any]] = {each.name.upper(): each for each in fields(Settings)}


def load_settings() -> Settings:
    """Return the settings, read now.

    Raises:
        SettingsError: a value is wrong; the message has one line for each, and never a secret.
    """
    check_quotes(SETTINGS)
    texts = setting_texts()
    values, wrong = {}, []
    for name, each in SETTINGS.items():
        kind: SettingType = each.metadata["type"]
        if name in texts:
            try:
                values[each.name] = kind.parse(texts[name])
            except ValueError as error:
                given = "(hidden)" if kind.is_secret else shown(texts[name])
                reason = str(error) if isinstance(error, types.NotAcceptedError) else f"it takes {kind.takes}"
                wrong.append(f"{name}={given}: {reason}")
    if wrong:
        raise SettingsError("\n".join(wrong))
    settings = Settings(**values)
    _check_together(settings)
    return settings


def _check_together(settings: Settings) -> None:
    if settings.ws_jwt_secret and settings.ws_jwt_public_key:
        raise SettingsError(
            "WS_JWT_SECRET and WS_JWT_PUBLIC_KEY are both given: give the one your tokens are signed for"
        )
    if not (settings.ws_jwt_secret or settings.ws_jwt_public_key) and (empty := given_empty().intersection(_GUARDS)):
        raise SettingsError(
            f"{', '.join(sorted(empty))} given and empty, so no token would be needed: give a value, or remove the name"
        )
    hosts, ports = (settings.db_host or "").count(",") + 1, settings.db_port.count(",") + 1
    if ports not in {1, hosts}:
        raise SettingsError(
            f"DB_PORT={settings.db_port!r}: it takes one port for all hosts, or one for each (DB_HOST has {hosts})"
        )
    if settings.source == "wal":
        _check_wal(settings)


def _check_wal(settings: Settings) -> None:
    if not servers_given():
        raise SettingsError("SOURCE='wal': the demo's tables NOTIFY; set DB_HOST and REDIS_URL, or remove SOURCE")
    if not settings.use_redis_notifier:
        raise SettingsError(
            "SOURCE='wal' needs USE_REDIS_NOTIFIER=true: else the workers LISTEN, and what is sent through the WAL"
            " notifies nobody"
        )


def load_queries(settings: Settings) -> Queries:
    """Return the team's queries, read now.

    Raises:
        SettingsError: a file can't be right; the message has one line for each.
    """
    folder = settings.queries_dir or _QUERIES_DIR
    queries = read_queries(folder, settings.notify_channels, settings.queries_dir is not None, settings.other_keys)
    if settings.snapshot_query is not None:
        queries = _with_snapshot(queries, settings.snapshot_query, folder)
    if not (settings.ws_jwt_secret or settings.ws_jwt_public_key):
        _check_without_tokens(queries, settings, folder)
    _check_rights(queries, settings, folder)
    return queries


def _check_rights(queries: Queries, settings: Settings, folder: Path) -> None:
    """Refuse rights for some keys only: events of a match would reach who may not have it by another key."""
    names = {MATCH_ID: AUTHORIZE, **{key: f"{AUTHORIZE}.{key}" for key in settings.other_keys}}
    missing = [name for key, name in names.items() if key not in queries.rights]
    if queries.rights and missing:
        raise SettingsError(
            f"{folder / missing[0]}.sql is missing, and another key of ROUTING_KEY has such a file: give one for each"
        )


def _with_snapshot(queries: Queries, text: str, folder: Path) -> Queries:
    if queries.snapshot:
        raise SettingsError(f"SNAPSHOT_QUERY and {folder / 'snapshot.sql'} are both given: give one of them")
    try:
        return replace(queries, snapshot=parse_query(SNAPSHOT, text))
    except SettingsError as error:
        raise SettingsError(f"SNAPSHOT_QUERY: {error}") from None


def _check_without_tokens(queries: Queries, settings: Settings, folder: Path) -> None:
    for query in queries.files:
        if query.claims or query.kind == AUTHORIZE:
            is_setting = query is queries.snapshot and settings.snapshot_query is not None
            name = "SNAPSHOT_QUERY" if is_setting else folder / f"{query.name}.sql"
            raise SettingsError(f"{name} needs clients' tokens: give WS_JWT_SECRET or WS_JWT_PUBLIC_KEY")


@cache
def load_queries_or_exit() -> Queries:
    """Return the queries of a program as `load_settings_or_exit` returns its settings."""
    settings = load_settings_or_exit()
    return _or_exit(lambda: load_queries(settings))


@cache
def load_settings_or_exit() -> Settings:
    """Return the settings of a program, read once and kept over forks: gunicorn's workers have their master's.

    A wrong value is printed, one line each, and ends the program with exit code 2. From here on the process connects to
    PostgreSQL by its settings alone.
    """
    _ignored.extend(libpq_environment.forget())
    return _or_exit(load_settings)


def _or_exit(load: Callable[[], T]) -> T:
    try:
        return load()
    except SettingsError as error:
        print(f"notifymux: {error}".replace("\n", "\nnotifymux: "), file=sys.stderr)  # noqa: T201 - logging is not set up yet
        raise SystemExit(2) from None


def where_settings_come_from() -> str:
    """Return which settings are set where, for the log: names only."""
    parts = []
    sources = names_by_source()
    left = set(SETTINGS)
    for source, names in sources.items():
        if found := sorted(names & left):
            parts.append(f"from {source}: {', '.join(found)}")
        left -= names
    if unknown := sorted(sources[".env"] - set(SETTINGS)):
        parts.append(f"in .env, but no settings: {', '.join(unknown)}")
    if _ignored:
        parts.append(f"ignored: {', '.join(_ignored)}")
    return "; ".join([*parts, "the rest: defaults"])
