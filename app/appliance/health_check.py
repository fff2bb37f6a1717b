"""Asks the appliance on this machine whether it is ready; as a program, for health checks."""

import http.client
import sys

from app.core.config import Settings, load_settings_or_exit

_LOCAL = {"0.0.0.0", "127.0.0.1", "::", "[::]"}  # noqa: S104 - compared, not bound


def main() -> None:
    """Ends with exit code 0 if the appliance is ready; else says what is missing and ends with 1."""
    missing = what_is_missing(load_settings_or_exit())
    if missing:
        sys.exit(missing)


def what_is_missing(settings: Settings) -> str:
    """What keeps the appliance from being ready, in its own words; empty when it is."""
    connection = http.client.HTTPConnection(host(settings), settings.port, timeout=3)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        said = " ".join(response.read().decode(errors="replace").split())
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers at {host(settings)}:{settings.port} ({error})"
    finally:
        connection.close()
    return "" if response.status == http.HTTPStatus.OK else said


def host(settings: Settings) -> str:
    """The host under which this machine reaches what is served."""
    return "localhost" if settings.host in _LOCAL else settings.host
