"""REDIS_URL that names Sentinels or a Cluster's nodes: they say where the primary is, or what is wrong is said."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from listener.verify import redis_checks
from listener.verify.result import CheckStatus
from notifymux.redis_client import RedisAddress, async_client, sync_client, sync_connection
from tests.failover_redis.test_urls import in_a_worker, in_the_listener, in_verify
from tests.support.redis_sentinels import RedisSentinels, watch
from tests.support.redis_server import RedisServer, certificate
from tests.support.servers import free_port
from tests.support.waiting import wait_until

IN_ALL_PLACES = pytest.mark.parametrize("place", [in_the_listener, in_a_worker, in_verify])


class Place(NamedTuple):
    """Servers of every kind."""

    primary: RedisServer
    sentinel: RedisServer  # its user `asker` may ask where the primary is, and its default user nothing
    lonely: RedisServer  # a Sentinel whose primary is away
    node: RedisServer  # of a Cluster that has no slots
    tls: int  # a port of `primary`
    sentinel_tls: int
    folder: Path

    def url(self, text: str) -> str:
        """A URL with these servers' ports in it, and one where nobody is."""
        ports = {name: server.port for name, server in self._asdict().items() if isinstance(server, RedisServer)}
        return text.format(**ports, nobody=free_port(), sentinel_tls=self.sentinel_tls, folder=self.folder)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("discovery")
    certificate(folder)
    pem = {name: str(folder / f"{name}.pem") for name in ("cert", "key")}
    files = ("--tls-cert-file", pem["cert"], "--tls-key-file", pem["key"], "--tls-ca-cert-file", pem["cert"])
    tls = (*files, "--tls-auth-clients", "no", "--tls-replication", "yes")
    ports = free_port(), free_port()
    with (
        RedisServer(folder, "--tls-port", str(ports[0]), *tls) as primary,
        RedisServer(folder, "--tls-port", str(ports[1]), *tls, mode="sentinel") as sentinel,
        RedisServer(folder, mode="sentinel") as lonely,
        RedisServer(folder, mode="cluster") as node,
    ):
        for option in ("resolve-hostnames", "announce-hostnames"):
            sentinel.call("SENTINEL", "CONFIG", "SET", option, "yes")
        watch(sentinel, ports[0], "localhost")
        watch(lonely, free_port())
        sentinel.call("ACL", "SETUSER", "asker", "on", ">s3cret", "-@all", "+sentinel|masters")
        sentinel.call("ACL", "SETUSER", "default", "resetpass", "-@all", "+client|id", "+acl")
        wait_until(lambda: RedisSentinels.state(lonely)["is_sdown"], what="the primary is taken for down")
        yield Place(primary, sentinel, lonely, node, *ports, folder)


FAULTS = {
    "redis+sentinel://127.0.0.1:{lonely}/other": ("the Sentinels know no master other", "they know: mymaster"),
    "redis+sentinel://127.0.0.1:{lonely}/mymaster": ("the Sentinels take mymaster, the primary, for down", ""),
    "redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{nobody}/mymaster": (
        "no Sentinel says where the primary is: Error 111 connecting",
        "",
    ),
    "redis+sentinel://sentinel.invalid/mymaster": ("no Sentinel says where the primary is: Error -", ""),
    "redis+sentinel://127.0.0.1:{primary}/mymaster": ("is no Sentinel", "name the Sentinels' ports"),
    "redis+sentinel://127.0.0.1:{sentinel}/mymaster?sentinel_username=asker&sentinel_password=not-s3cret": (
        "refuses this login",
        "check sentinel_username and sentinel_password",
    ),
    "redis+sentinel://127.0.0.1:{sentinel}/mymaster": ("refuses this login", "check sentinel_username"),
    "rediss+sentinel://127.0.0.1:{lonely}/mymaster": ("takes no TLS", "begin REDIS_URL with redis"),
    "redis+cluster://127.0.0.1:{primary}": ("a Redis that is no Cluster", "begin it with redis://"),
    "redis+cluster://127.0.0.1:{nobody},127.0.0.1:{nobody}": ("no node of the Redis Cluster says", ""),
    "redis+cluster://127.0.0.1:{node}": ("no node of the Redis Cluster has the slot", "redis-cli --cluster check"),
    "redis+cluster://:s3cret@127.0.0.1:{node}": ("without any password configured", "user and password"),
}


@IN_ALL_PLACES
@pytest.mark.parametrize("url", FAULTS)
def test_what_keeps_a_primary_from_being_found_is_named(
    url: str, place: Callable[[str], tuple[str, str]], servers: Place
) -> None:
    found, (cause, remedy) = place(servers.url(url)), FAULTS[url]
    assert cause in found[0]
    assert remedy in found[1]
    assert "s3cret" not in str(found)


ASKER = "?ssl_ca_certs={folder}/cert.pem&sentinel_username=asker&sentinel_password=s3cret"
RIGHT = [
    "rediss+sentinel://localhost:{sentinel_tls}/mymaster" + ASKER,
    "rediss+sentinel://sentinel.invalid,localhost:{nobody},localhost:{sentinel_tls}/mymaster/2" + ASKER,
]


@pytest.mark.parametrize("url", RIGHT)
def test_a_primary_is_found_over_tls_by_the_sentinels_own_user_although_some_are_away(url: str, servers: Place) -> None:
    url = servers.url(url)
    address = RedisAddress(url)
    connection = sync_connection(address)
    assert connection.host == "localhost"
    connection.disconnect()  # type: ignore[no-untyped-call]

    async def ping() -> None:
        client = async_client(address)
        assert await client.ping()
        await client.aclose()

    asyncio.run(ping())
    with closing(sync_client(address)) as client:
        check, info = redis_checks.connect(client, url)
    assert info
    assert check.status is CheckStatus.OK
    assert check.text.endswith(f"the primary is localhost:{servers.tls}")
