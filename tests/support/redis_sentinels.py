"""A primary and its replica, and three Sentinels that watch them."""

from pathlib import Path
from typing import Any

from tests.support.redis_group import RedisGroup
from tests.support.redis_server import RedisServer, redis_server
from tests.support.waiting import wait_until

MASTER = "mymaster"
_SENTINELS, _QUORUM = 3, 2
_DOWN_AFTER_MS, _FAILOVER_TIMEOUT_MS = 500, 2000
# As SENTINEL DEBUG takes them: Sentinels meet, and look at Redis, every 10 s by default. They promote only a replica
# whose INFO is no older than five PING-PERIODs, and while the primary is down they ask for it once a second.
_PERIODS_MS = ("INFO-PERIOD", 300, "PUBLISH-PERIOD", 200, "PING-PERIOD", 250, "ASK-PERIOD", 100)


class RedisSentinels(RedisGroup):
    """The five servers.

    Args:
        folder: where their folders are made.
        options: of both Redis, as on the command line.
        program: redis-server or valkey-server.
    """

    def __init__(self, folder: Path, *options: str, program: str | None = None) -> None:
        program = program or redis_server()
        self.primary = RedisServer(folder, *options, program=program)
        replicating = ("--replicaof", f"127.0.0.1 {self.primary.port}")
        self.replica = RedisServer(folder, *options, *replicating, program=program)
        self.sentinels = [RedisServer(folder, mode="sentinel", program=program) for _ in range(_SENTINELS)]
        super().__init__([self.primary, self.replica, *self.sentinels])

    def introduce(self) -> None:
        self.primary.leave_a_trace()
        wait_until(lambda: self.primary.has_replica)
        for sentinel in self.sentinels:
            watch(sentinel, self.primary.port)
        wait_until(lambda: all(self._knows_all(each) for each in self.sentinels), what="the Sentinels know each other")

    def _knows_all(self, sentinel: RedisServer) -> bool:
        state = self.state(sentinel)
        return (state["num-slaves"], state["num-other-sentinels"]) == (1, _SENTINELS - 1)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.addresses}/{MASTER}"

    @property
    def addresses(self) -> str:
        """Those of the Sentinels, as REDIS_URL lists them."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @staticmethod
    def state(sentinel: RedisServer) -> dict[str, Any]:
        """What a Sentinel says of the primary."""
        found: Any = sentinel.client.sentinel_master(MASTER)
        return dict(found)

    @property
    def pair(self) -> tuple[RedisServer, RedisServer]:
        return self.primary, self.replica

    def names(self, server: RedisServer) -> bool:
        """Whether a majority of the Sentinels answer, when asked for the primary's address, with this server's."""
        said = [sentinel.client.sentinel_get_master_addr_by_name(MASTER) for sentinel in self.sentinels]
        return sum(address == ("127.0.0.1", server.port) for address in said) > _SENTINELS / 2

    def rejoin(self, server: RedisServer) -> None:
        self.primary, self.replica = self.replica, self.primary
        assert server is self.replica
        server.start("--replicaof", f"127.0.0.1 {self.primary.port}")
        wait_until(lambda: self.primary.has_replica and all(map(self._is_settled, self.sentinels)), 30)

    def _is_settled(self, sentinel: RedisServer) -> bool:
        """Whether a Sentinel would promote the replica."""
        replicas: Any = sentinel.client.sentinel_slaves(MASTER)
        return self.state(sentinel)["port"] == self.primary.port and [each["flags"] for each in replicas] == ["slave"]

    def part(self) -> None:
        """The replica gets nothing more: it is frozen, and its connection ends."""
        part(self.primary, self.replica)


def part(primary: RedisServer, replica: RedisServer) -> None:
    """Freeze a replica and end its connection to the primary: it gets nothing more, also when it is thawed."""
    assert replica.process
    replica.process.freeze()
    primary.client.client_kill_filter(_type="replica")


def watch(sentinel: RedisServer, port: int, host: str = "127.0.0.1", quorum: int = _QUORUM) -> None:
    """Have a Sentinel watch a primary."""
    sentinel.call("SENTINEL", "DEBUG", *_PERIODS_MS)
    sentinel.call("SENTINEL", "MONITOR", MASTER, host, port, quorum)
    times = ("down-after-milliseconds", _DOWN_AFTER_MS, "failover-timeout", _FAILOVER_TIMEOUT_MS)
    sentinel.call("SENTINEL", "SET", MASTER, *times)
