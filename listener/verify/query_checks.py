"""The check of the team's queries: each is run as a worker runs it, for one match."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import psycopg

from app.core.claims import NO_CLAIMS
from app.core.config import Settings, load_queries
from app.core.operator_errors import OperatorError, with_remedy
from app.core.postgres_connect import QueryTimeout
from app.core.query_connection import QueryConnection
from app.core.query_files import AUTHORIZE, MATCH_ID, SNAPSHOT, QueryFile, parse_verdict
from app.core.settings_sources import SettingsError
from listener.verify.result import Check, failed, passed, warned
from notifymux.event import NULL, payload_json
from notifymux.reconnect import one_line

_MADE_UP_ID = "0"  # which columns of text and of numbers take
_SLOW = 0.5  # of its timeout
_CANCELED = "57014"
# The parameter's type can't be found out, or no function or operator takes it as it is.
_UNTYPED = {"42P18", "42804", "42725", "42883", "42P38"}
_DATA_ERROR = "22"  # the class of errors such as a text that is no number


class Sample(NamedTuple):
    """For whom the queries are tried: a match, or one that is made up, and the claims of a client's token."""

    match: str | None = None
    claims: str = NO_CLAIMS


def run_checks(settings: Settings, url: str, sample: Sample) -> Iterator[Check]:
    """Run every query, if there is one."""
    try:
        queries = load_queries(settings)
    except SettingsError as error:
        yield failed("queries", one_line(error), "docs/queries.md says what a file may have")
        return
    for query in queries.files:
        yield _Trial.of(settings, query, sample).run(url)


class _Trial(NamedTuple):
    """The run of one query."""

    query: QueryFile
    check: str
    subject: str  # what is to be corrected
    limit: str  # the setting that is `timeout`
    timeout: float
    sample: Sample
    session: str
    other_keys: tuple[str, ...]  # for which there is no sample

    @classmethod
    def of(cls, settings: Settings, query: QueryFile, sample: Sample) -> "_Trial":
        session = f"notifymux-verify/{settings.pod_name}"
        file = f"{query.name}.sql"
        common = sample, session, settings.other_keys
        if query.kind == SNAPSHOT:
            is_setting = settings.snapshot_query is not None and query.key == MATCH_ID
            check = "snapshot query" if query.key == MATCH_ID else f"query {query.name}"
            subject = "SNAPSHOT_QUERY" if is_setting else file
            return cls(query, check, subject, "SNAPSHOT_TIMEOUT", settings.snapshot_timeout, *common)
        return cls(query, f"query {query.name}", file, "QUERY_TIMEOUT", settings.query_timeout, *common)

    @property
    def _is_made_up(self) -> bool:
        return self.sample.match is None or self.query.key != MATCH_ID

    @property
    def _parameters(self) -> dict[str, str | None]:
        match = _MADE_UP_ID if self.sample.match is None else self.sample.match
        return {
            MATCH_ID: match,
            **dict.fromkeys(self.other_keys, _MADE_UP_ID),
            "claims": self.query.claims.of(self.sample.claims),
            "operation": "UPDATE",
            "new_id": _MADE_UP_ID,
            "old_id": _MADE_UP_ID,
            "payload": "{}",
        }

    @property
    def _topic(self) -> str:
        return f"{self.query.key.removesuffix('_id')} {self._parameters[self.query.key]!r}"

    @property
    def _own(self) -> str:
        return ": --match ID takes one of yours" if self.query.key == MATCH_ID else ""

    def run(self, url: str) -> Check:
        try:
            with closing(QueryConnection.open(url, self.session, self.timeout)) as connection:
                started = time.monotonic()
                rows = connection.rows(self.query.sql, self._parameters, self.timeout)
                return self._checked(rows, time.monotonic() - started)
        except psycopg.Error as error:
            return self._failed(error)

    def _checked(self, rows: list[list[bytes | None]], seconds: float) -> Check:
        value = rows[0][0] if rows and rows[0] else None
        took = f"{1000 * seconds:.0f} ms for {self._topic}"
        if self.query.claims:
            took += " and the claims of --claims" if self.sample.claims != NO_CLAIMS else " and no claims"
        if self.query.kind == AUTHORIZE:
            return self._verdict(value, took)
        if value is None:
            return self._without_value(f"{'NULL' if rows else 'no row'} in {took}")
        columns = len(rows[0])
        text = f"{len(value)} bytes in {took}"
        if columns > 1 or len(rows) > 1:
            return warned(
                self.check,
                f"{text}; it returns {len(rows)} rows of {columns} columns, and clients get the first value only",
                f"have {self.subject} return one value: SELECT json_build_object(…), json_agg(…) or row_to_json(…)",
            )
        return self._of_value(value, text, is_slow=seconds > _SLOW * self.timeout)

    def _of_value(self, value: bytes, text: str, *, is_slow: bool) -> Check:
        if payload_json(value).startswith(b'"') and not value.lstrip().startswith(b'"'):
            return warned(
                self.check,
                f"{text}; it is not JSON, and clients get it as a string",
                f"have {self.subject} return JSON: to_json(…), row_to_json(…)",
            )
        if self.query.spread and not value.lstrip().startswith(b"{"):
            return failed(
                self.check, f"{text}; it is not an object", f"remove spread from {self.subject}, or return an object"
            )
        if is_slow:
            return warned(self.check, f"{text}, of the {self.timeout:g} s of {self.limit}", self._faster)
        return passed(self.check, text)

    def _verdict(self, value: bytes | None, took: str) -> Check:
        verdict = parse_verdict(NULL if value is None else payload_json(value))
        if verdict is None:
            remedy = f"have {self.subject} return true or false: SELECT EXISTS (…)"
            return failed(self.check, f"neither true nor false in {took}: it lets nobody in", remedy)
        text = f"{'true' if verdict else 'false'} in {took}"
        if verdict or self.sample == Sample():
            return passed(self.check, text)
        return passed(self.check, f"{text}: such a client is refused")

    def _without_value(self, text: str) -> Check:
        shown = f"{text}: clients of such a match " + (
            "start with null" if self.query.kind == SNAPSHOT else "get null as data"
        )
        if self._is_made_up:
            return passed(self.check, f"{shown}. It is made up{self._own}")
        if "new_id" in self.query.parameters or "old_id" in self.query.parameters:
            return passed(self.check, f"{shown}. The row's id {_MADE_UP_ID} is made up")
        return warned(self.check, shown, f"correct {self.subject}, unless there is no such match")

    def _failed(self, error: psycopg.Error) -> Check:
        known, text = with_remedy(error), one_line(error)
        if isinstance(error, QueryTimeout) or error.sqlstate == _CANCELED:
            return failed(self.check, f"it takes longer than the {self.timeout:g} s of {self.limit}", self._faster)
        if isinstance(known, OperatorError):
            return failed(self.check, known.what, known.remedy)
        if error.sqlstate in _UNTYPED:
            return failed(
                self.check, text, f"give the parameter a type in {self.subject}: %({self.query.key})s::text, or ::int"
            )
        if (error.sqlstate or "").startswith(_DATA_ERROR):
            return self._unfit(text)
        return failed(self.check, text, f"correct {self.subject}")

    def _unfit(self, text: str) -> Check:
        if self._is_made_up:
            made_up = f"not tried: {self._topic}, which is made up, does not fit: {text}"
            return warned(self.check, made_up, "--match ID")
        remedy = f"give --match an id of the type that {self.subject} compares it with, or correct it"
        return failed(self.check, text, remedy)

    @property
    def _faster(self) -> str:
        return f"make it faster, with an index for one; or raise {self.limit}"
