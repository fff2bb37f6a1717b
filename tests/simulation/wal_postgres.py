"""PostgreSQL with a WAL: transactions that emit messages, a replication slot, and sessions that read it.

A commit is handed out as soon as it is in the WAL. Queries see it later: its backend first waits for the synchronous
standby. A slot sends again, to every new reader, what is not confirmed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple, Protocol

import psycopg

from app.core.cluster import Cluster
from app.core.operator_errors import OperatorError
from listener.sequencer.control_messages import ControlMessage, InspectSlot, TakeSnapshot
from listener.sequencer.process_state import ProcessState
from listener.sequencer.snapshot import Snapshot
from listener.sequencer.wal_message import WalMessage
from listener.sequencer.wal_sequencer import WalSequencer
from listener.wal.wal_session import WalHealth
from tests.simulation.postgres import (
    EXTRA_CHANNEL,
    Answer,
    Backend,
    Postgres,
    PostgresPath,
    SimulatedSession,
    Transaction,
)

TRAIL_SECONDS = 2.0
FROZEN_SECONDS = 5.0  # as in listener.wal.slot
_WRAP_AROUND = 1 << 32
_DOUBTS = 2


class Query(NamedTuple):
    """The answer to a query, beside its failure."""

    snapshot: Snapshot | None = None
    reads_slot: bool = True  # whether the session that asked is the slot's reader


class WalTransaction(Transaction):
    """A transaction that has its id, and its messages' places in the WAL, before it commits.

    Args:
        xid: 64 bits.
        channel, payload, backend: as of `Transaction`.
        messages: the channel and the LSN of each.
    """

    def __init__(
        self, xid: int, channel: str, payload: str | None, backend: Backend | None, messages: list[tuple[str, int]]
    ) -> None:
        super().__init__(channel, payload, backend)
        self.xid, self.messages = xid, messages


class Commit(NamedTuple):
    """A transaction in the WAL."""

    lsn: int
    xid: int
    messages: list[WalMessage]
    numbers: set[int]  # of users' events


class Slot:
    """A replication slot.

    Args:
        start: the LSN from which on it has commits.
    """

    def __init__(self, start: int) -> None:
        self.start = self.confirmed = self.saved = start  # `saved` is on the disk
        self.reader: WalBackend | None = None


class WalBackend(Backend):
    """A listener's two connections, on the server's side: one for queries, and one that reads the slot."""

    server: WalPostgres

    def __init__(self, server: WalPostgres) -> None:
        super().__init__(server)
        self.answers: list[tuple[Answer, Query]] = []  # on their way to the listener
        self.asked_at = 0.0  # the time of the last query
        self.sent_up_to = 0  # how many of the server's commits
        self.sent: list[WalMessage] = []  # on its way, too
        self.reading_is_lost = False
        self.silent_until = 0.0  # the server decodes something large, and sends nothing

    @property
    def reads_slot(self) -> bool:
        return self.server.slot is not None and self.server.slot.reader is self

    def answer(self, failure: psycopg.Error | None = None) -> None:
        self.transaction = None
        self.answers.append((Answer(failure), Query(reads_slot=self.reads_slot)))


class WalPostgres(Postgres):
    """One server.

    Args:
        rng: decides what users do, and when others see it.
        timeline, clock_ms: as of `Postgres`.
    """

    def __init__(self, rng: Random, timeline: int = 1, clock_ms: int = 1_000_000) -> None:
        super().__init__(timeline, clock_ms)
        self.rng = rng
        self.wal: list[Commit] = []
        self.lsn = 1_000
        self.slot: Slot | None = None
        self.next_xid = _WRAP_AROUND - rng.choice([1, 30, 300])
        self.in_progress: set[int] = set()  # xids
        self.latest_finished = self.next_xid - 1
        self.open: list[WalTransaction] = []  # users', which have emitted their messages and not committed
        self.unseen: list[Commit] = []  # in the WAL, and not finished
        self.begun: set[str] = set()  # the tokens of the begins in the WAL
        self.decodes_for = 0.0  # seconds, before a new reader is sent anything

    # Users.

    def commit_event(self, channel: str, now: float) -> None:
        transaction = self._begin(channel, None)
        if self.rng.random() < 0.1:
            self._finish(transaction.xid)  # it rolls back
        elif self.rng.random() < 0.2:
            self.open.append(transaction)
        else:
            self._waiting.append(transaction)
        self.pump(now)

    def _begin(self, channel: str, payload: str | None, backend: Backend | None = None) -> WalTransaction:
        xid, self.next_xid = self.next_xid, self.next_xid + 1
        self.in_progress.add(xid)
        count = self.rng.choice([4, 1, 1, 1]) if payload is None else 1
        channels = [channel, *(self.rng.choice([channel, channel, EXTRA_CHANNEL]) for _ in range(count - 1))]
        return WalTransaction(xid, channel, payload, backend, [(each, self._advance()) for each in channels])

    def _advance(self) -> int:
        self.lsn += self.rng.choice([8, 64, 8000])
        return self.lsn

    def is_stalled(self, now: float) -> bool:
        """Whether a flush takes long. A synchronous standby holds up nobody but those who wait for it."""
        return bool(self._waiting) and now < self.stalled_until

    def pump(self, now: float) -> None:
        for transaction in [each for each in self.open if self.rng.random() < 0.2]:
            self.open.remove(transaction)
            self._waiting.append(transaction)
        super().pump(now)
        if not self.standby_away:
            for commit in [each for each in self.unseen if self.rng.random() > 0.4]:
                self._show(commit)

    @property
    def unseen_numbers(self) -> set[int]:
        """The users' events that no query sees."""
        return {number for commit in self.unseen for number in commit.numbers}

    def _commit(self, transaction: Transaction) -> None:
        assert isinstance(transaction, WalTransaction)
        messages, numbers = [], set()
        lsn = self._advance()
        for channel, at in transaction.messages:
            payload = transaction.payload
            if payload is None:
                self.committed += 1
                payload = str(self.committed)
                numbers.add(self.committed)
                if channel == EXTRA_CHANNEL:
                    self.extra_events.add(self.committed)
            messages.append(WalMessage(channel, payload.encode(), transaction.xid % _WRAP_AROUND, lsn, at))
        if transaction.backend and (token := json.loads(transaction.payload or "").get("by")):
            self.begun.add(token)
        commit = Commit(lsn, transaction.xid, messages, numbers)
        self.wal.append(commit)
        self.unseen.append(commit)
        if transaction.backend:  # a control message does not wait for the standby
            self._show(commit)
            if transaction.backend.alive:
                transaction.backend.answer()

    def _show(self, commit: Commit) -> None:
        self.unseen.remove(commit)
        self._finish(commit.xid)

    def _finish(self, xid: int) -> None:
        self.in_progress.remove(xid)
        self.latest_finished = max(self.latest_finished, xid)

    def snapshot(self) -> Snapshot:
        xmax = self.latest_finished + 1
        in_progress = frozenset(xid for xid in self.in_progress if xid < xmax)
        return Snapshot(min(in_progress, default=xmax), xmax, in_progress)

    # Sessions.

    def connect(self) -> WalBackend:
        backend = WalBackend(self)
        self.backends.append(backend)
        return backend

    def disconnect(self, backend: Backend, *, commits: bool = False) -> None:
        assert isinstance(backend, WalBackend)
        transaction = backend.transaction
        super().disconnect(backend, commits=commits)
        self.end_reading(backend)
        if isinstance(transaction, WalTransaction) and transaction not in self._waiting:
            self._abort(transaction)

    def end_reading(self, backend: WalBackend) -> None:
        """End the connection that reads the slot, and nothing else."""
        backend.reading_is_lost = True
        if self.slot and self.slot.reader is backend:
            self.slot.reader = None

    def _abort(self, transaction: WalTransaction) -> None:
        if transaction.xid in self.in_progress and transaction.xid not in {commit.xid for commit in self.unseen}:
            self._finish(transaction.xid)

    def cancel(self, backend: Backend) -> None:
        assert isinstance(backend, WalBackend)
        transaction = backend.transaction
        if backend.answers and backend.answers[0][1].snapshot:
            backend.answers[0] = Answer(psycopg.errors.QueryCanceled("canceling statement")), Query()
        super().cancel(backend)
        if isinstance(transaction, WalTransaction) and backend.transaction is None:
            self._abort(transaction)

    def execute(self, backend: Backend, message: ControlMessage, channels: frozenset[str], now: float) -> None:
        assert isinstance(backend, WalBackend)
        backend.asked_at = now
        if isinstance(message, TakeSnapshot):
            backend.answers.append((Answer(), Query(self.snapshot())))
        elif isinstance(message, InspectSlot):
            backend.answer()
        else:
            super().execute(backend, message, channels, now)

    def shut_down(self) -> None:
        """A crash: the WAL is there afterwards, what is in it is seen, and the slot is as it was last saved."""
        waiting = [each for each in (*self._waiting, *self.open) if isinstance(each, WalTransaction)]
        super().shut_down()
        self.open.clear()
        for transaction in waiting:
            self._abort(transaction)
        for commit in list(self.unseen):
            self._show(commit)
        if self.slot:
            self.slot.confirmed = self.slot.saved

    def promote(self) -> WalPostgres:
        """A standby that becomes a primary. It may lack a tail of the WAL, and the slot."""
        for transaction in self.open:
            self._abort(transaction)
        self.open.clear()
        promoted = WalPostgres(self.rng, self.cluster.timeline + 1, self.clock_ms)
        promoted.wal = self.wal[: len(self.wal) - self.rng.choice([0, 0, 5])]
        self.standby_away = False
        promoted.lsn = promoted.wal[-1].lsn if promoted.wal else 1_000
        promoted.committed, promoted.extra_events = self.committed, self.extra_events
        promoted.next_xid = self.next_xid
        promoted.latest_finished = self.next_xid - 1
        if self.slot and self.rng.random() < 0.5:
            promoted.slot = Slot(min(self.slot.saved, promoted.lsn))
            promoted.slot.start = self.slot.start
        return promoted

    # The slot.

    def invalidate(self) -> None:
        """Give the slot up (max_slot_wal_keep_size): whoever connects makes a new one."""
        if self.slot and self.slot.reader:
            self.disconnect(self.slot.reader)
        self.slot = None

    def prepare_slot(self) -> Slot:
        """Make the slot if it is missing; that waits for the transactions that are open."""
        if self.slot is None:
            if self.in_progress:
                raise OperatorError("the replication slot can't be made while older transactions run")
            self.slot = Slot(self.lsn + 1)
        return self.slot

    def start(self, backend: WalBackend) -> None:
        """START_REPLICATION: what was committed at the confirmed position, and after it, is sent."""
        assert self.slot
        assert self.slot.reader is None
        self.slot.reader = backend
        confirmed = self.slot.confirmed
        backend.sent_up_to = next((at for at, commit in enumerate(self.wal) if commit.lsn >= confirmed), len(self.wal))

    def confirm(self, backend: WalBackend, commit: int) -> None:
        if self.slot and backend.reads_slot:
            self.slot.confirmed = max(self.slot.confirmed, commit)
            if self.rng.random() < 0.2:
                self.slot.saved = self.slot.confirmed

    def send(self, backend: WalBackend, count: int) -> None:
        """Send commits to the slot's reader."""
        for commit in self.wal[backend.sent_up_to : backend.sent_up_to + count]:
            backend.sent += commit.messages
            backend.sent_up_to += 1


