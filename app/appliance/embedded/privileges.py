"""The account of the embedded servers: never root, which PostgreSQL refuses and Valkey doesn't need."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from app.appliance import ApplianceError

_NO_CAPABILITIES = ["--inh-caps=-all"]
# This capability allows to read any file and to enter any folder. PostgreSQL checks its own program by access(2), which
# ignores the capabilities of all users but root unless the secure bit is set.
_READ_ALL_FILES = [
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
    "--securebits=+no_setuid_fixup",
]


def chown(folder: Path) -> None:
    """Give a new folder to the account that its server will run as."""
    if os.geteuid() == 0:
        owner = folder.parent.stat().st_uid
        account = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        os.chown(folder, account.pw_uid, account.pw_gid)


def drop_privileges(command: list[str], folder: Path) -> list[str]:
    """Return `command` with a prefix: it runs as the owner of `folder`, and the kernel stops it when its parent dies.

    As root this changes the account. Where the account may not enter a folder on the path to the command or to its data
    (a checkout below /root), the command gets a capability for that; no permissions of folders are changed.

    Raises:
        ApplianceError: it is not possible here.
    """
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0:
        return [setpriv, "--pdeathsig=INT", *command] if setpriv else command
    if setpriv is None:
        raise ApplianceError("as root, the embedded servers need setpriv: install util-linux, or don't be root")
    owner = folder.stat()
    change = [setpriv, f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "--no-new-privs"]
    for capabilities in (_NO_CAPABILITIES, _READ_ALL_FILES):
        prefix = [*change, *capabilities, "--pdeathsig=INT"]
        if _reaches(prefix, command[0], folder):
            return [*prefix, *command]
    raise ApplianceError(
        f"root runs the embedded servers as account {owner.st_uid}, and that one may not run {command[0]}:"
        " make it executable for all, or don't be root"
    )


def _reaches(prefix: list[str], program: str, folder: Path) -> bool:
    check = ["sh", "-c", 'test -x "$0" && test -w "$1"', program, str(folder)]
    return subprocess.run([*prefix, *check], stderr=subprocess.DEVNULL, check=False).returncode == 0  # noqa: S603 - ours
