"""Servers that fail over: a primary and its standby at one address."""

import dataclasses
import shutil
from pathlib import Path

from tests.support.postgres_cluster import PostgresServer
from tests.support.proxy import Proxy
from tests.support.servers import Servers


class ReplicatedServers(Servers):
    """As `Servers`, with a PostgreSQL whose address leads to the primary of the moment."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folders = 1
        self.primary = PostgresServer.initialise(folder / "postgres-1")
        self.address = Proxy(self.primary.port)
        self.embedded = dataclasses.replace(self.embedded, postgres_port=self.address.port)
        self.standby: PostgresServer | None = None

    def start_postgres(self) -> None:
        """Starts the primary, and at first a standby."""
        self.primary.start()
        self.postgres = self.primary.process
        self.standby = self.standby or self._new_standby()

    def fail_over(self, *, crash: bool) -> None:
        """Ends the primary; the address leads to the standby, which is not promoted yet."""
        assert self.standby
        self.primary.crash() if crash else self.primary.stop()
        self.address.lead_to(self.standby.port)

    def promote(self) -> None:
        """Makes the standby the primary, with a new standby of its own."""
        assert self.standby
        self.standby.promote()
        shutil.rmtree(self.primary.folder)
        self.primary, self.postgres = self.standby, self.standby.process
        self.standby = self._new_standby()

    def end(self) -> None:
        for server in (self.primary, self.standby):
            if server:
                server.end()
        self.postgres = None
        self.address.close()
        super().end()

    def _new_standby(self) -> PostgresServer:
        self._folders += 1
        return self.primary.standby(self.primary.folder.with_name(f"postgres-{self._folders}"))
