"""Servers that fail over: a primary and a standby of PostgreSQL at one address, and the same of Redis at another."""

import shutil
from dataclasses import fields
from pathlib import Path
from random import Random

from app.appliance.embedded.servers import EmbeddedServers
from tests.support.postgres_cluster import PostgresServer
from tests.support.process import Process
from tests.support.proxy import Proxy
from tests.support.redis_pair import RedisPair
from tests.support.servers import Servers


class Addresses(EmbeddedServers):
    """Where both servers are reached; Redis has no password."""

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.valkey_port}"


class ReplicatedServers(Servers):
    """Both servers, each with a standby, at addresses that lead to the primaries of the moment."""

    def __init__(self, folder: Path, template: Path | None = None, *, is_logical: bool = False) -> None:
        super().__init__(folder, template)
        self._clusters = 1
        self.primary = PostgresServer.initialise(folder / "postgres-1")
        if is_logical:
            self.primary.configure("wal_level", "logical")
        self.standby: PostgresServer | None = None
        self.postgres_address = Proxy(self.primary.port)
        self.pair = RedisPair(folder)
        given = {each.name: getattr(self.embedded, each.name) for each in fields(self.embedded)}
        self.embedded = Addresses(**given | {"postgres_port": self.postgres_address.port})

    def start_postgres(self) -> None:
        """Start the primary; the first time with a standby."""
        self.primary.start()
        self.postgres = self.primary.process
        self.standby = self.standby or self._new_standby()

    def start_redis(self) -> None:
        """Start both servers."""
        self.pair.__enter__()
        given = {each.name: getattr(self.embedded, each.name) for each in fields(self.embedded)}
        self.embedded = Addresses(**given | {"valkey_port": self.pair.address.port})

    def restart_redis_without_data(self) -> None:
        """Kill the primary and start it again; neither it nor its replica keeps anything."""
        self.pair.primary.kill()
        self.pair.primary.start("--replicaof", "no one")  # it may have been started as the replica

    @property
    def redis_process(self) -> Process:
        """The process of the primary."""
        assert self.pair.primary.process
        return self.pair.primary.process

    def fail_over_redis(self, rng: Random) -> None:
        """Make the replica the primary. The address leads to it, and no connection is cut."""
        if rng.random() < 0.5:
            self.pair.fail_over()
        else:
            self.pair.promote()
            self.pair.demote()
        self.pair.swap()

    def lose_postgres_primary(self, *, crash: bool) -> None:
        """End the primary; the address leads to the standby, which is not promoted yet."""
        assert self.standby
        if crash:
            self.primary.crash()
        else:
            self.primary.stop()
        self.postgres_address.redirect_to(self.standby.port)

    def promote_postgres_standby(self) -> None:
        """Make the standby the primary, with a new standby of its own."""
        assert self.standby
        self.standby.promote()
        shutil.rmtree(self.primary.folder)
        self.primary, self.postgres = self.standby, self.standby.process
        self.standby = self._new_standby()

    def end(self) -> None:
        """End all four, whatever their state."""
        for server in (self.primary, self.standby):
            if server:
                server.end()
        self.postgres = None
        self.postgres_address.close()
        self.pair.__exit__()
        super().end()

    def _new_standby(self) -> PostgresServer:
        self._clusters += 1
        return self.primary.standby(self.primary.folder.with_name(f"postgres-{self._clusters}"))
