"""A login that worked and is refused for a moment: waited out in the process, whatever the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import RedisPlace, StartApp, StartListener
from tests.postgres.observed import MATCH, heard, listened_to, run
from tests.support.canaries import Canaries
from tests.support.postgres_cluster import PASSWORD, ROLE, PostgresServer
from tests.support.programs import App, Listener
from tests.support.proxy import Proxy
from tests.support.servers import redis_url_with_port
from tests.support.waiting import hold_for, wait_until

pytestmark = pytest.mark.long

DATABASE = "live"
SNAPSHOT = {"SNAPSHOT_QUERY": "SELECT to_json(%(match_id)s::text)"}
ALL_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
# Tries are at most a second apart where the server answers.
BACK_WITHIN_SECONDS = 3.0
REFUSED_SECONDS = 2.0


class Refusal(NamedTuple):
    """How a server refuses a login, what it says, how it allows it again, and a word of the remedy."""

    refuse: Callable[[PostgresServer], object]
    says: str
    allow: Callable[[PostgresServer], object]
    remedy: str = "check DB_HOST, DB_USER, DB_PASSWORD and DB_NAME"


def statements(refuse: str, says: str, allow: str) -> Refusal:
    return Refusal(lambda server: run(server, refuse), says, lambda server: run(server, allow))


def rename(server: PostgresServer, database: str, name: str) -> None:
    """Renames a database, which nobody may use meanwhile."""
    run(server, f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
    server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", database)
    run(server, f'ALTER DATABASE "{database}" RENAME TO "{name}"')
    run(server, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


REFUSALS = {
    "the role may not log in": statements(
        f"ALTER ROLE {ROLE} NOLOGIN", "is not permitted to log in", f"ALTER ROLE {ROLE} LOGIN"
    ),
    "there is no such role": statements(
        f"ALTER ROLE {ROLE} RENAME TO other", f'role "{ROLE}" does not exist', f"ALTER ROLE other RENAME TO {ROLE}"
    ),
    "pg_hba.conf rejects it": Refusal(
        lambda server: server.hba(f"host all {ROLE} 127.0.0.0/8 reject"),
        "pg_hba.conf rejects connection",
        lambda server: server.hba(),
    ),
    "there is no such database": Refusal(
        lambda server: rename(server, DATABASE, "restored"),
        f'database "{DATABASE}" does not exist',
        lambda server: rename(server, "restored", DATABASE),
    ),
    "the database accepts no connections": statements(
        f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false",
        "is not currently accepting connections",
        f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true",
    ),
    "the right to connect is revoked": statements(
        f"REVOKE CONNECT ON DATABASE {DATABASE} FROM PUBLIC",
        "permission denied for database",
        f"GRANT CONNECT ON DATABASE {DATABASE} TO PUBLIC",
    ),
    "the role has connections enough": statements(
        f"ALTER ROLE {ROLE} CONNECTION LIMIT 0", "too many connections", f"ALTER ROLE {ROLE} CONNECTION LIMIT -1"
    )._replace(remedy="CONNECTION LIMIT"),
}


@pytest.fixture
def primary(primary: PostgresServer) -> PostgresServer:
    """With a database that can be renamed."""
    primary.execute(f"CREATE DATABASE {DATABASE} TEMPLATE postgres")
    return primary


@pytest.fixture
def settings(settings: dict[str, str]) -> dict[str, str]:
    return settings | {"DB_NAME": DATABASE}


def refusals(listener: Listener, refusal: Refusal) -> list[str]:
    """The lines of the log that say it."""
    return [line for line in listener.lines if refusal.says in line]


@pytest.mark.parametrize("how", REFUSALS)
def test_a_listener_waits_out_a_login_that_is_refused_at_its_start_and_later(
    primary: PostgresServer, settings: dict[str, str], start_listener: StartListener, how: str
) -> None:
    refusal = REFUSALS[how]
    refusal.refuse(primary)
    listener = start_listener(settings)
    listener.wait_for_log(refusal.says)
    hold_for(REFUSED_SECONDS, lambda: listener.running)
    refusal.allow(primary)
    listened_to(primary, listener)
    listener.wait_until_aligned()
    refusal.refuse(primary)
    primary.execute(ALL_SESSIONS, ROLE if how != "there is no such role" else "other")
    wait_until(lambda: not primary.listening())
    wait_until(lambda: len(refusals(listener, refusal)) >= 2, what=lambda: listener.log)
    hold_for(REFUSED_SECONDS, lambda: listener.running)
    refusal.allow(primary)
    listened_to(primary, listener)
    listener.wait_until_aligned(2)
    told = refusals(listener, refusal)
    assert len(told) == 2, listener.log  # once for each outage
    assert all(refusal.remedy in line for line in told), told


def test_a_refused_login_is_shown_as_the_outage_that_it_is_and_is_one_gap(
    primary: PostgresServer, settings: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    refusal = REFUSALS["the role may not log in"]
    listener, app = start_listener(settings).wait_until_aligned(), start_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        primary.insert(1, 5, dbname=DATABASE)
        client.wait_for_updates(5)
        refusal.refuse(primary)
        primary.execute(ALL_SESSIONS, ROLE)
        wait_until(lambda: app.get("/readyz")[0] == 503)
        wait_until(
            lambda: any(refusal.says in problem for problem in app.get("/api/status")[1]["problems"]),
            10,
            lambda: f"{app.get('/api/status')[1]['problems']}\n{listener.log}",
        )
        assert any(refusal.says in reason for reason in app.get("/readyz")[1]["reasons"])
        refusal.allow(primary)
        app.wait_until_ready(BACK_WITHIN_SECONDS + 2)
        primary.insert(6, 10, dbname=DATABASE)
        client.wait_for_updates(10)
        assert heard(client) == list(range(1, 11))
        assert len(client.of_type("resync")) == 1
    assert listener.running


def test_what_is_held_for_redis_is_kept_while_postgresql_refuses_the_login(
    primary: PostgresServer,
    settings: dict[str, str],
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_app: StartApp,
) -> None:
    refusal = REFUSALS["the role may not log in"]
    app = start_app(settings)
    port = int(redis_place.url.rpartition(":")[2].partition("/")[0])
    with Proxy(port) as redis_address:
        listener = start_listener(
            settings | {"REDIS_URL": redis_url_with_port(redis_place.url, redis_address.port)}
        ).wait_until_aligned()
        with app.wait_until_ready().client(MATCH) as client:
            client.wait_for_initial_load()
            redis_address.cut()
            primary.insert(1, 10, dbname=DATABASE)
            listener.wait_for_log("Redis is away")
            with Canaries(primary.conninfo(dbname=DATABASE)) as canaries:
                canaries.pass_by(2)  # the second is sent when the first, and all before it, has reached the listener
            refusal.refuse(primary)
            primary.execute(ALL_SESSIONS, ROLE)
            listener.wait_for_log(refusal.says)
            redis_address.resume()
            client.wait_for_updates(10)
            refusal.allow(primary)
            listened_to(primary, listener)
            wait_until(lambda: client.of_type("resync"))
            primary.insert(11, 15, dbname=DATABASE)
            client.wait_for_updates(15)
            assert heard(client) == list(range(1, 16))


# A password that is changed while everything runs.


@pytest.fixture
def secret(primary: PostgresServer, settings: dict[str, str], tmp_path: Path) -> Path:
    """The file that holds the role's password, which the server asks for."""
    primary.hba(f"host all {ROLE} 127.0.0.0/8 scram-sha-256")
    file = tmp_path / "secret"
    file.write_text(PASSWORD, encoding="ascii")
    settings["DB_PASSWORD_FILE"] = str(file)
    return file


