"""`notifymux.watch`: which changes it announces, how, and to whose rights."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.schema import heard, install
from tests.support.servers import drop_database

Session = psycopg.Connection[Any]


@pytest.fixture
def session(connection: Session) -> Session:
    """A session that LISTENs on `c`, in a database with the schema."""
    install(connection)
    connection.execute("LISTEN c")
    return connection


@pytest.fixture(params=[False, True], ids=["by row", "by statement"])
def per_statement(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def watch(session: Session, table: str, **options: Any) -> None:
    """Watches a table on the channel `c`."""
    arguments = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(name), value) for name, value in {"channel": "c", **options}.items()
    )
    session.execute(sql.SQL("SELECT notifymux.watch({}, {})").format(table, arguments))


def changes(session: Session) -> list[tuple[str, Any, Any]]:
    return [(told["operation"], told["old_id"], told["new_id"]) for told in heard(session)]


def refusal(session: Session, table: str, **options: Any) -> str:
    with pytest.raises(psycopg.Error) as refused:
        watch(session, table, **options)
    message = refused.value.diag.message_primary
    assert message
    assert "\n" not in message
    return message


def test_any_names_and_types_are_announced(session: Session, per_statement: bool) -> None:
    session.execute('''
        CREATE SCHEMA "Ligue 1";
        CREATE DOMAIN "Ligue 1".points AS int CHECK (value >= 0);
        CREATE TABLE "Ligue 1"."le ""score"" 100%s" (
            gone int, "the %s 'match' ""key""" "Ligue 1".points, "Id" int, tags text[], doc jsonb, raw bytea,
            ratio float8, day date, at timestamp, twice int GENERATED ALWAYS AS ("Id" * 2) STORED, "table" int,
            payload int, r int, after int, before int
        );
        ALTER TABLE "Ligue 1"."le ""score"" 100%s" DROP gone
    ''')
    table, key = '"Ligue 1"."le ""score"" 100%s"', "the %s 'match' \"key\""
    watch(session, table, key=key, per_statement=per_statement, other_keys=["Id", "table"], only_if_changed=[key, "r"])
    session.execute(
        f"""
        INSERT INTO {table} VALUES (7, 1, '{{a,NULL}}', '{{"a": [1e3]}}', '\\x00ff', 'NaN', 'infinity', '-infinity')
    """.encode()
    )
    row = {
        key: 7, "Id": 1, "tags": ["a", None], "doc": {"a": [1000]}, "raw": "\\x00ff", "ratio": "NaN", "day": "infinity",
        "at": "-infinity", "twice": 2, "table": None, "payload": None, "r": None, "after": None, "before": None,
    }  # fmt: skip
    told = {"table": 'le "score" 100%s', "match_id": 7, "new_id": None, "old_id": None, "Id": 1}
    assert heard(session) == [told | {"operation": "INSERT", "data": row}]
    session.execute(f"""UPDATE {table} SET ratio = 'infinity', "Id" = 2; UPDATE {table} SET r = 1""".encode())
    row |= {"Id": 2, "twice": 4, "ratio": "Infinity", "r": 1}
    assert heard(session) == [told | {"operation": "UPDATE", "Id": 2, "data": row}]


def test_every_row_of_a_statement_is_announced_in_its_order_with_its_ids_before_and_after(
    session: Session, per_statement: bool
) -> None:
    session.execute("CREATE TABLE t (id int, match_id int)")
    watch(session, "t", per_statement=per_statement)
    session.execute("INSERT INTO t SELECT number, 1 FROM generate_series(1, 300) AS number")
    session.execute("UPDATE t SET id = id + 1000")
    session.execute("DELETE FROM t WHERE id > 1000")
    session.execute("UPDATE t SET id = 1; DELETE FROM t")
    assert changes(session) == [
        *(("INSERT", None, number) for number in range(1, 301)),
        *(("UPDATE", number, number + 1000) for number in range(1, 301)),
        *(("DELETE", number + 1000, None) for number in range(1, 301)),
    ]


def test_one_statement_that_inserts_and_updates_announces_both(session: Session, per_statement: bool) -> None:
    session.execute("CREATE TABLE t (id int PRIMARY KEY, match_id int)")
    watch(session, "t", per_statement=per_statement)
    session.execute("INSERT INTO t VALUES (1, 1)")
    session.execute("INSERT INTO t VALUES (1, 1), (2, 1) ON CONFLICT (id) DO UPDATE SET id = 3")
    assert sorted(changes(session), key=str) == [("INSERT", None, 1), ("INSERT", None, 2), ("UPDATE", 1, 3)]


def test_an_update_that_changes_none_of_the_columns_is_not_announced_also_of_types_without_equality(
    session: Session, per_statement: bool
) -> None:
    session.execute("CREATE TABLE t (id int, match_id int, doc json, place point, ratio float8, seen int)")
    watch(session, "t", per_statement=per_statement, only_if_changed=["doc", "place", "ratio"])
    session.execute("INSERT INTO t VALUES (1, 1, '{}', '(1,2)', 'NaN', 0), (2, 1, NULL, NULL, NULL, 0)")
    session.execute("UPDATE t SET seen = 1, ratio = ratio, doc = doc")
    session.execute("UPDATE t SET place = '(1,3)' WHERE id = 1; UPDATE t SET doc = '1' WHERE id = 2")
    session.execute("UPDATE t SET ratio = CASE id WHEN 1 THEN 'NaN'::float8 ELSE 1 END")
    session.execute("DELETE FROM t")
    assert changes(session) == [
        ("INSERT", None, 1), ("INSERT", None, 2), ("UPDATE", 1, 1), ("UPDATE", 2, 2), ("UPDATE", 2, 2),
        ("DELETE", 1, None), ("DELETE", 2, None),
    ]  # fmt: skip


def test_a_row_that_is_no_json_is_announced_with_its_keys(session: Session, per_statement: bool) -> None:
    session.execute("CREATE TABLE t (id int, match_id int, team_id int, doc json)")
    watch(session, "t", per_statement=per_statement, other_keys=["team_id"], only_if_changed=["id"])
    session.execute("""
        INSERT INTO t VALUES (1, 7, 5, '"\\u0000"'), (2, 7, 5, '1'), (3, 7, 5, '1e200000');
        UPDATE t SET doc = '"\\u0000"', id = id + 10; DELETE FROM t WHERE id = 11
    """)
    told = heard(session)
    assert [(each["operation"], each["old_id"], each["new_id"]) for each in told] == [
        ("INSERT", None, 1), ("INSERT", None, 2), ("INSERT", None, 3),
        ("UPDATE", 1, 11), ("UPDATE", 2, 12), ("UPDATE", 3, 13), ("DELETE", 11, None),
    ]  # fmt: skip
    assert {(each["match_id"], each["team_id"]) for each in told} == {(7, 5)}
    assert [each["data"] is None for each in told] == [True, False, True, True, True, True, True]


def test_a_table_without_any_key_can_be_written(session: Session, per_statement: bool) -> None:
    session.execute("CREATE TABLE t (doc json)")
    watch(session, "t", key="doc", per_statement=per_statement)
    session.execute("INSERT INTO t VALUES ('\"\\u0000\"'), ('1'); UPDATE t SET doc = NULL; DELETE FROM t")
    told = heard(session)
    assert [each["match_id"] for each in told] == [
        None,
        1,
        None,
        None,
        None,
    ]  # what is equal arrives once in a transaction
    assert session.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_a_column_that_is_renamed_or_dropped_later_fails_no_write(session: Session, per_statement: bool) -> None:
    session.execute("CREATE TABLE t (id int, match_id int, team_id int, a int, doc json)")
    watch(session, "t", per_statement=per_statement, other_keys=["team_id"], only_if_changed=["a", "id"])
    session.execute("INSERT INTO t VALUES (1, 7, 5, 0, '\"\\u0000\"')")
    session.execute("ALTER TABLE t RENAME match_id TO game_id")
    session.execute("ALTER TABLE t RENAME a TO b")
    session.execute("ALTER TABLE t DROP team_id, ADD new_column int DEFAULT 4")
    session.execute("UPDATE t SET b = 2; INSERT INTO t VALUES (2, 8, 1, NULL)")
    told = heard(session)
    assert [(each["match_id"], each["new_id"], each["team_id"]) for each in told] == [
        (7, 1, 5),
        (None, 1, None),
        (None, 2, None),
    ]
    assert told[2]["data"] == {"id": 2, "game_id": 8, "b": 1, "doc": None, "new_column": 4}


@pytest.fixture
def writer(session: Session, database: str) -> Iterator[Session]:
    """A session of a role that may write by what it is granted, and has a `search_path` of its own making."""
    name = str(conninfo_to_dict(database)["dbname"]) + "_writer"
    session.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'; CREATE SCHEMA {name} AUTHORIZATION {name}".encode())
    with closing(psycopg.connect(make_conninfo(database, user=name, password="p"), autocommit=True)) as connection:
        connection.execute(f"SET search_path = {name}, pg_catalog, public".encode())
        yield connection
    session.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())


def test_whoever_may_write_the_table_may_have_it_announced(
    session: Session, writer: Session, per_statement: bool
) -> None:
    session.execute("CREATE SCHEMA private CREATE TABLE private.t (id int, match_id int, doc json)")
    watch(session, "private.t", per_statement=per_statement, only_if_changed=["id"])
    session.execute("CREATE VIEW v AS SELECT * FROM private.t")
    session.execute(f"GRANT INSERT, UPDATE, DELETE ON v TO {writer.info.user}".encode())  # and no right to the schema
    writer.execute("INSERT INTO v VALUES (1, 7, '\"\\u0000\"'), (2, 7, '1'); UPDATE v SET id = 3; DELETE FROM v")
    assert len(heard(session)) == 6


def test_watching_takes_the_right_to_make_triggers_and_unwatching_takes_the_table(
    session: Session, writer: Session
) -> None:
    session.execute("CREATE TABLE t (id int, match_id int)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        watch(writer, "public.t")
    session.execute(f"GRANT TRIGGER ON t TO {writer.info.user}".encode())
    watch(writer, "public.t")
    watch(writer, "public.t", per_statement=True)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        writer.execute("SELECT notifymux.unwatch('public.t')")
    session.execute("INSERT INTO t VALUES (1, 7)")
    assert changes(session) == [("INSERT", None, 1)]


def test_no_name_in_the_writers_search_path_is_called(session: Session, writer: Session, per_statement: bool) -> None:
    session.execute("CREATE TABLE t (id int, match_id int, doc json)")
    watch(session, "t", per_statement=per_statement, only_if_changed=["id"])
    session.execute(f"GRANT ALL ON t TO {writer.info.user}".encode())
    writer.execute("""
        CREATE FUNCTION hostile() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
        CREATE FUNCTION to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql AS 'SELECT hostile()::jsonb';
        CREATE FUNCTION to_jsonb(t) RETURNS jsonb LANGUAGE sql AS 'SELECT hostile()::jsonb';
        CREATE FUNCTION pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT hostile()';
        CREATE FUNCTION octet_length(text) RETURNS int LANGUAGE sql AS 'SELECT hostile()::int';
        CREATE FUNCTION arrow(jsonb, text) RETURNS jsonb LANGUAGE sql AS 'SELECT hostile()::jsonb';
        CREATE OPERATOR -> (FUNCTION = arrow, LEFTARG = jsonb, RIGHTARG = text)
    """)
    writer.execute(f"SET search_path = {writer.info.user}, public, pg_catalog".encode())
    with pytest.raises(psycopg.errors.RaiseException):
        writer.execute("SELECT pg_notify('a'::text, 'b'::text)")
    writer.execute("INSERT INTO public.t VALUES (1, 7, '1'), (2, 7, '\"\\u0000\"')")
    writer.execute("UPDATE public.t SET id = id + 1; DELETE FROM public.t")
    assert [told["match_id"] for told in heard(session)] == [7] * 6


def test_a_partitioned_table_is_announced_under_its_own_name_whatever_a_write_names(session: Session) -> None:
    session.execute("""
        CREATE TABLE t (id int, match_id int) PARTITION BY LIST (match_id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1);
        CREATE TABLE t_2 (match_id int, gone int, id int);
        ALTER TABLE t_2 DROP gone;
    """)
    watch(session, "t", only_if_changed=["id", "match_id"])
    watch(session, "t", only_if_changed=["match_id", "id"])
    session.execute("ALTER TABLE t ATTACH PARTITION t_2 FOR VALUES IN (2)")
    session.execute("INSERT INTO t VALUES (1, 1); INSERT INTO t_2 VALUES (2, 2); UPDATE t SET id = id + 2")
    session.execute("UPDATE t SET match_id = 2; UPDATE t SET match_id = match_id; DELETE FROM t_2 WHERE id = 4")
    told = heard(session)
    assert {each["table"] for each in told} == {"t"}
    assert [(each["operation"], each["old_id"], each["new_id"]) for each in told] == [
        ("INSERT", None, 1), ("INSERT", None, 2), ("UPDATE", 1, 3), ("UPDATE", 2, 4),
        ("DELETE", 3, None), ("INSERT", None, 3), ("DELETE", 4, None),
    ]  # fmt: skip
    session.execute("SELECT notifymux.unwatch('t')")
    session.execute("INSERT INTO t VALUES (1, 2)")
    assert heard(session) == []


def test_what_cannot_be_watched_is_refused_in_one_line_and_changes_nothing(session: Session) -> None:
    session.execute("CREATE TABLE t (id int, match_id int); CREATE VIEW v AS SELECT * FROM t")
    session.execute("CREATE TABLE divided (id int, match_id int) PARTITION BY LIST (id)")
    assert refusal(session, "t", key="game_id") == "public.t has no stored column game_id"
    assert refusal(session, "t", other_keys=["x y", "ctid"]) == 'public.t has no stored column "x y", ctid'
    assert refusal(session, "t", only_if_changed=["id", None]) == "public.t has no stored column NULL"
    assert refusal(session, "t", only_if_changed=[]) == "only_if_changed names no column"
    assert refusal(session, "v") == "public.v is no table"
    assert refusal(session, "none") == 'relation "none" does not exist'
    assert refusal(session, "divided", per_statement=True).startswith("public.divided is partitioned or inherits")
    for channel in ("", "x" * 64, "pg_notify_mux", None):
        assert refusal(session, "t", channel=channel).startswith("a channel has 1 to 63 bytes, and does not begin with")
    assert session.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)


def test_a_virtual_generated_column_fails_no_write_and_is_no_key(session: Session, per_statement: bool) -> None:
    kind = "VIRTUAL" if session.info.server_version >= 180_000 else "STORED"
    session.execute(f"CREATE TABLE t (id int, match_id int, g int GENERATED ALWAYS AS (id * 2) {kind})".encode())
    watch(session, "t", per_statement=per_statement)
    session.execute("INSERT INTO t VALUES (1, 7)")
    [told] = heard(session)
    assert told["data"] == {"id": 1, "match_id": 7, "g": None if kind == "VIRTUAL" else 2}
    if kind == "VIRTUAL":
        assert refusal(session, "t", key="g") == "public.t has no stored column g"


def test_watching_again_changes_how_and_unwatching_ends_it(session: Session) -> None:
    session.execute("CREATE TABLE t (id int, match_id int, game_id int)")
    for by, key in ((False, "match_id"), (True, "game_id"), (True, "match_id"), (False, "game_id")):
        watch(session, "t", key=key, per_statement=by)
        session.execute("INSERT INTO t VALUES (1, 1, 2)")
        assert [told["match_id"] for told in heard(session)] == [2 if key == "game_id" else 1]
    for _ in range(2):
        session.execute("SELECT notifymux.unwatch('t')")
    session.execute("INSERT INTO t VALUES (1, 1, 2)")
    assert heard(session) == []
    assert session.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (0,)


def test_another_trigger_that_names_the_channel_is_warned_of(session: Session) -> None:
    warnings: list[str | None] = []
    session.add_notice_handler(lambda diagnostic: warnings.append(diagnostic.message_primary))
    session.execute("""
        CREATE TABLE t (id int, match_id int);
        CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN PERFORM pg_notify('c', ''); RETURN NULL; END $$;
        CREATE TRIGGER mine AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION own();
    """)
    watch(session, "t", channel="cc")
    assert warnings == []
    watch(session, "t")
    assert warnings == ["public.t also has a trigger that names the channel c: if it notifies, drop it (mine)"]


def test_a_payload_that_is_too_large_is_announced_without_its_longest_members(session: Session) -> None:
    def announced(payload: str | None) -> str:
        session.execute("SELECT notifymux.notify('c', %s)", [payload])
        session.execute("SELECT 1")
        [note] = session.notifies(timeout=0)
        return note.payload

    whole = json.dumps({"match_id": 1, "data": "x" * 7972})
    assert len(whole) == 7999
    assert announced(whole) == whole
    long, id_ = "x" * 8000, "y" * 3000
    assert json.loads(announced(json.dumps({"match_id": 1, "data": long}))) == {"match_id": 1, "data": None}
    assert json.loads(announced(json.dumps({"match_id": id_, "new_id": id_, "old_id": id_, "data": long}))) == {
        "match_id": id_, "new_id": id_, "old_id": None, "data": None,
    }  # fmt: skip
    assert json.loads(announced(json.dumps({"match_id": 1, "rest": long}))) == {
        "match_id": 1, "rest": None, "data": None,
    }  # fmt: skip
    for payload in (long, json.dumps([long]), json.dumps(long), json.dumps({long: 1}), "{" + long, "é" * 4000):
        assert announced(payload) == '{"data": null}'
    assert announced(None) == ""


def test_the_limit_is_in_bytes_of_the_databases_encoding(session: Session, database: str) -> None:
    name = str(conninfo_to_dict(database)["dbname"]) + "_latin1"
    session.execute(f"CREATE DATABASE {name} ENCODING LATIN1 LOCALE 'C' TEMPLATE template0".encode())
    with closing(psycopg.connect(make_conninfo(database, dbname=name), autocommit=True)) as latin:
        install(latin)
        latin.execute("LISTEN c")
        latin.execute("CREATE TABLE t (id int, match_id int, text text)")
        for by in (False, True):
            watch(latin, "t", per_statement=by)
            latin.execute("INSERT INTO t VALUES (1, 7, repeat('é', 7000)), (1, 7, repeat('é', 8000))")
            assert [told["data"] is None for told in heard(latin)] == [False, True]
    drop_database(database, name)
