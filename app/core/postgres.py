"""PostgreSQL for listener and workers: the connection strings, and the SQL of a LISTEN session."""

from collections.abc import Iterable, Mapping

from psycopg import conninfo as libpq

from app.core.config import Settings
from app.core.operator_errors import OperatorError
from app.core.serving_address import with_port
from app.core.settings_sources import read_secret

CONNECT_TIMEOUT_SECONDS = 3
# After this time without a TCP acknowledgement either end drops the connection. A session whose path is cut is replaced
# within 10 s; by then the server must have ended the old one.
_TCP_TIMEOUT_MS = 6000
# Serializable, read-only and deferrable together wait until every serializable writer before them has ended.
TRANSACTIONS = {"default_transaction_isolation": "read\\ committed", "default_transaction_deferrable": "off"}
# pg_stat_get_activity() and not the view pg_stat_activity, whose joins take four times as long: the canary measures
# latency.
# On one line, because operators read it in pg_stat_activity, where psql would show every further line as a row.
_CANARY_JSON = (
    "(SELECT json_build_object("
    "'canary', {token}, 'sent', {sent:.6f}, 'clock', extract(epoch FROM clock_timestamp())::float8, "
    "'queue', pg_notification_queue_usage(), "
    "'listening', count(*) FILTER (WHERE query LIKE 'LISTEN%'), "
    "'connections', count(*) FILTER (WHERE backend_type = 'client backend'), "
    "'max_connections', current_setting('max_connections')::int)::text "
    "FROM pg_stat_get_activity(NULL))"
)


def database_url(settings: Settings) -> str:
    """The settings as a libpq connection string. It contains the password: never log it.

    The password is read anew where DB_PASSWORD_FILE names its file: an operator rotates it without a restart.

    Raises:
        OperatorError: DB_HOST is not set.
        SettingsError: the password's file can't be read, or no longer.
    """
    password = settings.db_password.get_secret_value() if settings.db_password else None
    if settings.db_password_file:
        password = read_secret("DB_PASSWORD", settings.db_password_file)
    return libpq.make_conninfo(url_without_password(settings), password=password)


def url_without_password(settings: Settings) -> str:
    """The same without the password, and without reading its file.

    Raises:
        OperatorError: DB_HOST is not set.
    """
    if settings.db_host is None:
        raise OperatorError("DB_HOST is not set: it takes the host of the PostgreSQL to listen to")
    return libpq.make_conninfo(
        host=settings.db_host,
        port=settings.db_port,
        user=settings.db_user,
        dbname=settings.db_name,
        sslmode=settings.db_sslmode,
        sslrootcert=settings.db_sslrootcert,
        target_session_attrs="read-write",  # of several hosts the primary; a standby refuses LISTEN
    )


def describe(url: str) -> str:
    """A connection string's server, database and user for log lines, without the password."""
    return f"{describe_server(url)} as {libpq.conninfo_to_dict(url).get('user', '?')}"


def describe_server(url: str) -> str:
    """A connection string's servers and database for log lines."""
    parts = libpq.conninfo_to_dict(url)
    hosts, ports = str(parts.get("host", "localhost")).split(","), str(parts.get("port", "")).split(",")
    ports = ports if len(ports) > 1 else ports * len(hosts)
    servers = ",".join(with_port(host, port) if port else host for host, port in zip(hosts, ports, strict=True))
    return f"{servers}, database {parts.get('dbname', '?')}"


def listening_conninfo(url: str, application_name: str) -> str:
    """`url` for a session that LISTENs: it has a name, and both ends drop it seconds after its path is cut.

    No timeout ends its queries: one that waits behind a stalled commit is healthy (`app.core.session_health`). What a
    role, a database or a server sets of what its queries depend on is replaced.
    """
    options: dict[str, str | int] = {
        "search_path": "pg_catalog",  # or somebody's function of the same name may be called instead
        "extra_float_digits": 1,  # a time in seconds has more than 15 digits
        "DateStyle": "ISO",
        "TimeZone": "UTC",
        **TRANSACTIONS,
        "statement_timeout": 0,
        "lock_timeout": 0,
        "idle_session_timeout": 0,
        # So that a backend whose client has gone ends while it waits, and doesn't wait for the whole stall.
        "client_connection_check_interval": "2s",
        "tcp_user_timeout": _TCP_TIMEOUT_MS,
        "tcp_keepalives_idle": 2,
        "tcp_keepalives_interval": 1,
        "tcp_keepalives_count": 4,
    }
    return libpq.make_conninfo(
        url,
        application_name=application_name,
        client_encoding="UTF8",
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        keepalives=1,
        keepalives_idle=2,
        keepalives_interval=1,
        keepalives_count=4,
        tcp_user_timeout=_TCP_TIMEOUT_MS,
        options=with_options(url, options),
    )


def with_options(url: str, settings: Mapping[str, str | int]) -> str:
    """The options of a connection string, and settings of the session that take precedence over them."""
    given = libpq.conninfo_to_dict(url).get("options") or ""
    return " ".join([str(given), *(f"-c {name}={value}" for name, value in settings.items())]).strip()


def listen_sql(channels: Iterable[str], then: str = "") -> str:
    """One simple query that LISTENs on all of `channels`, or on none if it fails, and then runs the statement `then`.

    Later queries of the same session start with LISTEN as well, so that `pg_stat_activity` always shows them as such.
    """
    return "; ".join([*(f"LISTEN {_identifier(channel)}" for channel in channels), *([then] if then else [])])


def canary_sql(channel: str, token: str, sent: float) -> str:
    """The query that notifies a canary (`app.core.canary`) on `channel`; `sent` is the current time, Unix seconds."""
    return f"SELECT pg_notify({literal(channel)}, {canary_json(token, sent)})"


def canary_json(token: str, sent: float) -> str:
    """The SQL expression of a canary's payload."""
    return _CANARY_JSON.format(token=literal(token), sent=sent)


def literal(text: str) -> str:
    """`text` as an SQL literal for either value of standard_conforming_strings."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in text else f"'{escaped}'"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
