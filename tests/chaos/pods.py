"""Listeners as pods have them: each behind proxies of its own, restarted as supervisord would."""

from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import redis
from psycopg.conninfo import conninfo_to_dict

from tests.chaos.load import CHANNELS
from tests.support.programs import Listener
from tests.support.proxy import Proxy
from tests.support.servers import Servers, database_settings, through
from tests.support.waiting import wait_until

NAMESPACE = "pg_notify"
SETTINGS = {"REDIS_NAMESPACE": NAMESPACE, "CANARY_INTERVAL": "1", "NOTIFY_CHANNELS": ",".join(CHANNELS)}


class Pod:
    """One pod's listener, and its ways to both servers, which can be cut and stalled."""

    def __init__(self, name: str, folder: Path, servers: Servers, settings: Mapping[str, str] | None = None) -> None:
        embedded = servers.embedded
        self.name, self._folder = name, folder
        self.postgres = Proxy(int(str(conninfo_to_dict(embedded.database_url)["port"])))
        self.redis = Proxy(embedded.valkey_port)
        self._settings = {
            **SETTINGS,
            **database_settings(embedded.database_url, self.postgres.port),
            "REDIS_URL": through(embedded.redis_url, self.redis.port),
            "POD_NAME": name,
            **(settings or {}),
        }
        self._redis_url = (settings or {}).get("REDIS_URL", embedded.redis_url)  # not through the proxy
        self.processes: list[Listener] = []

    @property
    def process(self) -> Listener:
        """The one that runs, or ran last."""
        return self.processes[-1]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self) -> Self:
        self.processes.append(Listener(self._folder, self._settings))
        return self

    def end(self) -> None:
        try:
            for process in self.processes:
                process.end()
        finally:
            self.postgres.close()
            self.redis.close()

    @property
    def log(self) -> str:
        return "\n".join(f"--- {self.name}, pid {process.pid}\n{process.log}" for process in self.processes)

    def hash(self) -> dict[bytes, bytes]:
        """What the registry shows of the process, if it is there; `age`: milliseconds since its last heartbeat."""
        with closing(redis.Redis.from_url(self._redis_url, socket_timeout=2)) as client:
            for key in client.scan_iter(match=f"{{{NAMESPACE}}}:listener:{self.name}:*"):
                fields: Any = client.hgetall(key)
                if fields.get(b"pid") == str(self.process.pid).encode():
                    left: Any = client.pttl(key)
                    return {**fields, b"age": str(60_000 - left).encode()}
        return {}

    def is_aligned(self) -> bool:
        """Whether it said within the last second that it counts, and has nothing that Redis refused."""
        with suppress(redis.RedisError):
            fields = self.hash()
            if fields.get(b"role") in {b"primary", b"standby"} and fields.get(b"state") == b"running":
                return int(fields[b"age"]) < 1500
        return False

    def aligned(self, within: float = 30.0) -> Self:
        wait_until(self.is_aligned, within, f"{self.name} aligned")
        return self
