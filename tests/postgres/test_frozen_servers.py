"""A server that freezes between two steps of a connection: every step has a timeout."""

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.conftest import RedisPlace, StartApp, StartListener, Verify, redis_mode
from tests.postgres.observed import MATCH, listened_to
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.proxy import Proxy
from tests.support.waiting import hold_for, wait_until

pytestmark = pytest.mark.long

READY_FOR_QUERY = b"Z\x00\x00\x00\x05I"


class FreezesAtLogin(Proxy):
    """Freezes the server as soon as it has let the first session in, and before that one's first query."""

    def __init__(self, server: PostgresServer) -> None:
        self._server, self.has_frozen = server, False
        super().__init__(server.port)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        if not self.has_frozen and READY_FOR_QUERY in source.recv(1 << 16, socket.MSG_PEEK):
            self._server.freeze()
            self.has_frozen = True
        super()._pass(source, target)


@pytest.fixture
def address(primary: PostgresServer) -> Iterator[FreezesAtLogin]:
    with FreezesAtLogin(primary) as proxy:
        yield proxy


@pytest.fixture
def settings(settings: dict[str, str]) -> dict[str, str]:
    return settings | {"DB_SSLMODE": "disable", "POD_NAME": "pod"}


def test_a_server_that_freezes_right_after_the_login_is_given_up_and_tried_again(
    primary: PostgresServer,
    address: FreezesAtLogin,
    settings: dict[str, str],
    redis_place: RedisPlace,
    start_listener: StartListener,
) -> None:
    listener = start_listener(settings)
    wait_until(lambda: address.has_frozen)

    with closing(redis_place.client()) as client:

        def shows_that_it_lives() -> bool:
            keys = client.keys(f"{{{redis_place.namespace}}}:listener:pod:*")
            left: list[Any] = [client.pttl(key) for key in keys]
            return [60_000 - pttl < 3_500 for pttl in left] == [True]  # milliseconds since its last heartbeat

        wait_until(shows_that_it_lives)  # it logs in to both servers at once, so PostgreSQL may freeze before
        hold_for(8, shows_that_it_lives, listener.log)
    listener.wait_for_log("PostgreSQL is away", 1)
    primary.thaw()
    listened_to(primary, listener, 6)
    listener.wait_until_aligned()


def test_a_worker_gives_up_a_server_that_freezes_right_after_the_login(
    primary: PostgresServer, address: FreezesAtLogin, settings: dict[str, str], start_app: StartApp
) -> None:
    app = start_app(settings | {"USE_REDIS_NOTIFIER": "false"})
    wait_until(lambda: address.has_frozen)
    app.wait_for_log("PostgreSQL is away", 8)
    primary.thaw()
    listened_to(primary, app, 6)
    app.wait_until_ready()


def test_a_session_of_a_server_that_freezes_and_thaws_is_kept_and_the_page_names_the_stall(
    primary: PostgresServer, redis_place: RedisPlace, start_app: StartApp
) -> None:
    app = start_app(redis_mode(primary.conninfo(ROLE), redis_place) | {"USE_REDIS_NOTIFIER": "false"})
    with app.wait_until_ready().client(MATCH) as client:
        client.wait_for_initial_load()
        sessions = primary.listening()
        primary.freeze()
        wait_until(lambda: "a second connection fails" in str(app.get("/readyz")[1]["reasons"]), 15, lambda: app.log)
        primary.thaw()
        app.wait_until_ready(5)
        primary.insert(1, 3)
        client.wait_for_updates(3)
        assert primary.listening() == sessions
        assert not client.of_type("resync")


def test_verify_gives_up_a_server_that_freezes_right_after_the_login_or_between_two_checks(
    primary: PostgresServer, address: FreezesAtLogin, settings: dict[str, str], verify: Verify
) -> None:
    verified = verify(settings)
    assert address.has_frozen
    assert verified.code == 1
    assert "not answered within" in verified.text("PostgreSQL")
    assert verified.text("canary") == "not sent"
    primary.thaw()
    assert "PostgreSQL" in verify(settings).with_status("ok")
