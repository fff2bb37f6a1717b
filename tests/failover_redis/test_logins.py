"""A login that Redis refuses for a moment: users that come back, passwords that change, rights that are taken away."""

from pathlib import Path

import pytest

from tests.conftest import StartApp, StartListener
from tests.failover_redis.test_failover import said
from tests.support.canaries import Canaries
from tests.support.numbered import MATCH, Numbered
from tests.support.programs import App, Listener
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

USER, OLD, NEW = "notifymux", "the-old-password", "the-new-password"
REFUSED = "invalid username-password pair"  # what Redis says of a password


def allow(server: RedisServer, password: str) -> None:
    """Creates the user, or gives it another password."""
    server.call("ACL", "SETUSER", USER, "reset", "on", f">{password}", "~*", "&*", "+@all")


def url(server: RedisServer, password: str) -> str:
    return f"redis://{USER}:{password}@127.0.0.1:{server.port}"


def reasons(app: App) -> str:
    """Why it is not ready."""
    status, body = app.get("/readyz")
    return "" if status == 200 else "\n".join(body["reasons"])


def waits(listener: Listener, canaries: Canaries) -> None:
    """Waits until a canary passes by: the listener goes on."""
    canaries.pass_by(1, within=5, what=lambda: f"the listener goes on (running: {listener.running}):\n{listener.log}")


@pytest.fixture
def server(server: RedisServer) -> RedisServer:
    allow(server, OLD)
    return server


def test_a_user_that_is_back_some_seconds_after_a_restart_costs_delay(
    base: dict[str, str],
    database: str,
    server: RedisServer,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    """Who sets it up (an operator of Kubernetes, a script) does so when the server is there already."""
    settings = base | {"REDIS_URL": url(server, OLD)}
    listener = start_listener(settings).wait_until_aligned()
    app = start_remote_app(settings).wait_until_ready()
    with Canaries(database) as canaries, app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(20)
        events.heard_by(client)
        server.client.save()
        server.kill()
        server.start()
        events.commit(25)
        wait_until(lambda: REFUSED in listener.log, 10, lambda: listener.log)
        wait_until(lambda: REFUSED in reasons(app), 10, lambda: reasons(app))
        for _ in range(4):
            events.commit(5)
            waits(listener, canaries)
        allow(server, OLD)
        events.commit(5)
        events.heard_by(client)
    app.wait_until_ready()
    assert sum("password" in line for line in said(listener, "Redis")) == 1, listener.log


def test_a_password_that_changes_in_its_file_is_read_at_the_next_connect(
    base: dict[str, str],
    server: RedisServer,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
    tmp_path: Path,
) -> None:
    secret = tmp_path / "redis-url"
    secret.write_text(url(server, OLD))
    settings = base | {"REDIS_URL_FILE": str(secret)}
    listener = start_listener(settings).wait_until_aligned()
    app = start_remote_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        secret.write_text(url(server, NEW))
        allow(server, NEW)
        server.client.client_kill_filter(user=USER)
        events.commit(20)
        app.wait_until_ready()
        events.heard_by(client)
    assert len(said(listener, "Redis is away")) <= 1, listener.log
    assert NEW not in listener.log + app.log


def test_a_password_that_changes_before_its_file_does_is_waited_for_and_named(
    base: dict[str, str],
    server: RedisServer,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
    tmp_path: Path,
) -> None:
    """A mounted secret follows within a minute or so; until then the reason is the password, wherever it is shown."""
    secret = tmp_path / "redis-url"
    secret.write_text(url(server, OLD))
    settings = base | {"REDIS_URL_FILE": str(secret)}
    listener = start_listener(settings).wait_until_aligned()
    app = start_remote_app(settings).wait_until_ready()
    with app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        allow(server, NEW)
        server.client.client_kill_filter(user=USER)
        events.commit(20)
        wait_until(lambda: REFUSED in reasons(app), 10, lambda: reasons(app))
        outage = wait_until(lambda: app.get("/api/status")[1]["redis"]["outage"])
        assert REFUSED in outage
        wait_until(lambda: REFUSED in listener.log, 10, lambda: listener.log)
        assert "TimeoutError" not in app.log + listener.log
        secret.write_text(url(server, NEW))
        app.wait_until_ready()
        events.heard_by(client)
    app.wait_until_ready()


def test_rights_that_are_taken_away_and_given_back_cost_delay(
    base: dict[str, str],
    database: str,
    server: RedisServer,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    settings = base | {"REDIS_URL": url(server, OLD)}
    listener = start_listener(settings).wait_until_aligned()
    app = start_remote_app(settings).wait_until_ready()
    with Canaries(database) as canaries, app.client(MATCH) as client:
        client.wait_for_initial_load()
        events.commit(10)
        events.heard_by(client)
        server.call("ACL", "SETUSER", USER, "-@all")
        for _ in range(6):
            events.commit(5)
            waits(listener, canaries)
        wait_until(lambda: "permissions" in reasons(app), 10, lambda: reasons(app))
        server.call("ACL", "SETUSER", USER, "+@all")
        events.heard_by(client)
    app.wait_until_ready()
    listener.wait_for_log("Redis is back")
    # Of an append and of a heartbeat: another command is another remedy. A look at the others may be refused as well.
    lines = [line for line in said(listener, "Redis is away") if "permissions" in line]
    assert 1 <= len(lines) == len(set(lines)) <= 2, listener.log
    assert len(said(listener, "Redis is back")) == 1, listener.log


def test_a_user_that_may_write_everything_but_the_stream_is_one_line(
    base: dict[str, str],
    database: str,
    server: RedisServer,
    events: Numbered,
    start_listener: StartListener,
    start_remote_app: StartApp,
) -> None:
    """Heartbeats pass where events don't: that they do is no sign that Redis is back."""
    settings = base | {"REDIS_URL": url(server, OLD)}
    listener = start_listener(settings).wait_until_aligned()
    app = start_remote_app(settings).wait_until_ready()
    with Canaries(database) as canaries, app.client(MATCH) as client:
        client.wait_for_initial_load()
        # The start and the epoch: a heartbeat that carries an incident is refused as well, which is another line.
        wait_until(lambda: server.call("XLEN", "{pg_notify}:ledger") >= 2)
        server.call("ACL", "SETUSER", USER, "-xadd")
        for _ in range(6):
            events.commit(5)
            waits(listener, canaries)
        server.call("ACL", "SETUSER", USER, "+xadd")
        events.heard_by(client)
    listener.wait_for_log("Redis is back")
    assert len(said(listener, "Redis is away")) == len(said(listener, "Redis is back")) == 1, listener.log
