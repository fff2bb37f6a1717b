"""A watch fails no write that succeeds without it, whatever the row contains."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.core.listen_session import ListenSession
from app.core.postgres import listen_sql, listening_conninfo
from app.core.postgres_connect import open_session
from notifymux.event import payload_json
from tests.conftest import fresh_database
from tests.support.schema import install
from tests.support.servers import drop_database
from tests.support.waiting import wait_until

MAX_BYTES = 7999  # of a payload

DEEP = "[" * 3000 + "]" * 3000  # an event that nests so deeply is text (`payload_json`)
# Each is tried as a value of every type. What a type takes is then written.
TEXTS = (
    "", "0", "1", "-1", "1.5", "1e200000", "-1e-16000", "NaN", "Infinity", "-Infinity", "t", "true", "a", "ab", "'",
    "\\",
    "null", "{}", "[]", "[1]", "{1}", "{NULL}", '{"a": 1}', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"',
    '"\\u00e9"', '"\\u20ac"', '{"\\u0000": 1}', "1e400", '{"a": 1e200000}', DEEP, '"' + "x" * 9000 + '"',
    "2026-11-28", "infinity", "-infinity", "4714-11-24 BC", "294276-12-31 23:59:59", "24:00:00", "12:00:00+15:59",
    "178000000 years", "192.0.2.1", "::/0", "08:00:2b:01:02:03", "08:00:2b:01:02:03:04:05", "(1,2)", "(1,2),(3,4)",
    "[(1,2),(3,4)]", "((1,2),(3,4))", "<(1,2),3>", "{1,2,3}", "(,)", "[1,2)", "empty", "{[1,2)}", "<a>&#0;</a>",
    "<a/>", "a & b", "a:1", "10:20:10,15", "16/B374D848", "\\x00ff", "x" * 3000, "é", "€", "pg_class", "int4",
    "00000000-0000-0000-0000-000000000000", "$.a", "101", "B101", "(1,a)", "one", "1:1", "'a':1 'b'",
    "postgres=r/postgres", "1 2", "txid", "pg_notify(text,text)", "pg_notify", "+", "+(int4,int4)", "english", "simple",
)  # fmt: skip
KEYS = ("1", "final", "", "\\", '"' * 1300, "x" * 2655, "x" * 2656, "x" * 3980, "x" * 7990, "x" * 20_000, "\x01" * 1300)

OWN_TYPES = """
CREATE TYPE kind AS ENUM ('one', 'it''s'); CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE TYPE pair AS (x int, y text); CREATE TYPE span AS RANGE (subtype = float8);
CREATE FUNCTION refused(pair) RETURNS json LANGUAGE plpgsql AS 'BEGIN RAISE ''no JSON''; END';
CREATE CAST (pair AS json) WITH FUNCTION refused(pair);
CREATE FUNCTION takes(type text, value text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    EXECUTE format('SELECT %L::%s', value, type);
    RETURN true;
EXCEPTION WHEN OTHERS THEN
    RETURN false;
END $$
"""
TYPES = """
SELECT format_type(oid, NULL) FROM pg_type t
WHERE typtype IN ('b', 'e', 'd', 'r', 'm') AND typarray <> 0
    AND typnamespace IN ('pg_catalog'::regnamespace, 'public'::regnamespace)
UNION ALL VALUES ('pair'), ('kind[]'), ('json[]'), ('text[]'), ('numeric[]') ORDER BY 1
"""


def literal(value: bytes | None) -> bytes:
    """Bytes as an SQL literal, which the server takes as they are."""
    if value is None:
        return b"NULL"
    return b"E'" + b"".join(b"\\x%02x" % byte for byte in value) + b"'"


class Tables:
    """A table of all types that is watched, one that is not, and a session that LISTENs."""

    def __init__(self, conninfo: str, *, per_statement: bool) -> None:
        options = "-c client_encoding=UTF8 -c synchronous_commit=off"
        self.connection = psycopg.connect(conninfo, autocommit=True, options=options)
        self.connection.execute(OWN_TYPES.encode())
        self.types = {f"c{number}": name for number, (name,) in enumerate(self.connection.execute(TYPES.encode()))}
        self.types = {column: name for column, name in self.types.items() if self._is_column_type(name)}
        columns = ", ".join(["id text", "match_id text", *(f"{column} {name}" for column, name in self.types.items())])
        self.connection.execute(f"CREATE TABLE plain ({columns}); CREATE TABLE scoreboard ({columns})".encode())
        install(self.connection)
        self.connection.execute(
            "SELECT notifymux.watch('scoreboard', 'scoreboard_change', per_statement => %s)", [per_statement]
        )
        taken = "SELECT text FROM unnest(%s::text[]) AS text WHERE takes(%s, text)"
        self.values = {
            column: [text for (text,) in self.connection.execute(taken, [list(TEXTS), name])]
            for column, name in self.types.items()
        }
        self.opened = open_session(listening_conninfo(conninfo, "notifymux-test"))
        self.session = ListenSession(self.opened.connection.pgconn)
        self.session.send(listen_sql(["scoreboard_change"]))
        wait_until(self._is_idle)

    def close(self) -> None:
        self.opened.connection.close()
        self.connection.close()

    def succeeds(self, sql: bytes) -> bool:
        try:
            self.connection.execute(sql)
        except psycopg.Error:
            return False
        return True

    def write(self, row: Mapping[str, bytes | None]) -> list[dict[str, Any]]:
        """Insert, update and delete a row that is watched, if that works without it; return what was notified."""
        columns, values = ", ".join(row).encode(), b", ".join(map(literal, row.values()))
        changes = b", ".join(b"%b = %b" % (name.encode(), literal(value)) for name, value in row.items())
        insert, update = b"INSERT INTO %%b (%b) VALUES (%b)" % (columns, values), b"UPDATE %%b SET %b" % changes
        if not self.succeeds(insert % b"plain"):
            return []
        table = b"scoreboard"
        self.connection.execute(b"; ".join([insert % table, update % table, b"DELETE FROM scoreboard"]))
        notified: list[dict[str, Any]] = []

        def all_arrived() -> bool:
            for note in self.session.receive():
                assert len(note.payload) <= 3 * MAX_BYTES
                notified.append(json.loads(payload_json(note.payload)))
            return len(notified) == 3

        wait_until(all_arrived, 10, lambda: f"{notified}")
        return notified

    def _is_idle(self) -> bool:
        self.session.receive()
        return self.session.is_idle

    def _is_column_type(self, name: str) -> bool:
        return self.succeeds(f"CREATE TEMP TABLE tried (c {name}); DROP TABLE tried".encode())


ENCODINGS = ["UTF8", "SQL_ASCII", "WIN1252"]
WAYS = [(encoding, by) for encoding in ENCODINGS for by in ("row", "statement")]


@pytest.fixture(scope="module", params=WAYS, ids=" by ".join)
def tables(request: pytest.FixtureRequest) -> Iterator[Tables]:
    encoding, by = request.param
    with fresh_database(request) as database:
        name = f"{conninfo_to_dict(database)['dbname']}_{encoding.lower()}"
        with closing(psycopg.connect(database, autocommit=True)) as connection:
            connection.execute(f"CREATE DATABASE {name} ENCODING {encoding} LOCALE 'C' TEMPLATE template0".encode())
        with closing(Tables(make_conninfo(database, dbname=name), per_statement=by == "statement")) as tables:
            yield tables
        drop_database(database, name)


def test_every_value_of_every_type_can_be_written_and_is_announced_with_its_match(tables: Tables) -> None:
    assert len(tables.types) > 70
    # gtsvector takes no text, and the embedded PostgreSQL is built without libxml.
    assert {name for column, name in tables.types.items() if not tables.values[column]} <= {"xml", "gtsvector"}
    # Before version 15, a "char" is printed as the byte that it is, and then the payload is no UTF-8.
    raw = {'"char"'} if tables.connection.info.server_version < 150_000 else set()
    for column, values in tables.values.items():
        for value in [None, *(text.encode() for text in values)]:
            notified = tables.write({"id": b"7", "match_id": b"1", column: value})
            # An assignment to bit is stricter than a cast, so that nothing is written.
            if notified and value != DEEP.encode() and tables.types[column] not in raw:
                assert [event["match_id"] for event in notified] == ["1"] * 3, (tables.types[column], value)


def test_a_long_key_can_be_written_and_is_announced_with_its_match_if_that_fits(tables: Tables) -> None:
    for key in KEYS:
        for match in ("1", key, None):
            notified = tables.write({"id": key.encode(), "match_id": None if match is None else match.encode()})
            fits = match is None or len(json.dumps(match)) < MAX_BYTES - 150  # the other members
            assert [event["match_id"] for event in notified] == [match if fits else None] * 3, (key[:20], len(key))


SCALARS = ["null", "true", "0", "-0.0", "1e400", "1e200000", '"\\u0000"', '"\\ud83d"', '"\\ud83d\\ude00"', '"é"']
JSON_TEXT = st.recursive(
    st.sampled_from(SCALARS) | st.text(alphabet="a\\\"'/bnu0d8 \n€", max_size=8).map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.dictionaries(st.sampled_from(['"a"', '"\\u0000"']), inner).map(
            lambda items: "{" + ",".join(map(":".join, items.items())) + "}"
        )
    ),
)
ANY_BYTES = st.binary(max_size=40).map(lambda text: text.replace(b"\0", b"\x81")) | st.binary(
    min_size=1, max_size=3
).map(lambda text: text.replace(b"\0", b"\x9d") * 1400)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_row_that_can_be_written_unwatched_is_refused_when_watched(tables: Tables, data: st.DataObject) -> None:
    row: dict[str, bytes | None] = {}
    for name in ("id", "match_id"):
        row[name] = data.draw(st.none() | st.sampled_from(KEYS).map(str.encode) | ANY_BYTES)
    for column in data.draw(
        st.sets(st.sampled_from(sorted(name for name in tables.values if tables.values[name])), max_size=8)
    ):
        values = st.none() | st.sampled_from(tables.values[column]).map(str.encode)
        if tables.types[column] in {"json", "jsonb"}:
            values |= JSON_TEXT.map(str.encode)
        elif tables.types[column] in {"text", "bytea", "character varying", "json"}:
            values |= ANY_BYTES
        row[column] = data.draw(values)
    for event in tables.write(row):
        assert isinstance(event, str) or set(event) == {"table", "operation", "match_id", "new_id", "old_id", "data"}