def rotate(server: PostgresServer) -> str:
    """Gives the role another password, and ends its sessions."""
    run(server, f"ALTER ROLE {ROLE} PASSWORD 'second-secret'")
    server.execute(ALL_SESSIONS, ROLE)
    return "second-secret"


@pytest.mark.parametrize("meanwhile", ["has the old one", "is missing", "is empty"])
def test_a_listener_reads_a_rotated_password_from_its_file(
    primary: PostgresServer, settings: dict[str, str], secret: Path, start_listener: StartListener, meanwhile: str
) -> None:
    listener = start_listener(settings).wait_until_aligned()
    if meanwhile == "is missing":
        secret.unlink()
    elif meanwhile == "is empty":
        secret.write_text("", encoding="ascii")
    password = rotate(primary)
    hold_for(REFUSED_SECONDS, lambda: listener.running)
    secret.write_text(password, encoding="ascii")
    listened_to(primary, listener)
    listener.wait_until_aligned(2)
    assert not any(word in listener.log for word in (PASSWORD, password))


def test_a_worker_that_listens_itself_reads_a_rotated_password_from_its_file(
    primary: PostgresServer, settings: dict[str, str], secret: Path, start_app: StartApp
) -> None:
    app: App = start_app(settings | {"USE_REDIS_NOTIFIER": "false"}).wait_until_ready()
    password = rotate(primary)
    app.wait_for_log("password authentication failed")
    secret.write_text(password, encoding="ascii")
    listened_to(primary, app)
    app.wait_until_ready()


def test_snapshots_go_on_with_a_rotated_password_from_its_file(
    primary: PostgresServer, settings: dict[str, str], secret: Path, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | SNAPSHOT).wait_until_ready()
    secret.write_text(rotate(primary), encoding="ascii")
    with app.client(MATCH) as client:
        assert client.wait_for_initial_load()["data"] == str(MATCH), app.log


def test_the_reason_of_a_refused_snapshot_is_logged(
    primary: PostgresServer, settings: dict[str, str], secret: Path, start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | SNAPSHOT).wait_until_ready()
    rotate(primary)
    with app.client(MATCH) as client:
        assert client.wait_for_initial_load()["data"] is None
    app.wait_for_log("password authentication failed")


def test_the_first_snapshot_after_all_sessions_were_terminated_succeeds(
    primary: PostgresServer, settings: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    start_listener(settings).wait_until_aligned()
    app = start_app(settings | SNAPSHOT).wait_until_ready()
    with app.client(1) as client:
        assert client.wait_for_initial_load()["data"] == "1"
    primary.execute(ALL_SESSIONS, ROLE)  # the one that gave the snapshot is kept for a while
    with app.client(2) as client:
        assert client.wait_for_initial_load()["data"] == "2", app.log
