"""The team's own SQL: files in QUERIES_DIR that say what clients are shown.

`snapshot.sql` returns a match's state, `<channel>.sql` what an update of that channel carries. A file is one statement
that returns one JSON value. Statements that return nothing (SET LOCAL) may stand before it: all are one transaction.
Comments at its beginning may be directives, `-- name: value`.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.core.settings_sources import SettingsError, shown

SNAPSHOT = "snapshot"
_PARAMETERS = {SNAPSHOT: frozenset({"match_id"})}
_CHANNEL_PARAMETERS = frozenset({"match_id", "operation", "new_id", "old_id", "payload"})
_CHANNEL_DIRECTIVES = ("message", "spread", "deletes")

_PARAMETER = re.compile(r"%\(([^)]*)\)s")
_DIRECTIVE = re.compile(r"--\s*([a-z_]+)\s*:\s*(.*?)\s*")
_MESSAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
_OUR_MESSAGES = frozenset({"initial-load", "resync", "stale", "ping", "pong"})
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True)
class QueryFile:
    """One file.

    Args:
        name: the file's name without `.sql`.
        sql: its text, for psycopg's client-side binding.
        parameters: the names that `sql` has in `%(name)s`.
        message: the `type` of the update's message instead of the channel's own.
        spread: whether the keys of the result stand beside `type`, instead of in `data`.
        deletes: whether it runs after a DELETE too.
    """

    name: str
    sql: bytes
    parameters: frozenset[str]
    message: str | None = None
    spread: bool = False
    deletes: bool = False

    @property
    def label(self) -> str:
        """What it returns, for the log."""
        return SNAPSHOT if self.name == SNAPSHOT else f"query {self.name}"


@dataclass(frozen=True)
class Queries:
    """All files."""

    snapshot: QueryFile | None
    channels: Mapping[str, QueryFile]


NO_QUERIES = Queries(None, {})


def read_queries(folder: Path, channels: Collection[str], is_required: bool) -> Queries:
    """Read the files of a folder.

    Args:
        folder: QUERIES_DIR.
        channels: those that are received.
        is_required: whether it is an error if there is no such folder.

    Raises:
        SettingsError: a file can't be read, or can't be right. The message has one line for each.
    """
    if not folder.exists() and not is_required:
        return NO_QUERIES
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".sql")
    except OSError as error:
        raise SettingsError(
            f"QUERIES_DIR={shown(str(folder))}: {error.strerror}; it takes a folder of SQL files"
        ) from None
    files, wrong = {}, []
    for path in paths:
        try:
            files[path.stem] = _load(path, channels)
        except SettingsError as error:
            wrong.append(f"{path}: {error}")
    if wrong:
        raise SettingsError("\n".join(wrong))
    return Queries(files.pop(SNAPSHOT, None), files)


def _load(path: Path, channels: Collection[str]) -> QueryFile:
    name = path.stem
    if name not in channels and name != SNAPSHOT:
        raise SettingsError(
            f"{name} is not one of NOTIFY_CHANNELS; a file is called {SNAPSHOT}.sql, or as a channel and .sql"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"it can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError("it is not UTF-8") from None
    return parse_query(name, text)


def parse_query(name: str, text: str) -> QueryFile:
    """Return the query of a text; `name` is its file's, without `.sql`.

    Raises:
        SettingsError: a parameter or a directive is wrong.
    """
    allowed = _PARAMETERS.get(name, _CHANNEL_PARAMETERS)
    parameters = frozenset(_PARAMETER.findall(text.replace("%%", "")))
    if unknown := sorted(parameters - allowed):
        raise SettingsError(f"it has no parameter %({unknown[0]})s, only {_listed(sorted(allowed))}")
    if "%" in _PARAMETER.sub("", text.replace("%%", "")):
        raise SettingsError("a percent sign is written %%, a parameter %(match_id)s")
    if "match_id" not in parameters and name == SNAPSHOT:
        raise SettingsError("it needs %(match_id)s")
    directives = _directives(text, () if name in _PARAMETERS else _CHANNEL_DIRECTIVES)
    return QueryFile(
        name,
        text.encode(),
        parameters,
        message=_message(directives.get("message")),
        spread=_boolean("spread", directives),
        deletes=_boolean("deletes", directives),
    )


def _directives(text: str, allowed: Collection[str]) -> dict[str, str]:
    """Return the directives in the comments at the beginning; other comments are comments."""
    directives: dict[str, str] = {}
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("--"):
            break
        if not (match := _DIRECTIVE.fullmatch(line)):
            continue
        key, value = match.groups()
        if key in allowed:
            directives[key] = value
        elif near := difflib.get_close_matches(key, _CHANNEL_DIRECTIVES, 1, 0.7):
            raise SettingsError(
                f"the directive {key!r} does not exist; {near[0]!r} does"
                if near[0] in allowed
                else f"the directive {key!r} is for channels only"
            )
    return directives


def _message(text: str | None) -> str | None:
    if text is not None and (not _MESSAGE.fullmatch(text) or text in _OUR_MESSAGES):
        raise SettingsError(f"message: {text!r} is not the type of an update, such as players-update")
    return text


def _boolean(name: str, directives: Mapping[str, str]) -> bool:
    text = directives.get(name, "false")
    if text not in _BOOLEANS:
        raise SettingsError(f"{name}: {text!r}; it takes true or false")
    return _BOOLEANS[text]


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"%({name})s" for name in names)
