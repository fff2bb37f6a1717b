"""`notifymux.watch` with SOURCE=wal: what is in the WAL, read by a slot as `pgoutput` hands it out."""

import json
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.core.schema.script import VERSION
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.process import Process
from tests.support.schema import heard, install
from tests.support.servers import database_settings

Session = psycopg.Connection[Any]

_MESSAGE = struct.Struct("!cBQ")  # 'M', flags (1: transactional), its place in the WAL
_CHANGES = """
SELECT data FROM pg_logical_slot_get_binary_changes(
    'slot', NULL, NULL, 'proto_version', '1', 'publication_names', 'nothing', 'messages', 'true')
"""


@pytest.fixture
def server(cluster: PostgresServer, tmp_path: Path) -> Iterator[PostgresServer]:
    server = cluster.copy(tmp_path / "logical")
    server.configure("wal_level", "logical")
    with server.start():
        yield server


@pytest.fixture
def session(server: PostgresServer) -> Iterator[Session]:
    """A session in a database with the schema for the WAL, a slot, and a table `t` that nobody watches yet."""
    with closing(server.connect()) as session:
        install(session, "wal")
        session.execute("CREATE TABLE t (id int, match_id int, text text)")
        session.execute("CREATE PUBLICATION nothing")
        session.execute("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')")
        yield session


def written(session: Session) -> list[tuple[str, str]]:
    """The messages since the last call: the prefix and the content."""
    messages = []
    for (data,) in session.execute(_CHANGES):
        if data[:1] == b"M":
            _, flags, _ = _MESSAGE.unpack_from(data)
            assert flags == 1
            prefix, _, rest = data[_MESSAGE.size :].partition(b"\0")
            assert struct.unpack_from("!I", rest) == (len(rest) - 4,)
            messages.append((prefix.decode(), rest[4:].decode()))
    return messages


@pytest.mark.parametrize("per_statement", [False, True], ids=["by row", "by statement"])
def test_what_is_committed_is_in_the_wal_in_its_order_and_what_is_rolled_back_is_not(
    session: Session, per_statement: bool
) -> None:
    session.execute("SELECT notifymux.watch('t', channel => 'c', per_statement => %s)", [per_statement])
    with session.transaction():
        session.execute("INSERT INTO t VALUES (1, 7), (2, 7)")
        with session.transaction(force_rollback=True):
            session.execute("INSERT INTO t VALUES (3, 7)")
    with session.transaction(force_rollback=True):
        session.execute("DELETE FROM t")
    session.execute("UPDATE t SET id = id + 10")
    messages = written(session)
    assert {prefix for prefix, _ in messages} == {"notifymux:c"}
    told = [json.loads(content) for _, content in messages]
    assert [(each["operation"], each["old_id"], each["new_id"]) for each in told] == [
        ("INSERT", None, 1), ("INSERT", None, 2), ("UPDATE", 1, 11), ("UPDATE", 2, 12),
    ]  # fmt: skip
    assert told[0] == {
        "table": "t", "operation": "INSERT", "match_id": 7, "new_id": 1, "old_id": None,
        "data": {"id": 1, "match_id": 7, "text": None},
    }  # fmt: skip


@pytest.mark.parametrize(("source", "most"), [("notify", 7999), ("wal", 2**20)])
def test_rows_of_every_size_are_written_and_announced_whole_up_to_the_limit(
    session: Session, source: str, most: int
) -> None:
    install(session, source)
    session.execute("LISTEN c")
    session.execute("SELECT notifymux.watch('t', channel => 'c')")
    sizes = [100, 7_999, 8_000, 100_000, 1_000_000, 2_000_000]
    for size in sizes:
        session.execute("INSERT INTO t VALUES (%s, 7, repeat('x', %s))", [size, size])
    assert session.execute("SELECT id FROM t WHERE length(text) = id").fetchall() == [(size,) for size in sizes]
    told = heard(session) if source == "notify" else [json.loads(content) for _, content in written(session)]
    assert [(each["match_id"], each["new_id"]) for each in told] == [(7, size) for size in sizes]
    assert [each["data"] is not None for each in told] == [size + 200 < most for size in sizes]


def test_the_largest_payload_that_fits_is_whole_and_one_byte_more_is_not(session: Session) -> None:
    whole = json.dumps({"match_id": 1, "data": ""})
    for room in (2**20, 2**20 + 1):
        session.execute("SELECT notifymux.notify('c', %s)", [whole.replace('""', f'"{"x" * (room - len(whole))}"')])
    (_, fits), (_, exceeds) = written(session)
    assert len(fits) == 2**20
    assert json.loads(exceeds) == {"match_id": 1, "data": None}


def test_an_empty_payload_and_any_text_are_written_and_a_channel_that_notify_refuses_is_refused(
    session: Session,
) -> None:
    for payload in (None, "", "no JSON é", "x" * (2**20 + 1)):
        session.execute("SELECT notifymux.notify('c', %s)", [payload])
    assert [content for _, content in written(session)] == ["", "", "no JSON é", '{"data": null}']
    for source in ("wal", "notify"):
        install(session, source)
        for channel in (None, "", "x" * 64):
            with pytest.raises(psycopg.errors.InvalidParameterValue):
                session.execute("SELECT notifymux.notify(%s, 'p')", [channel])


def test_installing_for_the_other_source_changes_the_way_of_all_watches_in_sessions_that_go_on(
    session: Session, server: PostgresServer, tmp_path: Path
) -> None:
    session.execute("SELECT notifymux.watch('t', channel => 'c')")
    session.execute(f"LISTEN c; GRANT INSERT ON t TO {ROLE}".encode())
    with closing(psycopg.connect(server.conninfo(ROLE), autocommit=True)) as writer:
        for number, source in enumerate(["wal", "notify", "wal"]):
            settings = {**database_settings(server.conninfo()), "SOURCE": source, "USE_REDIS_NOTIFIER": "true"}
            with Process([sys.executable, "-m", "listener", "install"], tmp_path, settings) as process:
                assert process.exit_code(30) == 0
                assert process.lines[0].endswith(
                    f"version {VERSION} for SOURCE={source}{', as before' * (number == 0)}"
                )
            writer.execute("INSERT INTO t VALUES (%s, 7)", [number])
            by_notify, by_wal = heard(session), [json.loads(content) for _, content in written(session)]
            expected, none = (by_notify, by_wal) if source == "notify" else (by_wal, by_notify)
            assert [each["new_id"] for each in expected] == [number]
            assert none == []


def test_install_warns_where_the_wal_is_not_logical(primary: PostgresServer, tmp_path: Path) -> None:
    settings = {**database_settings(primary.conninfo()), "SOURCE": "wal", "USE_REDIS_NOTIFIER": "true"}
    with Process([sys.executable, "-m", "listener", "install"], tmp_path, settings) as process:
        assert process.exit_code(30) == 0
    warning = "notifymux: wal_level is replica: nothing can read the messages in the WAL before it is logical"
    assert warning in process.lines
