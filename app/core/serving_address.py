"""The address that the web server listens on: HOST and PORT, with IPv4, IPv6 or a name."""

import errno
import os
import socket
from pathlib import Path
from typing import NamedTuple

from app.core.settings_sources import SettingsError

_FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
_LOCALHOST = {"127.0.0.1", *_THIS_MACHINE}


class ServingAddress(NamedTuple):
    """HOST, without brackets, and PORT."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The URL under which this machine reaches the server, for people."""
        return f"http://{with_port('localhost' if self.host in _LOCALHOST else self.host, self.port)}"

    @property
    def local_host(self) -> str:
        """The host under which this machine reaches the server."""
        return _THIS_MACHINE.get(self.host, self.host)

    def bind_text(self) -> str:
        """Return the address as gunicorn takes it, which resolves names as IPv4 only.

        Raises:
            SettingsError: HOST does not resolve.
        """
        family, host = self._resolve()
        return with_port(host if family == socket.AF_INET6 else self.host, self.port)

    def check(self, *, taken_is_wrong: bool = True) -> None:
        """Check that a server can listen here.

        Args:
            taken_is_wrong: False where an earlier process may still be about to leave the port.

        Raises:
            SettingsError: it can't.
        """
        family, host = self._resolve()
        try:
            socket.create_server((host, self.port), family=family, dualstack_ipv6=host == "::").close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or taken_is_wrong:
                raise SettingsError(self._explain(error)) from None

    def _resolve(self) -> tuple[int, str]:
        """Return the family and an address of HOST, an IPv4 one if there is one."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError):
            raise SettingsError(
                f"HOST={self.host!r} does not resolve: set an address of this machine, 0.0.0.0 for all, or :: for all"
                " with IPv6"
            ) from None
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        return family, str(address[0])

    def _explain(self, error: OSError) -> str:
        if error.errno == errno.EACCES:
            first = _FIRST_FREE_PORT.read_text(encoding="ascii").strip() if _FIRST_FREE_PORT.exists() else "1024"
            return (
                f"PORT={self.port}: user {os.geteuid()} may not listen on a port below {first}: set PORT to a higher"
                f" one, and have Docker publish it as this one (-p {self.port}:8000), or a proxy listen in front"
            )
        if error.errno == errno.EADDRNOTAVAIL:
            return f"HOST={self.host!r} is no address of this machine: set one of its own, or 0.0.0.0 for all"
        if error.errno == errno.EAFNOSUPPORT:
            return f"HOST={self.host!r} needs IPv6, which is off here: set 0.0.0.0"
        reason = str(error.strerror).partition(" (")[0]
        return f"PORT={self.port} on HOST={self.host}: {reason}; stop what uses it, or set PORT"


def with_port(host: str, port: int | str) -> str:
    """Return a host and a port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
