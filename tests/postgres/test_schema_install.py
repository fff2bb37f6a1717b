"""`python -m listener sql`, `install` and `uninstall`: the schema `notifymux` in a database."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.appliance.embedded.postgres import program
from app.core.schema.script import VERSION, install_script, uninstall_script
from listener.schema_install import Installed, apply
from tests.support.process import Process
from tests.support.schema import heard, install
from tests.support.servers import database_settings, free_port, new_database

NOW = f"version {VERSION} for SOURCE=notify"


class Ran(NamedTuple):
    code: int
    line: str


Run = Callable[..., Ran]


@pytest.fixture
def run(database: str, tmp_path: Path) -> Run:
    """Runs a command of the listener that prints one line."""

    def run(*arguments: str, conninfo: str = database) -> Ran:
        with Process([sys.executable, "-m", "listener", *arguments], tmp_path, database_settings(conninfo)) as process:
            code = process.exit_code(30)
            [line] = process.lines
            return Ran(code, line)

    return run


@pytest.fixture
def role(database: str, connection: psycopg.Connection) -> Iterator[str]:
    """The connection string of a role without rights."""
    name = f"{conninfo_to_dict(database)['dbname']}_role"
    connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'".encode())
    yield make_conninfo(database, user=name, password="p")
    connection.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())


def functions(session: psycopg.Connection) -> list[tuple[str, str]]:
    return session.execute(
        "SELECT oid::regprocedure::text, md5(pg_get_functiondef(oid)) FROM pg_proc"
        " WHERE pronamespace = to_regnamespace('notifymux') ORDER BY 1"
    ).fetchall()


def watched_table(session: psycopg.Connection) -> None:
    session.execute("CREATE TABLE scoreboard (id int, match_id int)")
    session.execute("SELECT notifymux.watch('scoreboard', channel => 'scoreboard_change', key => 'match_id')")
    session.execute("LISTEN scoreboard_change")


def test_install_says_what_has_changed_and_the_next_one_changes_nothing(
    run: Run, connection: psycopg.Connection
) -> None:
    first = run("install")
    installed = functions(connection)
    assert first.code == 0
    assert first.line.endswith(f": schema notifymux: none -> {NOW}")
    assert "password" not in first.line
    again = run("install")
    assert (again.code, again.line.partition(": ")[2]) == (0, f"schema notifymux: {NOW}, as before")
    assert functions(connection) == installed


def test_a_dry_run_tries_everything_and_changes_nothing(run: Run, connection: psycopg.Connection, role: str) -> None:
    tried = run("install", "--dry-run")
    assert (tried.code, functions(connection)) == (0, [])
    assert tried.line.endswith(f"none -> {NOW} (dry run: nothing is changed)")
    assert run("install", "--dry-run", conninfo=role).code == 1
    install(connection)
    assert run("uninstall", "--dry-run").line.endswith(f"{NOW} -> none (dry run: nothing is changed)")
    assert functions(connection)


def test_what_sql_prints_installs_the_same_by_psql(
    database: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "listener", "sql"]
    with Process(command, tmp_path, database_settings(database)) as process:
        assert process.exit_code(30) == 0
        script = process.log
    done = psql(database, script)
    assert (done.returncode, done.stderr) == (0, "")
    printed = functions(connection)
    install(connection)
    assert functions(connection) == printed
    assert len(printed) > 10


def psql(conninfo: str, script: str) -> subprocess.CompletedProcess[str]:
    command = [str(program("psql")), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", conninfo]
    return subprocess.run(command, input=script, capture_output=True, text=True, check=False)


def test_the_scripts_are_ascii_so_that_any_encoding_takes_them() -> None:
    for script in (install_script("notify"), install_script("wal"), uninstall_script()):
        assert script.isascii()
        assert not re.search(r"@\w+@", script)


def test_installs_at_once_all_succeed(database: str, connection: psycopg.Connection) -> None:
    with ThreadPoolExecutor(8) as pool:
        applied = list(pool.map(lambda _: apply(database, install_script("notify"), dry_run=False), range(16)))
    assert [each.before for each in applied].count(None) == 1
    assert {each.after for each in applied} == {Installed(VERSION, "notify")}
    assert functions(connection)


def test_an_older_version_becomes_this_one_under_the_triggers_that_there_are(
    run: Run, connection: psycopg.Connection
) -> None:
    install(connection)
    installed = functions(connection)
    watched_table(connection)
    connection.execute("""
        CREATE OR REPLACE FUNCTION notifymux.installed(OUT version int, OUT source text) LANGUAGE sql
            AS $$ SELECT 0, 'notify' $$;
        CREATE OR REPLACE FUNCTION notifymux.announce_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_notify(TG_ARGV[0], '"old"');
            RETURN NULL;
        END $$;
        DROP FUNCTION notifymux.shortened
    """)
    connection.execute("INSERT INTO scoreboard VALUES (1, 1)")
    assert heard(connection) == ["old"]
    assert run("install").line.endswith(f": version 0 for SOURCE=notify -> {NOW}")
    assert functions(connection) == installed
    connection.execute("INSERT INTO scoreboard VALUES (1, 1)")
    assert [told["match_id"] for told in heard(connection)] == [1]


def test_a_newer_version_is_left_alone(run: Run, connection: psycopg.Connection) -> None:
    install(connection)
    connection.execute("""
        CREATE OR REPLACE FUNCTION notifymux.installed(OUT version int, OUT source text) LANGUAGE sql
            AS $$ SELECT 1000, 'notify' $$
    """)
    newer = functions(connection)
    refused = run("install")
    assert refused.code == 1
    assert f"is version 1000, and this program installs version {VERSION}: use a newer one" in refused.line
    assert functions(connection) == newer


def test_somebody_elses_schema_of_the_same_name_is_left_alone(run: Run, connection: psycopg.Connection) -> None:
    connection.execute("CREATE SCHEMA notifymux CREATE TABLE notifymux.theirs (id int)")
    assert run("install") == Ran(1, "notifymux: a schema notifymux is here that is somebody else's: rename it")
    assert run("uninstall").line.endswith(": schema notifymux: none, as before")
    assert connection.execute("SELECT count(*) FROM notifymux.theirs").fetchone() == (0,)


def test_without_the_right_to_make_a_schema_one_line_says_what_to_do_and_an_empty_schema_is_enough(
    run: Run, connection: psycopg.Connection, role: str
) -> None:
    refused = run("install", conninfo=role)
    assert refused.code == 1
    assert "permission denied for database" in refused.line
    assert "`python -m listener sql`" in refused.line
    user = sql.Identifier(str(conninfo_to_dict(role)["user"]))
    connection.execute(sql.SQL("CREATE SCHEMA notifymux AUTHORIZATION {}").format(user))
    assert run("install", conninfo=role).code == 0
    assert run("install", conninfo=role).code == 0


def test_uninstall_refuses_while_the_schema_is_used_and_then_leaves_nothing(
    run: Run, connection: psycopg.Connection
) -> None:
    install(connection)
    watched_table(connection)
    refused = "notifymux: tables are watched: public.scoreboard; call notifymux.unwatch() for each first"
    assert run("uninstall") == Ran(1, refused)
    connection.execute("SELECT notifymux.unwatch('scoreboard')")
    connection.execute("""
        CREATE FUNCTION tell() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM notifymux.notify('c', 'p'); END $$
    """)
    refused = "notifymux: functions call notifymux.notify(): public.tell(); replace or drop them first"
    assert run("uninstall") == Ran(1, refused)
    connection.execute("DROP FUNCTION tell")
    assert run("uninstall").line.endswith(f": schema notifymux: {NOW} -> none")
    assert connection.execute("SELECT to_regnamespace('notifymux')").fetchone() == (None,)
    assert run("uninstall").line.endswith(": schema notifymux: none, as before")


def test_a_server_that_is_away_is_one_line_and_exit_code_1_and_no_server_at_all_is_2(
    run: Run, database: str, tmp_path: Path
) -> None:
    away = run("install", conninfo=make_conninfo(database, host="127.0.0.1", port=free_port()))
    assert away.code == 1
    assert "Connection refused" in away.line
    with Process([sys.executable, "-m", "listener", "install"], tmp_path, {}) as process:
        assert process.exit_code(30) == 2
        assert process.lines == ["notifymux: DB_HOST is not set: it takes the host of the PostgreSQL to listen to"]


def test_schema_and_triggers_survive_a_dump_and_its_restore(database: str, connection: psycopg.Connection) -> None:
    install(connection)
    watched_table(connection)
    connection.execute("CREATE TABLE other (id int, match_id int, j json, t text)")
    connection.execute("CREATE TABLE divided (id int, match_id int) PARTITION BY LIST (id)")
    connection.execute("CREATE TABLE part PARTITION OF divided DEFAULT")
    for table in ("other", "divided"):
        connection.execute(
            "SELECT notifymux.watch(%s::regclass, 'scoreboard_change', only_if_changed => '{id, match_id}')", [table]
        )
    connection.execute("INSERT INTO scoreboard VALUES (7, 1)")
    dumped = subprocess.run(
        [str(program("pg_dump")), "-d", database], capture_output=True, text=True, check=True
    ).stdout
    restored = new_database(database, f"{conninfo_to_dict(database)['dbname']}_restored")
    # An older server than the program that dumps lacks this setting.
    done = psql(restored, dumped.replace("SET transaction_timeout = 0;\n", ""))
    assert (done.returncode, done.stderr) == (0, "")
    with closing(psycopg.connect(restored, autocommit=True)) as session:
        assert functions(session) == functions(connection)
        session.execute("LISTEN scoreboard_change")
        session.execute("UPDATE scoreboard SET id = 8")
        session.execute(
            "INSERT INTO other VALUES (9, 1, '{}', 'a'); UPDATE other SET t = 'b'; UPDATE other SET id = 10"
        )
        session.execute("INSERT INTO divided VALUES (11, 1)")
        assert [(told["table"], told["new_id"]) for told in heard(session)] == [
            ("scoreboard", 8), ("other", 9), ("other", 10), ("divided", 11),
        ]  # fmt: skip
        apply(restored, install_script("notify"), dry_run=False)
    connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(str(conninfo_to_dict(restored)["dbname"]))))
