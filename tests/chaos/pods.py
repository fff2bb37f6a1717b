"""Pods: listeners that reach both servers through proxies."""

from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import redis
from psycopg.conninfo import conninfo_to_dict

from tests.chaos.load import CHANNELS
from tests.support.programs import Listener
from tests.support.proxy import Proxy
from tests.support.servers import Servers, database_settings, redis_url_with_port
from tests.support.waiting import wait_until

NAMESPACE = "pg_notify"
SETTINGS = {"REDIS_NAMESPACE": NAMESPACE, "CANARY_INTERVAL": "1", "NOTIFY_CHANNELS": ",".join(CHANNELS)}


class Pod:
    """The listener of one pod, and the proxies to both servers. Runs while the block runs.

    Args:
        name: of the pod.
        folder: the pod's, where workers find its feed; it is created.
        servers: both.
        settings: in addition to the usual ones.
    """

    def __init__(self, name: str, folder: Path, servers: Servers, settings: Mapping[str, str] | None = None) -> None:
        embedded = servers.embedded
        self.name, self.folder = name, folder
        folder.mkdir(exist_ok=True)
        self.postgres_proxy = Proxy(int(str(conninfo_to_dict(embedded.database_url)["port"])))
        self.redis_proxy = Proxy(embedded.valkey_port)
        self._settings = {
            **SETTINGS,
            **database_settings(embedded.database_url, self.postgres_proxy.port),
            "REDIS_URL": redis_url_with_port(embedded.redis_url, self.redis_proxy.port),
            "POD_NAME": name,
            **(settings or {}),
        }
        self._redis_url = (settings or {}).get("REDIS_URL", embedded.redis_url)  # not through the proxy
        self.processes: list[Listener] = []

    @property
    def process(self) -> Listener:
        """The current process, or the last one."""
        return self.processes[-1]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> Self:
        self.processes.append(Listener(self.folder, self._settings))
        return self

    def end(self) -> None:
        try:
            for process in self.processes:
                process.end()
        finally:
            self.postgres_proxy.close()
            self.redis_proxy.close()

    @property
    def log(self) -> str:
        return "\n".join(f"--- {self.name}, pid {process.pid}\n{process.log}" for process in self.processes)

    def registry_entry(self) -> dict[bytes, bytes]:
        """Return the process's hash in the registry, with its `age` in ms added; empty if there is none."""
        with closing(redis.Redis.from_url(self._redis_url, socket_timeout=2)) as client:
            for key in client.scan_iter(match=f"{{{NAMESPACE}}}:listener:{self.name}:*"):
                fields: Any = client.hgetall(key)
                if fields.get(b"pid") == str(self.process.pid).encode():
                    ttl: Any = client.pttl(key)
                    return {**fields, b"age": str(60_000 - ttl).encode()}
        return {}

    def is_aligned(self) -> bool:
        """Whether a recent heartbeat says that the listener is aligned and Redis accepts its writes.

        With SOURCE=wal, one that waits for the slot is.
        """
        with suppress(redis.RedisError):
            fields = self.registry_entry()
            if fields.get(b"role") in {b"primary", b"standby", b"waiting"} and fields.get(b"state") == b"running":
                return int(fields[b"age"]) < 1500
        return False

    def wait_until_aligned(self, within: float = 30.0) -> Self:
        wait_until(self.is_aligned, within, lambda: f"{self.name} aligned\n{self.log}")
        return self
