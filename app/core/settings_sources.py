"""Where settings are set: the environment over `.env` over `.run/embedded.env`, as text.

Each call reads them anew, from the working directory. `app.core.config` gives the texts their types; what needs only a
text or two reads them here, without the libraries that check the others.
"""

import io
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dotenv.parser import parse_stream

ENV_FILE = Path(".env")
RUN_DIR = Path(".run")
EMBEDDED_ENV_FILE = RUN_DIR / "embedded.env"

# For each of these, NAME_FILE may name a file that holds the value.
_FROM_FILES = ("DB_PASSWORD", "REDIS_URL", "WS_JWT_SECRET", "WS_JWT_PUBLIC_KEY")

_MAX_SECRET_CHARACTERS = 65_536

# Any of these makes the servers the operator's own; without them the appliance starts embedded ones.
OWN_SERVERS = ("DB_HOST", "REDIS_URL", "REDIS_URL_FILE")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# What else people write for NAME=value, and what to do about it. The first that matches a statement counts.
_MISTAKES = {
    re.compile(r"(set|setx|let|declare|\$env)\b"): "remove what stands before the name",
    re.compile(r"[\w.-]+\s*:"): "write = for the colon",
    re.compile(r"[^=]*=\s*['\"]"): "a quote is not closed, or text follows it; in 'single quotes', a quote is \\'",
    re.compile(r"[^=]*$"): "the = is missing",
}
_MAY_HOLD_A_SECRET = re.compile(r"://|@|-----|password", re.IGNORECASE)
_NO_NAME = "what stands before the = is no name"
_ENTRY = re.compile(r"^\s*(?:export\s+)?(\w+)\s*=", re.MULTILINE)


class SettingsError(Exception):
    """Settings are wrong. The message has one line for each, with the variable, its value and what it takes."""


def shown(text: str) -> str:
    """Return a value for an error, unless it may have a password in it: a URL, a key, an address with a user."""
    return "(hidden)" if _MAY_HOLD_A_SECRET.search(text) else repr(text)


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
    sources = {"the environment": _environment(), ".env": _read(ENV_FILE)}
    if not servers_given():
        sources["the embedded demo"] = _read(EMBEDDED_ENV_FILE)
    return {source: set(_not_empty(texts)) for source, texts in sources.items()}


def given_empty() -> set[str]:
    """Return the names of the variables that are given and have no text anywhere."""
    return (set(_read(ENV_FILE)) | set(_environment())) - set(_own_texts())


def check_quotes(settings: Collection[str]) -> None:
    """Check that no value in `.env` takes in the lines of other settings, since its quote is not closed.

    Raises:
        SettingsError: one does.
    """
    for entry in _entries(ENV_FILE):
        taken = [name for name in _ENTRY.findall(entry.text.partition("\n")[2]) if name.upper() in settings]
        if taken:
            raise SettingsError(f"{ENV_FILE}, line {entry.line}: the quote that opens here takes in {taken[0]}")


def _own_texts() -> dict[str, str]:
    return _not_empty(_read(ENV_FILE)) | _not_empty(_environment())


def _not_empty(texts: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if text}


def _environment() -> dict[str, str]:
    # Of names that differ in case only, the one in capitals counts.
    return _last_of_each((name, os.environ[name]) for name in sorted(os.environ, key=str.isupper))


def _read(path: Path) -> dict[str, str]:
    return _last_of_each((entry.name, entry.text) for entry in _entries(path))


def _last_of_each(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the last text of each name, in capitals; an empty one counts as none where there is another."""
    return {name.upper(): text for name, text in sorted(given, key=lambda each: bool(each[1]))}


class _Entry(NamedTuple):
    name: str
    text: str
    line: int  # its first


def _entries(path: Path) -> Iterator[_Entry]:
    """Return what a file in the format of `.env` sets, or nothing where there is no such file.

    Nothing is interpolated: a password may contain ${...}.

    Raises:
        SettingsError: it can't be read, or a line is no entry. What can't be read may name a server, so it is not
            passed over: the embedded demo would start instead.
    """
    for binding in parse_stream(io.StringIO(_text(path), newline=None)):
        statement = binding.original.string.lstrip()
        line = binding.original.line + binding.original.string.removesuffix(statement).count("\n")
        if binding.key is None and not binding.error:
            continue  # an empty line, or a comment
        if binding.key is None or binding.value is None or not _NAME.fullmatch(binding.key):
            # The line itself is not shown: it may be a part of a secret.
            reasons = (reason for mistake, reason in _MISTAKES.items() if mistake.match(statement.partition("\n")[0]))
            raise SettingsError(f"{path}, line {line}: it takes NAME=value; {next(reasons, _NO_NAME)}")
        yield _Entry(binding.key, binding.value, line)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        if not path.is_symlink():
            return ""
        reason = f"it is a link to '{path.readlink()}', which does not exist; put a file there, or remove the link"
    except IsADirectoryError:
        reason = "it is a folder, as Docker makes one where the file that -v names is missing; put a file in its place"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        reason = f"line {line} is not UTF-8"
    except OSError as error:
        reason = str(error.strerror)
    raise SettingsError(f"{path} can't be read: {reason}")


def read_secret(name: str, path: str | Path) -> str:
    """Return the secret of the variable `name` from the file that NAME_FILE gives.

    Raises:
        SettingsError: the file can't be read, or there is no secret in it.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            text = file.read(_MAX_SECRET_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"{name}_FILE={shown(str(path))}: {reason}; it takes the path of a readable file") from None
    if not text.strip() or len(text) > _MAX_SECRET_CHARACTERS:
        reason = "too long for a secret" if text.strip() else "empty"
        raise SettingsError(f"{name}_FILE={shown(str(path))}: the file is {reason}; it takes one that holds {name}")
    return text.strip("\r\n")
