"""A primary, its replica, and an address that leads to one of them: a fail-over that cuts no connection."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.support.proxy import Proxy
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


class Address(Proxy):
    """An address that can be led elsewhere as a name or a virtual address is: what is connected stays connected."""

    def redirect_to(self, server_port: int) -> None:
        self._server_port = server_port


class RedisPair:
    """Two servers, the second a replica of the first, and the address of the primary."""

    def __init__(self, folder: Path) -> None:
        self.primary = RedisServer(folder)
        self.replica = RedisServer(folder, "--replicaof", f"127.0.0.1 {self.primary.port}")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.primary)
        self.primary.leave_a_trace()
        self._stack.enter_context(self.replica)
        self.address = self._stack.enter_context(Address(self.primary.port))
        wait_until(lambda: self.in_step, what="the replica follows")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.address.port}"

    @property
    def in_step(self) -> bool:
        """Whether the primary counts the replica as one that follows."""
        return self.primary.has_replica

    def promote(self) -> None:
        """The replica becomes a primary, and the address leads to it; the old one stays as it is."""
        self.replica.client.replicaof("NO", "ONE")
        self.address.redirect_to(self.replica.port)

    def demote(self) -> None:
        """The old primary becomes a replica of the new one."""
        self.primary.client.replicaof("127.0.0.1", str(self.replica.port))
        wait_until(lambda: self.primary.info("replication")["role"] == "slave")

    def fail_over(self) -> None:
        """Redis's own FAILOVER: both change places, and no connection is cut; then the address leads to the new one."""
        self.primary.call("FAILOVER", "TO", "127.0.0.1", self.replica.port)
        wait_until(lambda: self.primary.info("replication")["role"] == "slave", what="the fail-over")
        self.address.redirect_to(self.replica.port)

    def swap(self) -> None:
        """After a fail-over: the new primary is `primary` from here on, and the old one follows it."""
        self.primary, self.replica = self.replica, self.primary
        wait_until(lambda: self.in_step, what="the old primary follows")

    def abandon(self) -> None:
        """The old primary becomes a replica of nobody: it answers, and hears nothing more."""
        self.primary.client.replicaof("127.0.0.1", "1")
        wait_until(lambda: self.primary.info("replication")["role"] == "slave")
