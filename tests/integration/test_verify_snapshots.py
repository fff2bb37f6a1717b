"""`verify` tries SNAPSHOT_QUERY, and notifies nothing on the team's own channels unless it is told to."""

from pathlib import Path

import psycopg
import pytest

from tests.conftest import StartListener, Verify


@pytest.fixture
def trying(settings: dict[str, str], connection: psycopg.Connection) -> dict[str, str]:
    connection.execute("CREATE TABLE game (id int PRIMARY KEY, code uuid, name text)")
    connection.execute("INSERT INTO game VALUES (7, '0b1c2d3e-0000-4000-8000-000000000007', 'Badgers')")
    return settings | {"REDIS_URL": "redis://127.0.0.1:1"}  # these checks need PostgreSQL only


SNAPSHOT = "SELECT row_to_json(game) FROM game WHERE id = %(match_id)s"


@pytest.mark.parametrize(
    ("query", "match", "status", "said", "remedy"),
    [
        (SNAPSHOT, "7", "ok", "bytes in", None),
        (SNAPSHOT, None, "ok", "no row in", None),
        (SNAPSHOT, "8", "warning", "no row in", "SNAPSHOT_QUERY"),
        (SNAPSHOT, "x", "failed", "invalid input syntax", "--match"),
        (SNAPSHOT.replace("SELECT", "SELEKT"), None, "failed", "syntax error", "correct SNAPSHOT_QUERY"),
        (SNAPSHOT.replace("game", "gone"), None, "failed", "does not exist", "correct SNAPSHOT_QUERY"),
        (SNAPSHOT + " AND name LIKE 'B%%'", "7", "ok", "bytes in", None),
        ("SELECT to_json(%(match_id)s)", "7", "failed", "unknown", "%(match_id)s::text"),
        ("SELECT id, name FROM game WHERE id = %(match_id)s", "7", "warning", "1 rows of 2 columns", "row_to_json"),
        (
            "SELECT row_to_json(game) FROM game, generate_series(1, 3) WHERE id = %(match_id)s",
            "7",
            "warning",
            "3 rows of 1 columns",
            "json_agg",
        ),
        ("SELECT game FROM game WHERE id = %(match_id)s", "7", "warning", "not JSON", "to_json"),
        (
            "SELECT to_json(code) FROM game WHERE code = %(match_id)s",
            None,
            "warning",
            "not tried: match '0'",
            "--match ID",
        ),
        (
            "SELECT to_json(1) FROM pg_sleep(20) WHERE '' <> %(match_id)s",
            None,
            "failed",
            "longer than the 4 s",
            "raise SNAPSHOT_TIMEOUT",
        ),
        (
            "SELECT to_json(1) FROM pg_sleep(2.2) WHERE '' <> %(match_id)s",
            None,
            "warning",
            "of the 4 s",
            "raise SNAPSHOT_TIMEOUT",
        ),
        (
            "SELECT to_json(rolname) FROM pg_authid WHERE rolname = %(match_id)s",
            None,
            "failed",
            "permission denied",
            "grant it",
        ),
    ],
)
def test_the_snapshot_query_is_tried_and_each_fault_has_its_remedy(
    trying: dict[str, str],
    connection: psycopg.Connection,
    verify: Verify,
    query: str,
    match: str | None,
    status: str,
    said: str,
    remedy: str | None,
) -> None:
    given = trying | {"SNAPSHOT_QUERY": query, "SNAPSHOT_TIMEOUT": "4"}
    if "pg_authid" in query:
        connection.execute(f"CREATE ROLE {given['DB_NAME']} LOGIN PASSWORD 'given'".encode())
        given |= {"DB_USER": given["DB_NAME"], "DB_PASSWORD": "given"}
    try:
        verified = verify(given, *(["--match", match] if match else []))
    finally:
        connection.execute(f"DROP ROLE IF EXISTS {given['DB_NAME']}".encode())
    check = verified.checks["snapshot query"]
    assert check["status"] == status, check
    assert said in str(check["text"])
    assert check["remedy"] == remedy if remedy is None else remedy in str(check["remedy"])


