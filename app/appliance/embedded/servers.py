"""The embedded servers' data folder, their ports, and the password of both."""

import json
import os
import random
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from app.appliance import ApplianceError

HOST = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections: none of those can take a server's port while
# it restarts, or connect to itself.
_PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class EmbeddedServers:
    """The embedded servers of one data folder."""

    data: Path
    postgres_port: int
    valkey_port: int
    password: str = field(repr=False)

    @classmethod
    def load(cls, data: Path) -> Self:
        """Return what `choose` wrote.

        Raises:
            ApplianceError: it was never called for this folder.
        """
        try:
            ports = _read_ports(data)
            return cls(data, ports["postgres"], ports["valkey"], password_file(data).read_text(encoding="ascii"))
        except (OSError, KeyError) as error:
            raise ApplianceError(f"no embedded servers in DATA_DIR={str(data)!r} ({error}): start the whole") from None

    @classmethod
    def choose(cls, data: Path) -> Self:
        """Choose the ports of the last run if they are free, else new ones; make a password if there is none.

        Raises:
            ApplianceError: no port is free, or the password of existing data is missing.
        """
        last: dict[str, int] = {}
        with suppress(OSError):
            last = _read_ports(data)
        postgres = _free_port(last.get("postgres"))
        valkey = _free_port(last.get("valkey"), other_than=postgres)
        write_private(data / "ports.json", json.dumps({"postgres": postgres, "valkey": valkey}))
        if not password_file(data).exists():
            if (data / "postgres").exists():
                raise ApplianceError(f"{password_file(data)} is missing: put it back, or remove {data} to begin anew")
            write_private(password_file(data), secrets.token_urlsafe(24))
        return cls.load(data)

    @property
    def database_url(self) -> str:
        """The database as a libpq connection string. It contains the password: never log it."""
        return (
            f"host={HOST} port={self.postgres_port} user=postgres password={self.password} dbname=postgres"
            " sslmode=disable"
        )

    @property
    def redis_url(self) -> str:
        """Valkey as a URL. It contains the password: never log it."""
        return f"redis://:{self.password}@{HOST}:{self.valkey_port}"


def password_file(data: Path) -> Path:
    """Return the path of the file that contains the servers' password and nothing else."""
    return data / "password"


def write_private(path: Path, text: str) -> None:
    """Write a file that only the owner of its folder can read, also while it is being written."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        if os.geteuid() == 0:  # the next run may be as the folder's owner
            owner = path.parent.stat()
            os.chown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(text)
    new.rename(path)


def _read_ports(data: Path) -> dict[str, int]:
    ports: dict[str, int] = json.loads((data / "ports.json").read_text(encoding="ascii"))
    return ports


def _free_port(preferred: int | None, *, other_than: int | None = None) -> int:
    candidates = [port for port in random.sample(_PORTS, 100) if port != other_than]
    if preferred:
        candidates.insert(0, preferred)
    for port in candidates:
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
    raise ApplianceError(f"none of 100 ports tried on {HOST} is free for the embedded servers")
