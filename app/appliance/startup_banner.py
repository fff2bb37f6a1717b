"""Prints, for run.sh, where the appliance is once it is ready, and how to watch and stop it."""

import shutil
import sys
import time
from pathlib import Path

from app.appliance import ApplianceError
from app.appliance.embedded import postgres
from app.appliance.embedded.servers import HOST, EmbeddedServers, password_file
from app.appliance.health_check import unready
from app.core.config import Settings, load_settings_or_exit
from app.core.settings_sources import servers_given

_REPORT_AFTER_SECONDS, _READY_TIMEOUT_SECONDS = 8.0, 120.0
_LISTENING = "SELECT pid, state, query FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"


def main() -> None:
    """Wait until the appliance is ready, and print the banner.

    Raises:
        ApplianceError: it is not ready after two minutes.
    """
    settings = load_settings_or_exit()
    _wait_until_ready(settings)
    lines = ["", f"  notifymux is ready: {settings.serving_address.url}", "", *_hints()]
    sys.stdout.write("\n".join([*lines, "", "  Ctrl-C stops everything.", "", ""]))


def _wait_until_ready(settings: Settings) -> None:
    started = time.monotonic()
    reported = None
    while reasons := unready(settings):
        waited = time.monotonic() - started
        if waited > _READY_TIMEOUT_SECONDS:
            raise ApplianceError(f"not ready after {waited:.0f} s: {reasons}; the log above says why")
        if waited > _REPORT_AFTER_SECONDS and reasons != reported:
            sys.stdout.write(f"notifymux: not ready yet: {reasons}\n")
            sys.stdout.flush()
            reported = reasons
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
