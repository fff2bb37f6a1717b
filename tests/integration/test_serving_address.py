"""HOST and PORT: IPv4, IPv6 and names, for every program that uses them; what can't be is one line with the remedy."""

import http.client
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.test_health_check import health_check
from tests.support.process import environment
from tests.support.programs import App
from tests.support.servers import free_port
from tests.support.waiting import wait_until
from tests.support.wrapped import WrappedApp, with_mounts

NO_SERVERS = {"DB_HOST": "::1", "DB_PORT": "9", "REDIS_URL": "redis://[::1]:9", "USE_REDIS_NOTIFIER": "true"}
PREPARE = [sys.executable, "-m", "app.appliance", "prepare"]
GUNICORN = [str(Path(sys.executable).with_name("gunicorn")), "-c", "python:app.gunicorn_conf", "app.main:app"]


def answers(host: str, port: int) -> bool:
    with closing(http.client.HTTPConnection(host, port, timeout=5)) as connection:
        try:
            connection.request("GET", "/healthz")
        except OSError:
            return False
        return connection.getresponse().status == 200


def run(command: list[str], folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment({"HOST": "127.0.0.1", "PORT": str(free_port()), **NO_SERVERS, **settings}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("given", "reached", "url"),
    [
        ("::", ["::1", "127.0.0.1"], "http://localhost"),
        ("::1", ["::1"], "http://[::1]"),
        ("[::1]", ["::1"], "http://[::1]"),
        ("localhost", ["127.0.0.1"], "http://localhost"),
    ],
)
def test_the_server_and_what_asks_it_take_ipv6_wherever_a_host_can_stand(
    tmp_path: Path, given: str, reached: list[str], url: str
) -> None:
    settings = NO_SERVERS | {"HOST": given}
    with App(tmp_path, settings) as app:
        wait_until(lambda: all(answers(host, app.port) for host in reached))
        address = {"PORT": str(app.port)}
        assert health_check(tmp_path, settings | address).returncode == 0
    assert run(PREPARE, tmp_path, HOST=given).returncode == 0
    asked = run([sys.executable, "-m", "app.appliance", "ready"], tmp_path, **{**settings, **address})
    assert f"nothing answers at {url}:{app.port} " in asked.stderr


def test_a_name_that_has_an_ipv6_address_only_is_served(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n::1 six\n")
    wrapper = with_mounts('mount --bind "$1" /etc/hosts', tmp_path / "hosts")
    with WrappedApp(wrapper, tmp_path, NO_SERVERS | {"HOST": "six"}) as app:
        wait_until(lambda: answers("::1", app.port), what=lambda: app.log)


WRONG_HOSTS = {
    "no.such.name.invalid": "HOST='no.such.name.invalid' does not resolve: set an address of this machine",
    "192.0.2.1": "HOST='192.0.2.1' is no address of this machine: set one of its own",
    "2001:db8::1": "HOST='2001:db8::1' is no address of this machine: set one of its own",
    "localhost:8000": "HOST='localhost:8000': it takes an IPv4 or IPv6 address or a name of this machine",
    "http://localhost": "HOST=(hidden): it takes an IPv4 or IPv6 address or a name of this machine",
    "[::1]:8000": "HOST='[::1]:8000': it takes an IPv4 or IPv6 address or a name of this machine",
    "127.0.0.1,::1": "HOST='127.0.0.1,::1': it takes an IPv4 or IPv6 address or a name of this machine",
}


@pytest.mark.parametrize(
    ("command", "host"),
    [*((PREPARE, host) for host in WRONG_HOSTS), (GUNICORN, "no.such.name.invalid"), (GUNICORN, "192.0.2.1")],
)
def test_a_host_that_cannot_be_served_is_one_line_and_exit_code_2(
    tmp_path: Path, command: list[str], host: str
) -> None:
    result = run(command, tmp_path, HOST=host)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result
    assert result.stderr.startswith(f"notifymux: {WRONG_HOSTS[host]}")


@pytest.mark.parametrize("command", [PREPARE, GUNICORN], ids=["appliance", "gunicorn"])
def test_a_port_that_needs_a_right_is_named_as_that(tmp_path: Path, command: list[str]) -> None:
    result = run(["setpriv", "--bounding-set=-net_bind_service", *command], tmp_path, PORT="80")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result
    assert "PORT=80: user 0 may not listen on a port below 1024: set PORT to a higher one" in result.stderr
    assert "-p 80:8000" in result.stderr


def test_a_server_with_an_ipv6_address_is_written_with_brackets(tmp_path: Path) -> None:
    with App(tmp_path, NO_SERVERS) as app:
        wait_until(lambda: app.get("/healthz")[0] == 200)
        status = app.get("/api/status")[1]
    assert (status["postgres"]["where"], status["redis"]["where"]) == ("[::1]:9, database postgres", "redis://[::1]:9")
