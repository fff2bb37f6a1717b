"""The variables of libpq: what chooses a server or a session's behaviour comes from our settings alone."""

from pathlib import Path

import psycopg
import pytest
from psycopg import pq

from app.core.libpq_environment import COUNTED, IGNORED, forget
from app.core.postgres import listening_conninfo
from app.core.postgres_connect import open_session
from tests.conftest import StartApp, StartListener, Verify
from tests.support.documents import SETTINGS, flat

# Of libpq, and no keyword of a connection string.
_WITHOUT_KEYWORD = {"PGDATESTYLE", "PGTZ", "PGGEQO", "PGSERVICEFILE", "PGSYSCONFDIR", "PGREQUIRESSL"}
_ELSEWHERE = "[elsewhere]\nhost=127.0.0.9\nport=9\noptions=-c nonsense=1\n"
HOSTILE = {
    "PGHOST": "127.0.0.9", "PGHOSTADDR": "127.0.0.9", "PGPORT": "9", "PGSERVICE": "elsewhere",
    "PGUSER": "nobody", "PGPASSWORD": "wrong", "PGDATABASE": "nothing", "PGAPPNAME": "nobody",
    "PGTARGETSESSIONATTRS": "standby", "PGLOADBALANCEHOSTS": "nonsense", "PGCONNECT_TIMEOUT": "nonsense",
    "PGSSLMODE": "verify-full", "PGREQUIRESSL": "1", "PGSSLROOTCERT": "system", "PGSSLNEGOTIATION": "direct",
    "PGMINPROTOCOLVERSION": "nonsense", "PGMAXPROTOCOLVERSION": "nonsense", "PGOPTIONS": "-c nonsense=1",
    "PGCLIENTENCODING": "nonsense", "PGDATESTYLE": "nonsense", "PGTZ": "nonsense", "PGGEQO": "nonsense",
}  # fmt: skip


def test_every_variable_that_libpq_knows_is_decided_and_documented() -> None:
    known = {option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar} | _WITHOUT_KEYWORD
    assert known <= COUNTED | IGNORED  # an older libpq lacks some
    assert not COUNTED & IGNORED
    assert {*HOSTILE, "PGSERVICEFILE", "PGSYSCONFDIR"} == IGNORED
    text = flat(SETTINGS)
    assert [name for name in sorted(COUNTED | IGNORED) if f"`{name}`" not in text] == []


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "pg_service.conf").write_text(_ELSEWHERE, encoding="ascii")
    return HOSTILE | {"PGSERVICEFILE": str(tmp_path / "pg_service.conf"), "PGSYSCONFDIR": str(tmp_path)}


def test_listener_workers_snapshots_and_verify_connect_by_the_settings_whatever_libpq_is_told(
    settings: dict[str, str],
    hostile: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
) -> None:
    settings |= {"SNAPSHOT_QUERY": "SELECT to_json(%(match_id)s::text)", "WEB_CONCURRENCY": "1", **hostile}
    listener = start_listener(settings).wait_until_aligned()
    assert f"ignored: {', '.join(sorted(hostile))}" in listener.lines[0]
    app = start_app(settings).wait_until_ready()
    direct = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    with app.client(1) as by_redis, direct.client(1) as directly:
        for client in (by_redis, directly):
            assert client.wait_for_initial_load()["data"] == "1"
        connection.execute('NOTIFY match_change, \'{"match_id": 1, "data": 5}\'')
        for client in (by_redis, directly):
            assert client.wait_for_updates(1)[0]["data"] == 5
    direct.stop()
    assert verify(settings).with_status("failed") == []


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_each_variable_alone_keeps_no_session_out(
    name: str, database: str, hostile: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, since one variable may hide what another does."""
    for each in {name, "PGSERVICE"} if name.startswith("PGS") else {name}:
        monkeypatch.setenv(each, hostile[each])
    assert name in forget()
    open_session(listening_conninfo(database, "notifymux-test")).connection.close()
