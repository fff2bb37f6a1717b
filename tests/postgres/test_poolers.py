"""A pooler at the address: reported at once, and waited out until the address leads to PostgreSQL itself."""

import os
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.appliance.embedded.privileges import chown, drop_privileges
from tests.conftest import StartListener
from tests.postgres.observed import Start, listened_to
from tests.support.postgres_cluster import ROLE, PostgresServer
from tests.support.process import Process
from tests.support.proxy import Proxy
from tests.support.servers import free_port
from tests.support.waiting import hold_for, wait_until

pytestmark = pytest.mark.long


class WithoutNotifications(Proxy):
    """Passes everything but notifications, as a pooler may that shows the server's own process ids."""

    passes_notifications = False

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        is_from_server = any(source is server for _, server in self._pairs)
        peeked = source.recv(1 << 16, socket.MSG_PEEK) if is_from_server else b""
        if self.passes_notifications or not peeked:
            super()._pass(source, target)
            return
        while len(peeked) >= 5 and len(peeked) > (length := struct.unpack("!I", peeked[1:5])[0]):
            message = source.recv(length + 1)
            peeked = peeked[length + 1 :]
            if message[:1] != b"A":
                target.sendall(message)


@pytest.fixture
def address(primary: PostgresServer) -> Iterator[WithoutNotifications]:
    with WithoutNotifications(primary.port) as proxy:
        yield proxy


def test_an_answer_without_the_own_notification_is_reported_as_a_pooler_at_once(
    primary: PostgresServer, address: WithoutNotifications, settings: dict[str, str], start: Start
) -> None:
    program = start(settings | {"DB_SSLMODE": "disable"})
    program.wait_for_log("pooler")  # a session that is given up after a timeout is called something else
    address.passes_notifications = True
    wait_until(lambda: " connected to " in program.log, 5, lambda: program.log)
    listened_to(primary, program)


def pgbouncer() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("there is no pgbouncer: install the package pgbouncer")
        pytest.skip("there is no pgbouncer")
    return found


@pytest.fixture(params=["transaction", "statement", "session"])
def pooler(request: pytest.FixtureRequest, primary: PostgresServer, tmp_path: Path) -> Iterator[int]:
    """The port of a PgBouncer before the primary."""
    port, folder = free_port(), tmp_path / "pgbouncer"
    folder.mkdir(mode=0o700)
    chown(folder)
    lines = [
        *("[databases]", f"* = host=127.0.0.1 port={primary.port} user={ROLE}"),
        *("[pgbouncer]", "listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir ="),
        *("auth_type = any", f"pool_mode = {request.param}", "ignore_startup_parameters = extra_float_digits,options"),
    ]
    (folder / "pgbouncer.ini").write_text("\n".join(lines), encoding="utf-8")
    with Process(drop_privileges([pgbouncer(), str(folder / "pgbouncer.ini")], folder), tmp_path, {}) as process:
        process.wait_for_log("process up")
        yield port


def test_pgbouncer_is_reported_and_waited_out_until_the_address_leads_to_postgresql(
    primary: PostgresServer, pooler: int, settings: dict[str, str], start_listener: StartListener
) -> None:
    with Proxy(pooler) as address:
        listener = start_listener(settings | {"DB_PORT": str(address.port)})
        listener.wait_for_log("pooler")
        hold_for(2, lambda: listener.running)
        address.redirect_to(primary.port)
        listened_to(primary, listener, 3)
        listener.wait_until_aligned()
