"""Where settings are set: the environment over `.env` over `.run/embedded.env`, as text.

Each call reads them anew, from the working directory. `app.core.config` gives the texts their types; what needs only a
text or two reads them here, without the libraries that check the others.
"""

import os
from pathlib import Path

from dotenv import dotenv_values

ENV_FILE = Path(".env")
RUN_DIR = Path(".run")
EMBEDDED_ENV_FILE = RUN_DIR / "embedded.env"

# For each of these, NAME_FILE may name a file that holds the value.
_FROM_FILES = ("DB_PASSWORD", "REDIS_URL", "WS_JWT_SECRET", "WS_JWT_PUBLIC_KEY")

# Any of these makes the servers the operator's own; without them the appliance starts embedded ones.
OWN_SERVERS = ("DB_HOST", "REDIS_URL", "REDIS_URL_FILE")


class SettingsError(Exception):
    """Settings are wrong. The message has one line for each, with the variable, its value and what it takes."""


def servers_given() -> bool:
    """Return whether the operator set a server of their own, so that none is embedded."""
    return any(map(_own_texts().get, OWN_SERVERS))


def setting_texts() -> dict[str, str]:
    """Return the text of each variable that is set and not empty, with secrets read from their files.

    Raises:
        SettingsError: a file can't be read, or a secret is given twice.
    """
    texts = _own_texts() if servers_given() else _read(EMBEDDED_ENV_FILE) | _own_texts()
    for name in _FROM_FILES:
        if path := texts.get(f"{name}_FILE"):
            if name in texts:
                raise SettingsError(f"{name} and {name}_FILE are both given: give one of them")
            texts[name] = read_secret(name, path)
    return texts


def names_by_source() -> dict[str, set[str]]:
    """Return the names of the variables that each source sets, the source that takes precedence first."""
    sources = {"the environment": set(_environment()), ".env": set(_read(ENV_FILE))}
    return sources if servers_given() else sources | {"the embedded demo": set(_read(EMBEDDED_ENV_FILE))}


def _own_texts() -> dict[str, str]:
    return _read(ENV_FILE) | _environment()


def _environment() -> dict[str, str]:
    return {name.upper(): text for name, text in os.environ.items() if text}


def _read(path: Path) -> dict[str, str]:
    # No interpolation: a password may contain ${...}.
    try:
        return {name.upper(): text for name, text in dotenv_values(path, interpolate=False).items() if text}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read: {error}") from None


def read_secret(name: str, path: str | Path) -> str:
    """Return the secret of the variable `name` from the file that NAME_FILE gives.

    Raises:
        SettingsError: the file can't be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"{name}_FILE={str(path)!r}: {reason}; it takes the path of a readable file") from None
