"""REDIS_URL that reaches a real server over a socket or TLS, or not: the wrong port, a database that it lacks."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import redis

from listener.verify import redis_checks
from listener.verify.result import CheckStatus
from notifymux.redis_client import RedisAddress, async_client, sync_client, sync_connection
from notifymux.redis_errors import Fault, fault
from tests.conftest import StartApp, StartListener, Verify
from tests.integration.test_modes import notify
from tests.support.process import Process
from tests.support.redis_server import certificate, redis_server
from tests.support.servers import free_port


class Ports(NamedTuple):
    plain: int
    tls: int


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("redis")
    certificate(folder)
    return folder


@pytest.fixture(scope="module")
def ports(folder: Path) -> Iterator[Ports]:
    """A server with a password, a port for plain connections, one for TLS, and a socket."""
    found = Ports(free_port(), free_port())
    plain = ["--port", str(found.plain), "--bind", "127.0.0.1", "--save", "", "--requirepass", "s3cret"]
    files = ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "cert.pem"]
    tls = ["--tls-port", str(found.tls), *files, "--tls-auth-clients", "no", "--unixsocket", "redis.sock"]
    with Process([redis_server(), *plain, *tls], folder, {}) as server:
        server.wait_for_log("ready to accept connections at")  # the last of the three
        yield found


def in_the_listener(url: str) -> Fault:
    with pytest.raises((redis.RedisError, OSError)) as caught:
        sync_connection(RedisAddress(url))
    return fault(caught.value)


def in_a_worker(url: str) -> Fault:
    async def ping() -> None:
        client = async_client(RedisAddress(url))
        try:
            await client.ping()
        finally:
            await client.aclose()

    with pytest.raises((redis.RedisError, OSError)) as caught:
        asyncio.run(ping())
    return fault(caught.value)


def in_verify(url: str) -> Fault:
    with closing(sync_client(RedisAddress(url))) as client:
        check, info = redis_checks.connect(client, url)
    assert info is None
    assert check.status is CheckStatus.FAILED
    assert "s3cret" not in str(check)
    return Fault(check.text, check.remedy or "")


CAUSES = {
    "rediss://:s3cret@localhost:{plain}": ("takes no TLS", "redis://"),
    "redis://:s3cret@localhost:{tls}": ("takes TLS only", "rediss://"),
    "redis://localhost:{tls}/1": ("takes TLS only", "rediss://"),
    "rediss://:s3cret@localhost:{tls}": ("self-signed certificate", "?ssl_ca_certs="),
    "rediss://:s3cret@127.0.0.1:{tls}?ssl_ca_certs={folder}/cert.pem": (
        "not valid for '127.0.0.1'",
        "REDIS_URL's host",
    ),
    "redis://:s3cret@localhost:{plain}/99": ("out of range", "names a database that this server lacks"),
    "unix://:s3cret@{folder}/redis.sock?db=99": ("out of range", "names a database that this server lacks"),
}


@pytest.mark.parametrize("place", [in_the_listener, in_a_worker, in_verify])
@pytest.mark.parametrize("url", CAUSES)
def test_what_keeps_a_connection_from_being_made_is_named_with_its_remedy(
    url: str, place: Any, ports: Ports, folder: Path
) -> None:
    found = place(url.format(plain=ports.plain, tls=ports.tls, folder=folder))
    cause, remedy = CAUSES[url]
    assert cause in found.what
    assert remedy in found.remedy


@pytest.mark.parametrize("place", [in_the_listener, in_a_worker])
def test_a_server_that_is_only_away_is_not_blamed_on_tls(place: Any) -> None:
    for scheme in ("redis", "rediss"):
        assert "Error 111 connecting" in place(f"{scheme}://127.0.0.1:{free_port()}").what


@pytest.mark.long
@pytest.mark.parametrize(
    "url",
    [
        "unix://:s3cret@{folder}/redis.sock?db=1",
        "valkey://:s3cret@localhost:{plain}/2",
        "valkeys://:s3cret@localhost:{tls}?ssl_ca_certs={folder}/cert.pem",
    ],
)
def test_events_arrive_over_a_url_of_every_kind_and_verify_passes(
    url: str,
    ports: Ports,
    folder: Path,
    base: dict[str, str],
    connection: psycopg.Connection,
    start_listener: StartListener,
    start_app: StartApp,
    verify: Verify,
) -> None:
    settings = base | {"REDIS_URL": url.format(plain=ports.plain, tls=ports.tls, folder=folder)}
    listener = start_listener(settings).wait_until_aligned()
    app = start_app(settings | {"WEB_CONCURRENCY": "1"}).wait_until_ready()
    with app.client(1) as client:
        client.wait_for_initial_load()
        notify(connection, "match_change", {"match_id": 1})
        client.wait_for_updates(1)
    verified = verify(settings)
    assert (verified.code, verified.with_status("failed")) == (0, []), verified.log
    assert "s3cret" not in listener.log + app.log + verified.log


@pytest.mark.long
def test_listener_page_and_readiness_name_tls_where_tls_is_the_cause(
    ports: Ports, base: dict[str, str], start_listener: StartListener, start_app: StartApp
) -> None:
    settings = base | {"REDIS_URL": f"rediss://:s3cret@localhost:{ports.plain}"}
    listener, app = start_listener(settings), start_app(settings)
    listener.wait_for_log("Redis is away: this port of Redis takes no TLS; begin REDIS_URL with redis://")
    app.wait_for_log("this port of Redis takes no TLS")
    assert "s3cret" not in listener.log + app.log
