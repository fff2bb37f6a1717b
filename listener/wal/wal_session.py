"""The session of SOURCE=wal: a connection that reads the slot, and one for queries."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from app.core.canary import Canary
from app.core.cluster import Cluster
from app.core.listen_session import is_lost
from app.core.operator_errors import OperatorError
from app.core.postgres import canary_json, literal
from app.core.postgres_connect import LockWait, OpenSession
from app.core.text_encoding import client_codec, encode
from listener.environment import HasFileno
from listener.postgres_session import begin_json
from listener.sequencer.control_messages import Begin, ControlMessage, InspectSlot, TakeSnapshot
from listener.sequencer.process_state import ProcessState
from listener.sequencer.snapshot import Snapshot
from listener.sequencer.wal_message import WalMessage
from listener.sequencer.wal_sequencer import WalSequencer
from listener.slot_state import SlotState, look_sql
from listener.wal.pgoutput import PREFIX, StreamingNotPossible
from listener.wal.replication_connection import ReplicationConnection
from listener.wal.slot import WAITING_NAME, SlotSettings
from notifymux.event import MUX_CHANNEL

_SNAPSHOT = b"notifymux_snapshot"
PREPARE = f"PREPARE {_SNAPSHOT.decode()} AS SELECT pg_current_snapshot()"  # in a session for queries, once
_UNREACHABLE_SECONDS = 5.0  # without an answer to a query, none of which waits for anything
_DOUBTS = 2  # looks in a row that find somebody else at the slot, until the session is given up


@dataclass
class ReaderState:
    """What the sessions of one process share.

    Args:
        redis_answers: whether Redis takes this process's heartbeats.
        streams: whether the next session receives large transactions while they are open.
    """

    redis_answers: Callable[[], bool]
    streams: bool = True


class WalSession:
    """Reads the slot, and sends the queries of the sequencer, one at a time.

    Args:
        opened: the session for queries; this object closes it.
        replication: reads the slot; the same.
        cluster: which server it is.
        settings: of the slot.
        state: of the process.
    """

    def __init__(
        self,
        opened: OpenSession,
        replication: ReplicationConnection,
        cluster: Cluster,
        settings: SlotSettings,
        state: ReaderState,
    ) -> None:
        self._connection, self._pgconn = opened.connection, opened.connection.pgconn
        self._pgconn.nonblocking = 1
        self._replication, self._settings = replication, settings
        self._state = state
        self.cluster: Cluster | None = cluster
        self._cluster = cluster
        self.is_idle = True
        self.slot_state: SlotState | None = None
        self._sent: ControlMessage | None = None
        self._row: list[str] = []
        self._outcome: psycopg.Error | Snapshot | None = None
        self._doubts = 0  # looks in a row that find somebody else at the slot

    def new_sequencer(self, session_id: str, process: ProcessState) -> WalSequencer:
        """Return the sequencer of this session."""
        return WalSequencer(session_id, process, self._cluster, self._settings.trail_seconds)

    def new_health(self, _logger: logging.Logger, _start_call: Callable[..., Any]) -> "WalHealth":
        """Return what judges this session."""
        return WalHealth(self)

    @property
    def sockets(self) -> Sequence[HasFileno]:
        """The connections, to wait on until one is readable."""
        return [self._replication, self._connection]

    def notify(self, message: ControlMessage) -> None:
        """Send the query of a message; the session has to be idle.

        Raises:
            psycopg.Error: the session is lost.
        """
        self._sent, self._row, self.is_idle = message, [], False
        if isinstance(message, TakeSnapshot):
            self._pgconn.send_query_prepared(_SNAPSHOT, None)  # there are many
        else:
            self._pgconn.send_query(encode(self._pgconn, self._sql(message)))
        self._pgconn.flush()

    def _sql(self, message: ControlMessage) -> str:
        match message:
            case Begin():
                return emit_sql(begin_json(message))
            case Canary(canary=token):
                return emit_sql(canary_json(token or "", time.time()))
            case InspectSlot():
                return look_sql(self._settings.name, WAITING_NAME)
        raise TypeError(f"{type(message).__name__} is for sessions that LISTEN")

    def receive(self) -> list[WalMessage]:
        """Return messages that have arrived, without waiting.

        Raises:
            psycopg.Error: the connection is lost.
        """
        try:
            return self._replication.receive()
        except StreamingNotPossible as why:
            self._state.streams = False
            raise psycopg.OperationalError(f"{why}: the next session receives them when they commit") from None

    def confirm(self, commit: int) -> None:
        """Let the slot forget what was committed before an LSN; 0 for nothing.

        Raises:
            psycopg.Error: the session is lost.
        """
        self._replication.send_status(commit)

    def take_outcome(self) -> psycopg.Error | Snapshot | None:
        """What the last query failed with, or the snapshot that it returned, once.

        It is read here and not in `receive`: while messages are held back, only a snapshot gets them on.

        Raises:
            psycopg.Error: the session is lost.
        """
        self._read_answer()
        outcome, self._outcome = self._outcome, None
        return outcome

    def _read_answer(self) -> None:
        self._pgconn.consume_input()
        while not self.is_idle and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                self.is_idle = True
                self._answered()
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                error = error_from_result(result, client_codec(self._pgconn))
                if is_lost(self._pgconn, error):
                    raise error
                self._outcome = error
            else:
                values = (result.get_value(0, column) for column in range(result.nfields if result.ntuples else 0))
                self._row = [(value or b"").decode() for value in values]
        self._pgconn.flush()

    def _answered(self) -> None:
        if self._outcome is not None:
            return
        match self._sent:
            case TakeSnapshot():
                self._outcome = Snapshot.parse(self._row[0])
            case InspectSlot():
                self.slot_state = SlotState.parse(self._row, time.time(), self.slot_state) if self._row else None
                reader = self.slot_state.active_pid if self.slot_state else 0
                self._doubts = 0 if reader == self._replication.backend_pid else self._doubts + 1

    def check_limit(self) -> None:
        """Leave a slot that keeps too much WAL back, as when Redis is away for long: the server comes first.

        Raises:
            OperatorError: it does; `Slot.prepare` makes it anew for the next session.
        """
        behind = self.slot_state.behind_bytes if self.slot_state else 0
        if behind > self._settings.max_behind_bytes:
            raise OperatorError(
                f"the replication slot {self._settings.name} keeps {behind} bytes of WAL back, more than WAL_LIMIT: it "
                "is made anew, and clients will be told of a gap"
            )

    def check_peers(self) -> None:
        """Leave the slot to another listener that reaches Redis, if this one does not.

        Raises:
            OperatorError: it does.
        """
        if self.slot_state and self.slot_state.waiting and not self._state.redis_answers():
            raise OperatorError("Redis does not answer this listener, so it leaves the replication slot to another one")

    @property
    def is_given_up(self) -> bool:
        """Whether PostgreSQL shows, in two looks, that this session does not read the slot any more."""
        return self._doubts >= _DOUBTS

    def close(self) -> None:
        """End both connections."""
        self._replication.close()
        self._connection.close()


class WalHealth:
    """Judges a session that reads the slot.

    The server may be silent for as long as it decodes a large transaction, and a query may wait for a commit. So
    nothing is judged by time: a session is lost when a connection is (the kernel ends one whose path is cut), or when
    the slot is not its own any more.
    """

    problem: str | None = None
    lock_wait = LockWait()

    def __init__(self, session: WalSession) -> None:
        self._session = session
        self._unanswered_since: float | None = None
        self.is_unreachable = False  # its queries are not answered: a listener that waits for the slot looks at it

    def check(self, now: float, *, is_answered: bool, is_received: bool) -> None:  # noqa: ARG002 - see the class
        """Judge the session. One that is not answered is kept, and holds no place (rule 16).

        Raises:
            psycopg.OperationalError: it has to be replaced.
            OperatorError: the same, because of the slot's size or another listener.
        """
        self._unanswered_since = None if is_answered else self._unanswered_since or now
        self.is_unreachable = self._unanswered_since is not None and now - self._unanswered_since > _UNREACHABLE_SECONDS
        self._session.check_limit()
        self._session.check_peers()
        if self._session.is_given_up:
            raise psycopg.OperationalError("this session does not read the replication slot any more")

    def session_delivers(self, now: float) -> None:
        """Nothing: no time is measured."""


def emit_sql(payload: str) -> str:
    """The statement that writes a control message into the WAL; `payload` is an SQL expression."""
    return f"SELECT pg_logical_emit_message(true, {literal(PREFIX.decode() + MUX_CHANNEL)}, {payload})"
