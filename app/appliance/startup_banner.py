"""What run.sh says once the appliance is ready: where it is, how to watch it, how to stop it."""

import shutil
import sys
import time
from pathlib import Path

from app.appliance import ApplianceError
from app.appliance.embedded import postgres
from app.appliance.embedded.servers import HOST, EmbeddedServers, password_file
from app.appliance.health_check import host, what_is_missing
from app.core.config import Settings, load_settings_or_exit, servers_given

_SLOW, _PATIENCE = 8.0, 120.0  # seconds until what is missing is said, and until no more is waited
_LISTENING = "SELECT pid, state, query FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"


def main() -> None:
    """Waits until the appliance is ready, and says so.

    Raises:
        ApplianceError: it isn't, after two minutes.
    """
    settings = load_settings_or_exit()
    _wait_until_ready(settings)
    lines = ["", f"  notifymux is ready: http://{host(settings)}:{settings.port}", "", *_hints()]
    sys.stdout.write("\n".join([*lines, "", "  Ctrl-C stops everything.", "", ""]))


def _wait_until_ready(settings: Settings) -> None:
    started = time.monotonic()
    said = None
    while missing := what_is_missing(settings):
        waited = time.monotonic() - started
        if waited > _PATIENCE:
            raise ApplianceError(f"not ready after {waited:.0f} s: {missing}; the log above says why")
        if waited > _SLOW and missing != said:
            sys.stdout.write(f"notifymux: not ready yet: {missing}\n")
            sys.stdout.flush()
            said = missing
        time.sleep(0.2)


def _hints() -> list[str]:
    hints = [f"  In another terminal, in {Path.cwd()}:", "    .venv/bin/supervisorctl status"]
    if servers_given():
        return hints
    embedded = EmbeddedServers.load(load_settings_or_exit().data_dir)
    psql = "psql" if shutil.which("psql") else str(postgres.program("psql"))
    password = password_file(embedded.data)
    return [
        *hints,
        f'    PGPASSWORD=$(cat {password}) {psql} -h {HOST} -p {embedded.postgres_port} -U postgres -c "{_LISTENING}"',
        f"    REDISCLI_AUTH=$(cat {password}) redis-cli -p {embedded.valkey_port} SUBSCRIBE pg_notify:events",
    ]
