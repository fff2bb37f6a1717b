"""Databases that aren't UTF8, and bytes in them that have no UTF-8."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.core import text_encoding
from app.core.listen_session import ListenSession
from app.core.postgres import listen_sql, listening_conninfo
from app.core.postgres_connect import open_session
from tests.conftest import RedisPlace, StartApp, StartListener, Verify, redis_mode
from tests.support.servers import drop_database
from tests.support.waiting import wait_until

# By encoding: bytes of a name in SQL's escapes, and the text that clients receive.
NAMES = {
    "SQL_ASCII": (r"Z\303\274rich \374", "Zürich �"),  # what UTF-8 clients write, and what others do
    "LATIN1": (r"Z\374rich \205", "Zürich \x85"),
    "WIN1252": (r"Z\374rich \200 \201", "Zürich € �"),
    "EUC_JP": (r"\244\242\255\241", "あ①"),  # PostgreSQL converts it, and knows more of it than Python
    "UTF8": (r"Z\303\274rich", "Zürich"),
}


@pytest.fixture(params=NAMES)
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def encoded(database: str, encoding: str) -> Iterator[str]:
    """A database in an encoding."""
    name = f"{conninfo_to_dict(database)['dbname']}_{encoding.lower()}"
    with closing(psycopg.connect(database, autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING {encoding} LOCALE 'C' TEMPLATE template0".encode())
    yield make_conninfo(database, dbname=name)
    drop_database(database, name)


@pytest.fixture
def writer(encoded: str) -> Iterator[psycopg.Connection]:
    with closing(psycopg.connect(encoded, autocommit=True, client_encoding="UTF8")) as connection:
        yield connection


def test_every_event_snapshot_and_check_arrives_with_what_has_no_utf8_replaced(
    encoding: str,
    encoded: str,
    writer: psycopg.Connection,
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
) -> None:
    escaped, text = NAMES[encoding]
    writer.execute(f"CREATE TABLE team (name text); INSERT INTO team VALUES (E'{escaped}')".encode())
    settings = redis_mode(encoded, redis_place) | {
        "WEB_CONCURRENCY": "1",
        "NOTIFY_CHANNELS": "match_change,größe" if encoding != "EUC_JP" else "match_change,あ",
        "SNAPSHOT_QUERY": "SELECT json_build_object('name', name, 'match', %(match_id)s::text) FROM team",
    }
    listener = start_listener(settings).wait_until_aligned()
    app = start_app(settings).wait_until_ready()
    direct = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    channel = settings["NOTIFY_CHANNELS"].partition(",")[2]
    payload = f'{{"match_id": 1, "data": "{escaped}"}}'
    with app.client(1) as by_redis, direct.client(1) as directly:
        for client in (by_redis, directly):
            assert client.wait_for_initial_load()["data"] == {"name": text, "match": "1"}
        for name in ("match_change", channel):
            writer.execute(f"SELECT pg_notify('{name}', E'{payload}')".encode())
        for client in (by_redis, directly):
            found = [(update["channel"], update["data"]) for update in client.wait_for_updates(2)]
            assert found == [("match_change", text), (channel, text)]
            assert not client.of_type("resync")
    direct.stop()
    with closing(psycopg.connect(encoded, autocommit=True)) as other:  # in the database's encoding
        raw = escaped.encode().decode("unicode_escape").encode("latin1")
        other.execute(b"SELECT '%b'" % raw)  # pg_stat_activity shows it, and verify reads that
        verified = verify(settings)
    assert verified.with_status("failed") == [], verified.log
    assert not [line for line in listener.lines if "away" in line], listener.log


@pytest.mark.parametrize("encoding", ["LATIN1"], indirect=True)
def test_what_the_encoding_lacks_is_an_error_with_its_reason_and_no_traceback(
    encoded: str,
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    settings = redis_mode(encoded, redis_place) | {"SNAPSHOT_QUERY": "SELECT to_json(%(match_id)s::text)"}
    start_listener(settings).wait_until_aligned()
    with start_app(settings).wait_until_ready().client("漢") as client:
        assert client.wait_for_initial_load()["error"]
    listener = start_listener(settings | {"NOTIFY_CHANNELS": "漢"})
    listener.wait_for_log("LATIN1")
    assert listener.running
    assert "Traceback" not in listener.log


def test_python_decodes_every_byte_as_postgresql_does(connection: psycopg.Connection) -> None:
    connection.execute(
        "CREATE FUNCTION decoded(byte bytea, encoding text) RETURNS text LANGUAGE plpgsql AS $$ "
        "BEGIN RETURN convert_from(byte, encoding); EXCEPTION WHEN others THEN RETURN NULL; END $$"
    )
    encodings = connection.execute("SELECT pg_encoding_to_char(n) FROM generate_series(0, 34) n").fetchall()
    assert len(encodings) == 35
    for (encoding,) in encodings:
        codec = text_encoding._codec(encoding)
        if codec in {None, "utf-8"}:
            continue
        rows = connection.execute(
            "SELECT n, decoded(decode(lpad(to_hex(n), 2, '0'), 'hex'), %s) FROM generate_series(1, 255) n", [encoding]
        )
        for number, expected in rows:
            assert text_encoding.to_utf8(bytes([number]), codec).decode() == (expected or "�"), (encoding, number)


@pytest.mark.parametrize("encoding", ["UTF8", "EUC_JP"], indirect=True)
def test_a_session_of_utf8_or_of_several_bytes_is_as_it_was(encoded: str) -> None:
    opened = open_session(listening_conninfo(encoded, "notifymux-test"))
    with closing(opened.connection):
        assert opened.connection.info.parameter_status("client_encoding") == "UTF8"
        session = ListenSession(opened.connection.pgconn)
        session.send(listen_sql(["あ"], "SELECT pg_notify('あ', 'あ')"))
        received = wait_until(session.receive)
        assert [(note.channel, note.payload.decode()) for note in received] == [("あ", "あ")]
