"""Asks the appliance on this machine whether it is ready, for HEALTHCHECK."""

import http.client
import sys

from app.core.config import Settings, load_settings_or_exit

_LOCAL = {"0.0.0.0", "127.0.0.1", "::", "[::]"}  # noqa: S104 - compared, not bound


def main() -> None:
    """End with exit code 0 if the appliance is ready; else print the reasons and end with 1."""
    if reasons := unready(load_settings_or_exit()):
        sys.exit(reasons)


def unready(settings: Settings) -> str:
    """Return why the appliance is not ready, in the words of /readyz; nothing when it is."""
    connection = http.client.HTTPConnection(host(settings), settings.port, timeout=3)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        answer = " ".join(response.read().decode(errors="replace").split())
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers at {host(settings)}:{settings.port} ({error})"
    finally:
        connection.close()
    return "" if response.status == http.HTTPStatus.OK else answer


def host(settings: Settings) -> str:
    """Return the host under which this machine reaches the server."""
    return "localhost" if settings.host in _LOCAL else settings.host
