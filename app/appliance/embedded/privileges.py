"""Whom an embedded server runs as: never root, which PostgreSQL refuses and Valkey doesn't need."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from app.appliance import ApplianceError

_READS_ITS_OWN = ["--inh-caps=-all"]
# The one capability reads any file and enters any folder. The secure bit is for access(2), by which PostgreSQL looks
# at its own program: without it, access takes another user than root for one without capabilities.
_READS_ALL = [
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
    "--securebits=+no_setuid_fixup",
]


def chown(folder: Path) -> None:
    """Gives a new folder to the account its server will run as."""
    if os.geteuid() == 0:
        owner = folder.parent.stat().st_uid
        account = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        os.chown(folder, account.pw_uid, account.pw_gid)


def drop_privileges(command: list[str], folder: Path) -> list[str]:
    """`command` as it is run: as the owner of `folder`, and stopped by the kernel when its parent is killed.

    As root that takes a change of account. Where the way to the command or to the folder leads through one that the
    account may not enter (a checkout below /root), a capability lets it through; nobody's folders are opened for it.

    Raises:
        ApplianceError: it can't be done here.
    """
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0:
        return [setpriv, "--pdeathsig=INT", *command] if setpriv else command
    if setpriv is None:
        raise ApplianceError("as root, the embedded servers need setpriv: install util-linux, or don't be root")
    owner = folder.stat()
    change = [setpriv, f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "--no-new-privs"]
    for capabilities in (_READS_ITS_OWN, _READS_ALL):
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