class WalPath(PostgresPath, Protocol):
    """What a session that reads the slot sees of its listener's path to PostgreSQL."""

    def check_confirmed(self, cluster: Cluster, commit: int) -> None:
        """Check what the listener lets the slot forget."""


class SimulatedWalSession(SimulatedSession):
    """A listener's side of a session; as `listener.wal.wal_session.WalSession`."""

    _path: WalPath
    backend: WalBackend

    def __init__(self, path: WalPath, backend: WalBackend) -> None:
        super().__init__(path, backend)
        self._outcome: psycopg.Error | Snapshot | None = None
        self._doubts = 0
        self._sent: ControlMessage | None = None

    def new_sequencer(self, session_id: str, process: ProcessState) -> Any:
        assert self.cluster
        return WalSequencer(session_id, process, self.cluster, TRAIL_SECONDS)

    def new_health(self, logger: logging.Logger, start_call: Callable[..., Any]) -> Any:
        session: Any = self
        return WalHealth(session)

    def check_limit(self) -> None:
        """No slot grows so large here."""

    def check_peers(self) -> None:
        """Nobody leaves the slot to others here."""

    @property
    def is_given_up(self) -> bool:
        return self._doubts >= _DOUBTS

    def notify(self, message: ControlMessage) -> None:
        super().notify(message)
        self._sent = message

    def receive(self) -> list[WalMessage]:  # type: ignore[override]
        self._check_alive()
        readable = self._path.readable()
        if self.backend.reads_slot and readable and self._path.now >= self.backend.silent_until:
            self.backend.server.send(self.backend, readable)
        sent = self.backend.sent
        received, self.backend.sent = sent[:readable], sent[readable:]
        self.delivered += len(received)
        return [message for message in received if message.channel in self._path.channels]

    def _read_answer(self) -> None:
        if self._path.is_cut or not self.backend.answers:
            return
        (failure,), query = self.backend.answers.pop(0)
        self.is_idle, self._outcome = True, failure or query.snapshot
        if isinstance(self._sent, InspectSlot) and not failure:
            self._doubts = 0 if query.reads_slot else self._doubts + 1

    def _check_alive(self) -> None:
        super()._check_alive()
        if self.backend.reading_is_lost and not self._path.is_cut:
            raise psycopg.OperationalError("terminating connection")

    def confirm(self, commit: int) -> None:
        if commit and not self._path.is_cut:
            self._path.check_confirmed(self.backend.server.cluster, commit)
            self.backend.server.confirm(self.backend, commit)

    def take_outcome(self) -> Any:
        if not self.backend.alive:
            self._check_alive()
        self._read_answer()
        outcome, self._outcome = self._outcome, None
        return outcome
