"""One connection for queries. Everything here blocks, for a bounded time unless a host's name is looked up."""

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Self

import psycopg
from psycopg import conninfo as libpq

from app.core.postgres import TRANSACTIONS, with_options
from app.core.postgres_connect import connect, query
from app.core.text_encoding import own_encoding_sql, server_codec, to_utf8

Parameters = Mapping[str, str | None]

_CONNECT_TIMEOUT_SECONDS = 2  # for each host
_CHECK_TIMEOUT_SECONDS = 1.0
# Then a connection is not used again: its address may lead to another server by now.
_MAX_AGE_SECONDS = 60.0


class QueryConnection:
    """A connection to the primary, as it was when the connection was opened.

    Args:
        connection: in autocommit mode.
    """

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection, self._opened_at = connection, time.monotonic()

    @classmethod
    def open(cls, url: str, name: str, statement_timeout: float) -> Self:
        """Connect.

        Args:
            url: PostgreSQL's connection string.
            name: the session's `application_name`.
            statement_timeout: seconds after which the server cancels a query.

        Raises:
            psycopg.Error: no server can be reached, or all refuse.
        """
        conninfo = libpq.make_conninfo(
            url,
            application_name=name,
            client_encoding="UTF8",
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            options=with_options(url, {"statement_timeout": int(statement_timeout * 1000), **TRANSACTIONS}),
        )
        return cls(connect(conninfo))

    def is_usable(self) -> bool:
        """Whether it still leads to a primary that answers."""
        if time.monotonic() - self._opened_at > _MAX_AGE_SECONDS:
            return False
        try:
            return query(self._connection.pgconn, "SELECT pg_is_in_recovery()", _CHECK_TIMEOUT_SECONDS) == [[b"f"]]
        except psycopg.Error:
            return False

    def value(self, sql: bytes, parameters: Parameters, timeout: float) -> bytes | None:
        """Run a query and return the first value of its first row in UTF-8; None without one, or for NULL.

        Raises:
            psycopg.Error: it failed, or was not answered within `timeout` seconds.
        """
        rows = self.rows(sql, parameters, timeout)
        return rows[0][0] if rows and rows[0] else None

    def rows(self, sql: bytes, parameters: Parameters, timeout: float) -> list[list[bytes | None]]:
        """Run a query and return all that its last statement returns, in UTF-8.

        Raises:
            psycopg.Error: it failed, or was not answered within `timeout` seconds.
        """
        with closing(psycopg.ClientCursor(self._connection)) as cursor:
            text = cursor.mogrify(sql, dict(parameters))
        pgconn = self._connection.pgconn
        own = own_encoding_sql(pgconn, local=True)
        rows = query(pgconn, f"{own}; {text}" if own else text, timeout)
        if not own:
            return rows
        codec = server_codec(pgconn)
        return [[value if value is None else to_utf8(value, codec) for value in row] for row in rows]

    def close(self) -> None:
        """Close it."""
        self._connection.close()
