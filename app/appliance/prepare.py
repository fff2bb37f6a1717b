"""Checks what would keep the appliance from starting, and writes what its programs read; run by entrypoint.sh."""

import logging
import os
import re
import signal
import socket
import sys
from pathlib import Path

from app.appliance import ApplianceError
from app.appliance.embedded import postgres, valkey
from app.appliance.embedded.data_lock import acquire
from app.appliance.embedded.servers import HOST, EmbeddedServers, write_private
from app.appliance.memory_limit import warn_of_little_memory
from app.core.config import Settings, load_queries_or_exit, load_settings_or_exit
from app.core.logging_config import configure_logging
from app.core.setting_names import misnamed
from app.core.settings_sources import EMBEDDED_ENV_FILE, RUN_DIR, SettingsError, servers_given, setting_texts

_SOCKET = RUN_DIR / "supervisor.sock"
_SOCKET_PATH_LIMIT = 107 - len(".4194304")  # supervisord binds a name with its pid first
_PROGRAMS = RUN_DIR / "programs.conf"
_PROGRAM_FILES = Path(__file__).with_name("programs")  # sections of supervisord's configuration

logger = logging.getLogger(__name__)


def main() -> None:
    """Prepare a start.

    Raises:
        ApplianceError: the appliance can't start here.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda number, _: sys.exit(128 + number))  # initdb, a child process, ends with it
    _make_run_folder()
    _check_not_running()
    EMBEDDED_ENV_FILE.unlink(missing_ok=True)  # so that `servers_given` and the settings are the user's
    settings = load_settings_or_exit()
    load_queries_or_exit()
    configure_logging("appliance", settings.log_level, settings.log_format)
    try:
        settings.serving_address.check()
    except SettingsError as error:
        raise ApplianceError(str(error)) from None
    warn_of_little_memory(settings, demo=not servers_given())
    standby = ["standby"] if settings.listener_standby else []
    if servers_given():
        _write_programs(*standby)
        return
    check_demo_is_meant(settings)
    embedded = _prepare_servers(settings.data_dir)
    write_private(EMBEDDED_ENV_FILE, _environment(embedded))
    _write_programs("embedded", *standby)
    _announce(embedded)


def _make_run_folder() -> None:
    folder = RUN_DIR.resolve()  # in the image a link to /tmp: all else may be read-only
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("log", "pulse"):
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise ApplianceError(f"{folder} can't be made: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ApplianceError(f"{folder} belongs to another user, who ran this before: remove it")


def _check_not_running() -> None:
    path = _SOCKET.absolute()
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
        raise ApplianceError(
            f"{path} is too long for a socket (at most {_SOCKET_PATH_LIMIT} bytes): use a shorter path"
        )
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex(str(path)) == 0:
            raise ApplianceError(f"already running in {Path.cwd()}: supervisorctl shutdown stops it")


def check_demo_is_meant(settings: Settings) -> None:
    """Check that nothing leads to a server: the demo never starts in the place of one that was misspelt.

    Raises:
        ApplianceError: something does.
    """
    given = sorted(name for name in setting_texts() if name.startswith("DB_") and name.lower() in vars(settings))
    if given:
        raise ApplianceError(f"{', '.join(given)} given without DB_HOST: set DB_HOST too, or none of them")
    misspelt = [str(each) for each in misnamed() if each.is_of_a_server]
    if misspelt:
        raise ApplianceError(f"{'; '.join(misspelt)}. Neither DB_HOST nor REDIS_URL is set: set one, or remove these")


def _prepare_servers(data: Path) -> EmbeddedServers:
    postgres.program("initdb")  # raises where it is not installed, before anything is written
    try:
        data.mkdir(parents=True, exist_ok=True)
        valkey.make_folder(data)
        locks = [acquire(data.absolute() / name, seconds=10) for name in ("postgres", "valkey")]
        embedded = EmbeddedServers.choose(data)
        postgres.initialise(data)
    except OSError as error:
        raise ApplianceError(
            f"DATA_DIR={str(data)!r}: {error.strerror}: {error.filename}; it takes a folder that user"
            f" {os.geteuid()} may write"
        ) from None
    for lock in locks:
        os.close(lock)
    return embedded


def _environment(embedded: EmbeddedServers) -> str:
    values = {
        "DB_HOST": HOST,
        "DB_PORT": embedded.postgres_port,
        "DB_USER": "postgres",
        "DB_PASSWORD": embedded.password,
        "DB_NAME": "postgres",
        "DB_SSLMODE": "disable",
        "REDIS_URL": embedded.redis_url,
        "USE_REDIS_NOTIFIER": "true",
        "SNAPSHOT_QUERY": _snapshot_query(),
    }
    lines = [f'{name}="{value}"\n' for name, value in values.items()]
    return "".join(["# The embedded demo's servers. Written at every start.\n", *lines])


def _snapshot_query() -> str:
    query = Path(__file__).with_name("demo").joinpath("snapshot.sql").read_text(encoding="utf-8")
    return " ".join(re.sub(r"--.*", "", query).split())


def _write_programs(*names: str) -> None:
    """Write the sections that supervisord.conf includes."""
    texts = [(_PROGRAM_FILES / f"{name}.conf").read_text(encoding="utf-8") for name in names]
    directory = str(Path.cwd()).replace("%", "%%")
    write_private(_PROGRAMS, "; Written at every start.\n\n" + "\n".join(texts).replace("%(here)s", directory))


def _announce(embedded: EmbeddedServers) -> None:
    logger.warning("EMBEDDED DEMO: neither DB_HOST nor REDIS_URL is set, so this starts servers of its own")
    logger.warning(
        "EMBEDDED DEMO: PostgreSQL on %s:%d, Valkey on %s:%d, a made-up match, data in %s. Not for production",
        HOST,
        embedded.postgres_port,
        HOST,
        embedded.valkey_port,
        embedded.data.absolute(),
    )
