"""The team's own SQL: files in QUERIES_DIR that say what clients are shown.

`snapshot.sql` returns a match's state, `<channel>.sql` what an update of that channel carries, and `authorize.sql`
whether a client may have a match. A file is one statement that returns one JSON value. Statements that return nothing
(SET LOCAL) may stand before it: all are one transaction. Comments at its beginning may be directives, `-- name: value`.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path

from app.core.claims import NO_NAMES, ClaimNames
from app.core.settings_sources import SettingsError, shown

SNAPSHOT, AUTHORIZE = "snapshot", "authorize"
_PARAMETERS = {name: frozenset({"match_id", "claims"}) for name in (SNAPSHOT, AUTHORIZE)}
_CHANNEL_PARAMETERS = frozenset({"match_id", "operation", "new_id", "old_id", "payload", "claims"})
_CHANNEL_DIRECTIVES = ("claims", "message", "spread", "deletes")
_DIRECTIVES = ("claims",)  # of the other files

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
        claims: those of a client's token that `%(claims)s` has.
        message: the `type` of the update's message instead of the channel's own.
        spread: whether the keys of the result stand beside `type`, instead of in `data`.
        deletes: whether it runs after a DELETE too.
    """

    name: str
    sql: bytes
    parameters: frozenset[str]
    claims: ClaimNames = NO_NAMES
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

    snapshot: QueryFile | None = None
    channels: Mapping[str, QueryFile] = field(default_factory=dict)
    authorize: QueryFile | None = None

    @property
    def files(self) -> list[QueryFile]:
        """All that there are."""
        return [*filter(None, (self.authorize, self.snapshot)), *self.channels.values()]

    @property
    def claims(self) -> ClaimNames:
        """The claims that what a client is shown depends on."""
        return reduce(or_, [query.claims for query in self.files if query is not self.authorize], NO_NAMES)


NO_QUERIES = Queries()


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
    return Queries(files.pop(SNAPSHOT, None), authorize=files.pop(AUTHORIZE, None), channels=files)


def _load(path: Path, channels: Collection[str]) -> QueryFile:
    name = path.stem
    if name not in channels and name not in _PARAMETERS:
        raise SettingsError(
            f"{name} is not one of NOTIFY_CHANNELS; a file is called {SNAPSHOT}.sql, {AUTHORIZE}.sql, or as a channel"
            " and .sql"
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
    if "match_id" not in parameters and name in _PARAMETERS:
        raise SettingsError("it needs %(match_id)s")
    directives = _directives(text, _DIRECTIVES if name in _PARAMETERS else _CHANNEL_DIRECTIVES)
    return QueryFile(
        name,
        text.encode(),
        parameters,
        claims=_claims(directives.get("claims"), "claims" in parameters),
        message=_message(directives.get("message")),
        spread=_boolean("spread", directives),
        deletes=_boolean("deletes", directives),
    )


def parse_verdict(result: bytes) -> bool | None:
    """Return what the result of `authorize.sql`, as JSON, says; None if it is neither true nor false.

    PostgreSQL writes a boolean as t or f. NULL and no row are false.
    """
    if result in {b"true", b'"t"', b'"true"'}:
        return True
    return False if result in {b"false", b'"f"', b'"false"', b"null"} else None


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


def _claims(text: str | None, has_parameter: bool) -> ClaimNames:
    if text is None:
        return ClaimNames(is_all=has_parameter)
    names = frozenset(name.strip() for name in text.split(","))
    if not has_parameter:
        raise SettingsError(f"claims: {text!r}, but it has no %(claims)s")
    if "" in names:
        raise SettingsError(f"claims: {text!r}; it takes the names of claims, separated by commas")
    return ClaimNames(names)


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
