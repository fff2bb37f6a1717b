"""The encoding of the text that a PostgreSQL session sends and receives.

PostgreSQL ends a LISTEN session at the first notification that it can't convert to the client's encoding, and a
database that isn't UTF8 may hold bytes that have no UTF-8. So a session takes its database's own encoding, PostgreSQL
converts nothing, and the text is decoded here, with U+FFFD for what has no meaning.
"""

import re

import psycopg
from psycopg import pq

# Python's codecs of these encodings map every byte as PostgreSQL does, where PostgreSQL maps it. Those of several bytes
# for a character (EUC_JP and its like) differ from PostgreSQL's, which goes on to convert them.
_CODECS = (
    (re.compile("SQL_ASCII"), "utf-8"),  # a database without an encoding: what its clients most likely write
    (re.compile(r"LATIN(\d+)"), r"latin\1"),
    (re.compile(r"WIN(\d+)"), r"cp\1"),
    (re.compile(r"ISO_8859_(\d)"), r"iso8859-\1"),
    (re.compile("KOI8([RU])"), r"koi8-\1"),
)


def own_encoding_sql(pgconn: pq.abc.PGconn, *, local: bool = False) -> str | None:
    """Return the statement that makes a session take its database's encoding; None where UTF8 is right.

    Args:
        pgconn: an open connection.
        local: for the rest of the statement's simple query only. The query's own text still is in the encoding before.
    """
    name = _status(pgconn, b"server_encoding")
    return f"SET {'LOCAL ' if local else ''}client_encoding TO '{name}'" if _codec(name) else None


def client_codec(pgconn: pq.abc.PGconn) -> str:
    """Return Python's codec of the text that a session sends and receives now."""
    return _codec(_status(pgconn, b"client_encoding")) or "utf-8"


def server_codec(pgconn: pq.abc.PGconn) -> str:
    """Return Python's codec of the text that a session receives once it has its database's encoding."""
    return _codec(_status(pgconn, b"server_encoding")) or "utf-8"


def encode(pgconn: pq.abc.PGconn, sql: str) -> bytes:
    """Return a query in a session's encoding.

    Raises:
        psycopg.errors.UntranslatableCharacter: the encoding lacks a character.
    """
    codec = client_codec(pgconn)
    try:
        return sql.encode(codec)
    except UnicodeEncodeError as error:
        name = _status(pgconn, b"server_encoding")
        raise psycopg.errors.UntranslatableCharacter(
            f"the database's encoding {name} has no {sql[error.start : error.end]!r}"
        ) from None


def to_utf8(text: bytes, codec: str) -> bytes:
    """Return a received text in UTF-8, with U+FFFD for every byte that means nothing."""
    return text.decode(codec, errors="replace").encode()


def _codec(name: str) -> str | None:
    return next((known.sub(codec, name).lower() for known, codec in _CODECS if known.fullmatch(name)), None)


def _status(pgconn: pq.abc.PGconn, name: bytes) -> str:
    return (pgconn.parameter_status(name) or b"").decode("ascii", errors="replace")
