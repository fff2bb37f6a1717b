"""The SQL that makes and removes the schema, in the files beside this one.

A script is for one transaction. It is ASCII, so that a database of any encoding takes it.
"""

from pathlib import Path

# Rises with each change of the SQL. An older program refuses to install over a newer version.
VERSION = 1

LOCK = 0x6E6F746966796D78  # "notifymx": the advisory lock of installs

_FOLDER = Path(__file__).parent


def install_script(source: str) -> str:
    """Return the statements that make the schema, or bring it to this version; `source` is the way of an event."""
    return _script("begin", source, "payload", "triggers", "watch").replace("@source@", source)


def uninstall_script() -> str:
    """Return the statements that remove the schema, and fail while anything uses it."""
    return _script("uninstall")


def _script(*names: str) -> str:
    text = "".join((_FOLDER / f"{name}.sql").read_text(encoding="ascii") for name in names)
    return text.replace("@version@", str(VERSION)).replace("@lock@", str(LOCK))
