"""The team's own SQL: files in QUERIES_DIR that say what clients are shown.

`snapshot.sql` returns a match's state, `<channel>.sql` what an update of that channel carries, and `authorize.sql`
whether a client may have a match. `snapshot.<key>.sql` and `authorize.<key>.sql` are those of another key of
ROUTING_KEY. A file is one statement that returns one JSON value. Statements that return nothing
(SET LOCAL) may stand before it: all are one transaction. Comments at its beginning may be directives, `-- name: value`.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path

from app.core.claims import NO_NAMES, ClaimNames
from app.core.settings_sources import SettingsError, shown

SNAPSHOT, AUTHORIZE, CHANNEL = "snapshot", "authorize", "channel"
MATCH_ID = "match_id"
_CHANNEL_PARAMETERS = frozenset({MATCH_ID, "operation", "new_id", "old_id", "payload", "claims"})
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
        kind: what it says: `snapshot`, `authorize` or `channel`.
        key: the parameter that says for which topic, `match_id` or another key; in a channel's file the former.
        claims: those of a client's token that `%(claims)s` has.
        message: the `type` of the update's message instead of the channel's own.
        spread: whether the keys of the result stand beside `type`, instead of in `data`.
        deletes: whether it runs after a DELETE too.
    """

    name: str
    sql: bytes
    parameters: frozenset[str]
    kind: str = CHANNEL
    key: str = MATCH_ID
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
    key_snapshots: Mapping[str, QueryFile] = field(default_factory=dict)  # by other key
    key_rights: Mapping[str, QueryFile] = field(default_factory=dict)

    @property
    def files(self) -> list[QueryFile]:
        """All that there are."""
        return [*self.rights.values(), *self.snapshots.values(), *self.channels.values()]

    @property
    def snapshots(self) -> Mapping[str, QueryFile]:
        """Those that return what clients start from, by key."""
        return ({MATCH_ID: self.snapshot} if self.snapshot else {}) | dict(self.key_snapshots)

    @property
    def rights(self) -> Mapping[str, QueryFile]:
        """Those that say what clients may have, by key."""
        return ({MATCH_ID: self.authorize} if self.authorize else {}) | dict(self.key_rights)

    @property
    def claims(self) -> ClaimNames:
        """The claims that what a client is shown depends on."""
        return claim_names(query for query in self.files if query.kind != AUTHORIZE)


NO_QUERIES = Queries()


def claim_names(queries: Iterable[QueryFile]) -> ClaimNames:
    """Return the claims that any of some queries depends on."""
    return reduce(or_, [query.claims for query in queries], NO_NAMES)


def read_queries(
    folder: Path, channels: Collection[str], is_required: bool, other_keys: Collection[str] = ()
) -> Queries:
    """Read the files of a folder.

    Args:
        folder: QUERIES_DIR.
        channels: those that are received.
        is_required: whether it is an error if there is no such folder.
        other_keys: of ROUTING_KEY, besides the match id's.

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
            files[path.stem] = _load(path, channels, other_keys)
        except SettingsError as error:
            wrong.append(f"{path}: {error}")
    if wrong:
        raise SettingsError("\n".join(wrong))
    return Queries(
        files.pop(SNAPSHOT, None),
        authorize=files.pop(AUTHORIZE, None),
        key_snapshots={key: files.pop(f"{SNAPSHOT}.{key}") for key in other_keys if f"{SNAPSHOT}.{key}" in files},
        key_rights={key: files.pop(f"{AUTHORIZE}.{key}") for key in other_keys if f"{AUTHORIZE}.{key}" in files},
        channels=files,
    )


def _load(path: Path, channels: Collection[str], other_keys: Collection[str]) -> QueryFile:
    name = path.stem
    if name not in channels and _purpose(name, other_keys)[0] == CHANNEL:
        of_keys = "".join(f", {SNAPSHOT}.{key}.sql, {AUTHORIZE}.{key}.sql" for key in other_keys)
        raise SettingsError(
            f"{name} is not one of NOTIFY_CHANNELS; a file is called {SNAPSHOT}.sql, {AUTHORIZE}.sql{of_keys}, or as a"
            " channel and .sql"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"it can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError("it is not UTF-8") from None
    return parse_query(name, text, other_keys)


def _purpose(name: str, other_keys: Collection[str]) -> tuple[str, str]:
    """Return what a file is for, as `QueryFile.kind` and `QueryFile.key` say it."""
    kind, _, key = name.partition(".")
    if kind in {SNAPSHOT, AUTHORIZE} and (name == kind or key in other_keys):
        return kind, key or MATCH_ID
    return CHANNEL, MATCH_ID


def parse_query(name: str, text: str, other_keys: Collection[str] = ()) -> QueryFile:
    """Return the query of a text.

    Args:
        name: the file's, without `.sql`.
        text: its SQL.
        other_keys: of ROUTING_KEY, besides the match id's.

    Raises:
        SettingsError: a parameter or a directive is wrong.
    """
    kind, id_name = _purpose(name, other_keys)
    allowed = _CHANNEL_PARAMETERS.union(other_keys) if kind == CHANNEL else {id_name, "claims"}
    parameters = frozenset(_PARAMETER.findall(text.replace("%%", "")))
    if unknown := sorted(parameters - allowed):
        raise SettingsError(f"it has no parameter %({unknown[0]})s, only {_listed(sorted(allowed))}")
    if "%" in _PARAMETER.sub("", text.replace("%%", "")):
        raise SettingsError(f"a percent sign is written %%, a parameter %({id_name})s")
    if id_name not in parameters and kind != CHANNEL:
        raise SettingsError(f"it needs %({id_name})s")
    directives = _directives(text, _CHANNEL_DIRECTIVES if kind == CHANNEL else _DIRECTIVES)
    return QueryFile(
        name,
        text.encode(),
        parameters,
        kind,
        id_name,
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
