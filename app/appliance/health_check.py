"""Asks the appliance on this machine whether it is alive, for HEALTHCHECK, and whether it is ready.

What ends a container whose HEALTHCHECK fails mends nothing by that in an outage of PostgreSQL or Redis, and loses what
the listener holds. So alive is everything that does not need a restart.
"""

import http.client
import json
import sys
import time
from http import HTTPStatus

from app.core.config import Settings, load_settings, load_settings_or_exit
from app.core.settings_sources import SettingsError

_TOKEN_SECONDS = 60
_TIMEOUT_SECONDS = 4.0  # twice that is less than HEALTHCHECK waits


def alive() -> None:
    """End with exit code 0 unless a restart is needed; else print the reason and end with 1."""
    try:
        settings = load_settings()
    except SettingsError as error:  # they were edited since the start, and no restart mends them
        print(f"notifymux: {error}")  # noqa: T201 - for `docker inspect`
        return
    if reason := needs_restart(settings):
        sys.exit(reason)


def ready() -> None:
    """End with exit code 0 if the appliance is ready; else print the reasons and end with 1."""
    if reasons := unready(load_settings_or_exit()):
        sys.exit(reasons)


def needs_restart(settings: Settings) -> str:
    """Return why only a restart helps: /healthz does not answer, or a bug ended a worker's source of events."""
    status, answer = _get(settings, "/healthz")
    if status != HTTPStatus.OK:
        return answer
    _, answer = _get(settings, "/readyz")
    try:
        return answer if json.loads(answer)["state"] == "broken" else ""
    except (ValueError, TypeError, KeyError):
        return ""  # /readyz did not answer, and /healthz did


def unready(settings: Settings) -> str:
    """Return why the appliance is not ready, in the words of /readyz; nothing when it is."""
    status, answer = _get(settings, "/readyz")
    return "" if status == HTTPStatus.OK else answer


def _get(settings: Settings, path: str) -> tuple[int, str]:
    """Return the status and the body, on one line, of a response; 0 and the error without one."""
    address = settings.serving_address
    connection = http.client.HTTPConnection(address.local_host, address.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path, headers=_as_operator(settings))
        response = connection.getresponse()
        return response.status, " ".join(response.read().decode(errors="replace").split())
    except (OSError, http.client.HTTPException) as error:
        return 0, f"nothing answers at {address.url} ({error})"
    finally:
        connection.close()


def _as_operator(settings: Settings) -> dict[str, str]:
    """Return a header with an operator's token, which is told the reasons, where this machine has the secret."""
    if settings.ws_jwt_secret is None:
        return {}
    import jwt  # noqa: PLC0415 - most appliances have no secret

    claims = {"operator": True, "exp": int(time.time()) + _TOKEN_SECONDS}
    return {"Authorization": f"Bearer {jwt.encode(claims, settings.ws_jwt_secret.get_secret_value(), 'HS256')}"}
