"""The listener's PostgreSQL session, and the SQL of its control messages."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from app.core.canary import Canary
from app.core.cluster import Cluster
from app.core.listen_session import ListenSession
from app.core.postgres import canary_sql, listen_sql, literal
from app.core.postgres_connect import Backend, Inspection, OpenSession, inspect, open_session
from app.core.session_health import SessionHealth
from listener.sequencer.control_messages import Begin, ControlMessage, Marker
from listener.sequencer.notify_sequencer import NotifySequencer
from listener.sequencer.process_state import ProcessState
from listener.slot_state import SlotState
from notifymux.event import MUX_CHANNEL


class PostgresSession(ListenSession):
    """A session that LISTENs and sends control messages (SOURCE=notify).

    Args:
        opened: the session; this object closes it.
        channels: to LISTEN on.
        conninfo: for the second connection of `inspect`.
    """

    def __init__(self, opened: OpenSession, channels: tuple[str, ...], conninfo: Callable[[], str]) -> None:
        super().__init__(opened.connection.pgconn)
        self._connection, self._channels, self._conninfo = opened.connection, channels, conninfo
        self.backend: Backend = opened.backend
        self.cluster: Cluster | None = opened.cluster
        self.slot_state: SlotState | None = None

    def notify(self, message: ControlMessage) -> None:
        """Send a control message; the session has to be idle.

        Raises:
            psycopg.Error: the session is lost.
        """
        self.send(control_sql(message, self._channels, time.time()))

    @property
    def sockets(self) -> "list[PostgresSession]":
        """What to wait on until it is readable."""
        return [self]

    def new_sequencer(self, session_id: str, process: ProcessState) -> NotifySequencer:
        """Return the sequencer of this session."""
        return NotifySequencer(session_id, process, self.cluster)

    def new_health(self, logger: logging.Logger, start_call: Callable[..., Any]) -> SessionHealth:
        """Return what judges this session."""
        return SessionHealth(self.inspect, logger, start_call)

    def confirm(self, commit: int) -> None:
        """Nothing: PostgreSQL remembers no notification."""

    def inspect(self) -> Inspection:
        """Look at this session over a second connection. It blocks: it is for a thread.

        Raises:
            psycopg.Error, SettingsError: nothing is known.
        """
        return inspect(self._conninfo(), self.backend)

    def close(self) -> None:
        """End the session."""
        self._connection.close()


class PostgresConnector:
    """Opens sessions, each of which replaces the one before.

    Args:
        conninfo: returns the connection string; it reads the password anew.
        channels: to LISTEN on.
    """

    waits_for = ""  # for no other listener: all of them LISTEN

    def __init__(self, conninfo: Callable[[], str], channels: tuple[str, ...]) -> None:
        self._conninfo, self._channels = conninfo, channels
        self._last: Backend | None = None

    def connect(self) -> PostgresSession:
        """Open a session. It blocks: it is for a thread.

        Raises:
            psycopg.Error: PostgreSQL can't be reached, or refuses.
            OperatorError, SettingsError: only an operator can fix it.
        """
        session = PostgresSession(open_session(self._conninfo(), self._last), self._channels, self._conninfo)
        self._last = session.backend
        return session


def control_sql(message: ControlMessage, channels: Iterable[str], at: float) -> str:
    """The one simple query that sends a control message; a marker's LISTENs on our own channel and `channels` first.

    `at` is the current time, Unix seconds, which a canary carries.
    """
    match message:
        case Marker(token, fingerprint):
            payload = _json(marker=token, fingerprint=fingerprint)
            return listen_sql([MUX_CHANNEL, *channels], f"SELECT pg_notify({literal(MUX_CHANNEL)}, {literal(payload)})")
        case Begin():
            return listen_sql([MUX_CHANNEL], f"SELECT pg_notify({literal(MUX_CHANNEL)}, {begin_json(message)})")
        case Canary(canary=token):
            return listen_sql([MUX_CHANNEL], canary_sql(MUX_CHANNEL, token or "", at))
    raise TypeError(f"{type(message).__name__} is for sessions that read the WAL")


def begin_json(begin: Begin) -> str:
    """The SQL expression of a begin's payload: PostgreSQL's clock decides the epoch."""
    rest = _json(by=begin.token, fingerprint=begin.fingerprint, previous=begin.previous, why=begin.why)
    clock_ms = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    epoch = f"greatest({clock_ms}, {begin.floor:d}) + {begin.jitter:d}"
    return f"(jsonb_build_object('begin', {epoch}, 'floor', {begin.floor:d}) || {literal(rest)}::jsonb)::text"


def _json(**fields: str) -> str:
    return msgspec.json.encode(fields).decode()
