"""The state of a match: whatever the configured SQL query returns for it."""

import asyncio
import logging
from typing import NamedTuple

import msgspec
import psycopg
from psycopg import conninfo
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from notifymux.event import NULL, payload_json
from notifymux.reconnect import one_line

logger = logging.getLogger(__name__)

_MAX_IDLE_SECONDS = 5.0  # then an unused connection is closed
_CLOSE_TIMEOUT_SECONDS = 1.0
_FAILURE = "the snapshot could not be taken; updates follow"


class Snapshot(NamedTuple):
    """A snapshot as JSON, `null` without one; `error` says to clients why the query failed."""

    data: bytes
    error: str | None = None


class SnapshotQuery:
    """Runs the query on a small pool that keeps no idle connections.

    Args:
        url: PostgreSQL's connection string.
        query: SQL with `%(match_id)s` that returns one JSON value.
        connections: the most that may be open at once.
        timeout: seconds that a query may take, with the wait for a connection.
        name: `application_name` of the sessions.
    """

    def __init__(self, url: str, query: str, connections: int, timeout: float, name: str) -> None:
        self._query, self._timeout = query.encode(), timeout
        options = conninfo.conninfo_to_dict(url).get("options") or ""
        self._pool = AsyncConnectionPool(
            conninfo.make_conninfo(
                url,
                application_name=name,
                client_encoding="UTF8",
                connect_timeout=max(2, int(timeout)),
                options=f"{options} -c statement_timeout={int(timeout * 1000)}".strip(),
            ),
            kwargs={"autocommit": True},
            min_size=0,
            max_size=connections,
            max_idle=_MAX_IDLE_SECONDS,
            reconnect_timeout=timeout,
            configure=_keep_json,
            open=False,
        )
        self.queries = self.failures = 0
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

    async def open(self) -> None:
        """Open the pool, without a connection yet."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close the pool and its connections."""
        await self._pool.close(timeout=_CLOSE_TIMEOUT_SECONDS)

    async def run(self, match: str) -> Snapshot:
        """Return the snapshot of a match. A failure is logged; the snapshot's `error` has no details of it."""
        self.queries += 1
        try:
            async with asyncio.timeout(self._timeout), self._pool.connection() as connection:
                row = await (await connection.execute(self._query, {"match_id": match})).fetchone()
        except (psycopg.Error, PoolTimeout, TimeoutError) as error:
            self.failures += 1
            logger.warning("the snapshot of match %r failed: %s", match, one_line(error))
            return Snapshot(NULL, _FAILURE)
        return Snapshot(_json(row[0] if row else None))


async def _keep_json(connection: psycopg.AsyncConnection) -> None:
    """Have JSON passed on as the text that the database sends."""
    set_json_loads(msgspec.Raw, connection)


def _json(value: object) -> bytes:
    if value is None:
        return NULL
    return payload_json(bytes(value) if isinstance(value, msgspec.Raw) else str(value).encode())