def test_every_file_of_queries_is_tried_and_one_that_can_not_be_right_is_named(
    trying: dict[str, str], verify: Verify, tmp_path: Path
) -> None:
    (tmp_path / "snapshot.sql").write_text(SNAPSHOT, encoding="utf-8")
    (tmp_path / "match_change.sql").write_text(SNAPSHOT.replace("FROM game", "FROM gone"), encoding="utf-8")
    (tmp_path / "scoreboard_change.sql").write_text(f"-- spread: true\n{SNAPSHOT}", encoding="utf-8")
    given = trying | {"QUERIES_DIR": str(tmp_path)}
    verified = verify(given, "--match", "7")
    assert "bytes in" in verified.text("snapshot query")
    assert "bytes in" in verified.text("query scoreboard_change")
    assert "correct match_change.sql" in verified.remedy("query match_change")
    (tmp_path / "scoreboard_change.sql").write_text("-- sprad: true\nSELECT '{}'", encoding="utf-8")
    assert "the directive 'sprad' does not exist; 'spread' does" in verify(given).text("queries")
    unquoted = trying | {"SNAPSHOT_QUERY": f"{SNAPSHOT} AND name LIKE 'B%'"}
    assert "a percent sign is written %%" in verify(unquoted).text("queries")


@pytest.mark.parametrize(
    ("claims", "status", "said"),
    [
        ('{"sub": "ann", "role": "fan"}', "ok", "true in"),
        ('{"sub": "ben"}', "ok", "such a client is refused"),
        (None, "ok", "false in"),
    ],
)
def test_rights_are_tried_for_a_match_and_claims(
    trying: dict[str, str], verify: Verify, tmp_path: Path, claims: str | None, status: str, said: str
) -> None:
    query = "SELECT EXISTS (SELECT FROM game WHERE id = %(match_id)s AND %(claims)s::json ->> 'sub' = 'ann')"
    (tmp_path / "authorize.sql").write_text(f"-- claims: sub\n{query}", encoding="utf-8")
    (tmp_path / "match_change.sql").write_text("SELECT %(claims)s::json", encoding="utf-8")
    given = trying | {"QUERIES_DIR": str(tmp_path), "WS_JWT_SECRET": "a secret that is long enough for HS256"}
    verified = verify(given, *(["--match", "7", "--claims", claims] if claims else []))
    check = verified.checks["query authorize"]
    assert (check["status"], said in str(check["text"])) == (status, True), check
    given_to_all = len((claims or "{}").replace(" ", ""))
    assert f"{given_to_all} bytes" in verified.text("query match_change")


def test_a_query_of_rights_that_is_neither_true_nor_false_fails(
    trying: dict[str, str], verify: Verify, tmp_path: Path
) -> None:
    (tmp_path / "authorize.sql").write_text("SELECT id FROM game WHERE id = %(match_id)s", encoding="utf-8")
    given = trying | {"QUERIES_DIR": str(tmp_path), "WS_JWT_SECRET": "a secret that is long enough for HS256"}
    verified = verify(given, "--match", "7")
    assert "neither true nor false" in verified.text("query authorize")
    assert "SELECT EXISTS" in verified.remedy("query authorize")


def test_without_a_snapshot_query_there_is_no_line_of_it(trying: dict[str, str], verify: Verify) -> None:
    assert "snapshot query" not in verify(trying).checks


def test_others_that_listen_hear_nothing_of_verify_unless_it_is_told_to_send(
    settings: dict[str, str], connection: psycopg.Connection, start_listener: StartListener, verify: Verify
) -> None:
    direct = settings | {"USE_REDIS_NOTIFIER": "false"}
    start_listener(direct).wait_until_aligned()
    connection.execute("LISTEN match_change")
    quiet = verify(direct)
    assert (quiet.code, quiet.with_status("failed")) == (0, []), quiet.log
    assert "--send" in quiet.text("channel match_change")
    assert list(connection.notifies(timeout=0.1)) == []
    sending = verify(direct, "--send")
    assert "in the stream as" in sending.text("channel match_change")
    [heard] = connection.notifies(timeout=5, stop_after=1)
    assert heard.payload.startswith('{"verify": "notifymux-')
