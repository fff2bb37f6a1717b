"""A Redis Cluster: three primaries, and a replica of each."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.crc import key_slot

from notifymux.redis_keys import DEFAULT_NAMESPACE, RedisNames
from tests.support.redis_group import RedisGroup
from tests.support.redis_server import RedisServer, redis_server
from tests.support.waiting import wait_until

_PRIMARIES, _REPLICAS = 3, 3
_NODE_TIMEOUT_MS = 1000
KEY = RedisNames(DEFAULT_NAMESPACE).log
SLOT = key_slot(KEY.encode())


class RedisCluster(RedisGroup):
    """The six servers.

    Args:
        folder: where their folders are made.
        options: of each, as on the command line.
        program: redis-server or valkey-server.
    """

    def __init__(self, folder: Path, *options: str, program: str | None = None) -> None:
        timeout = ("--cluster-node-timeout", str(_NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0")
        self.nodes = [
            RedisServer(
                folder,
                *timeout,
                *options,
                mode="cluster",
                program=program or redis_server(),
            )
            for _ in range(_PRIMARIES + _REPLICAS)
        ]
        super().__init__(self.nodes)

    def introduce(self) -> None:
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        subprocess.run(create, check=True, capture_output=True)
        wait_until(lambda: all(self._is_complete(node) for node in self.nodes), what="the nodes agree")
        self.owner.leave_a_trace()
        wait_until(lambda: self.replica.info("replication")["master_link_status"] == "up")

    def _is_complete(self, node: RedisServer) -> bool:
        if node.client.cluster("INFO")["cluster_state"] != "ok":
            return False
        roles = [entry["flags"].split(",") for entry in self._nodes(node).values()]
        return sum("slave" in flags for flags in roles) == _REPLICAS and not any("fail" in flags for flags in roles)

    @staticmethod
    def _nodes(node: RedisServer) -> Mapping[str, Any]:
        found: dict[str, Any] = node.client.cluster("NODES")
        return found

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:_PRIMARIES])

    @property
    def owner(self) -> RedisServer:
        """The primary that has the slot of the keys, as it says itself."""
        return next(node for node in self.living if self._has_slot(node))

    def _has_slot(self, node: RedisServer) -> bool:
        own = next(entry for entry in self._nodes(node).values() if "myself" in entry["flags"])
        return "master" in own["flags"] and any(
            int(first) <= SLOT <= int(last) for first, last in map(_range, own["slots"])
        )

    @property
    def replica(self) -> RedisServer:
        """The replica of `owner`."""
        owner = self.owner
        [port] = [int(entry["port"]) for name, entry in owner.info("replication").items() if name.startswith("slave")]
        return next(node for node in self.nodes if node.port == port)

    @property
    def pair(self) -> tuple[RedisServer, RedisServer]:
        return self.owner, self.replica

    def rejoin(self, server: RedisServer) -> None:
        server.start()
        wait_until(lambda: self.owner.has_replica and all(self._is_complete(node) for node in self.nodes), 30)

    @property
    def living(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.process and node.process.running]

    @property
    def others(self) -> list[RedisServer]:
        """The primaries without the slot."""
        owner = self.owner
        return [node for node in self.living if node is not owner and node.is_primary]

    # A slot migrates as `redis-cli --cluster reshard` has it: it is opened on both sides, its keys are moved one by
    # one, and then it is assigned to the other side.

    def migrate(self, target: RedisServer) -> None:
        """Move the slot of the keys to another primary."""
        source = self.owner
        self.open(target)
        self.move_keys(source, target)
        self.assign(target, source)

    def open(self, target: RedisServer) -> None:
        """Begin the migration."""
        source = self.owner
        target.call("CLUSTER", "SETSLOT", SLOT, "IMPORTING", source.call("CLUSTER", "MYID"))
        source.call("CLUSTER", "SETSLOT", SLOT, "MIGRATING", target.call("CLUSTER", "MYID"))

    @staticmethod
    def move_keys(source: RedisServer, target: RedisServer) -> None:
        """Move all keys of the slot."""
        while keys := source.call("CLUSTER", "GETKEYSINSLOT", SLOT, 100):
            source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def assign(self, target: RedisServer, source: RedisServer) -> None:
        """End the migration."""
        name = target.call("CLUSTER", "MYID")
        for node in (target, source, *self.living):
            if node.is_primary:
                node.call("CLUSTER", "SETSLOT", SLOT, "NODE", name)


def _range(slots: list[str]) -> tuple[str, str]:
    return slots[0], slots[-1]
