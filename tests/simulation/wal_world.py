"""A simulated world whose listeners read a replication slot (SOURCE=wal)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import psycopg

from app.core.cluster import Cluster
from listener.environment import NoLongerWantedError
from listener.sequencer.active import Active
from listener.sequencer.control_messages import Begin, ControlMessage
from listener.sequencer.redis_requests import Append
from listener.sequencer.wal_place import WalPlace
from listener.sequencer.wal_sequencer import WalSequencer
from notifymux.event import MUX_CHANNEL, EventId, decode
from notifymux.sequence_tracker import Gap
from tests.simulation.listener import Listener, StillWaiting
from tests.simulation.postgres import CHANNEL, EXTRA_CHANNEL
from tests.simulation.violation import Violation
from tests.simulation.wal_faults import LOSING, WAL_FAULTS
from tests.simulation.wal_postgres import FROZEN_SECONDS, TRAIL_SECONDS, SimulatedWalSession, WalBackend, WalPostgres
from tests.simulation.world import World

MAX_READ = 100  # events
_CHANNELS = {CHANNEL, EXTRA_CHANNEL}


class WalListener(Listener):
    """One listener process after another, which reads the slot or waits for it."""

    world: WalWorld
    _waiting: WalBackend | None = None  # a session whose connecting has not ended

    def _start(self) -> None:
        self.channels = self.channels | {MUX_CHANNEL}
        super()._start()
        self._waiting = None

    def _connect(self) -> SimulatedWalSession:
        """As `listener.wal.connector.WalConnector.connect`; it is called again while it raises `StillWaiting`."""
        if self.is_cut:
            self.waits_for, self._waiting = "", None
        self.check_reachable()
        backend = self._waiting if self._waiting and self._waiting.alive else self._open()
        self._waiting = backend
        reader = backend.server.prepare_slot().reader
        if reader is None:
            self.waits_for, self._waiting = "", None
            backend.server.start(backend)
            backend.asked_at = self.now
            backend.silent_until = self.now + backend.server.decodes_for
            return SimulatedWalSession(self, backend)
        if self.reserves.has_to_leave:
            backend.server.disconnect(backend)
            self.waits_for, self._waiting = "", None
            raise NoLongerWantedError
        self.waits_for = "another listener"
        if reader.transaction is None and self.now - reader.asked_at > FROZEN_SECONDS:
            reader.server.disconnect(reader)
        raise StillWaiting

    @property
    def holds(self) -> bool:
        """Whether it reads the slot, or waits for it."""
        return self.active is not None or self.forwarder.status().sequencer.role == "waiting"

    def _open(self) -> WalBackend:
        if self._waiting:
            self._waiting, self.waits_for = None, ""
            raise psycopg.OperationalError("terminating connection")
        server = self.world.resolve()
        if self._last_backend:
            self._last_backend.server.disconnect(self._last_backend)
        self._last_backend = backend = server.connect()
        self._former_epoch = self._highest_epoch
        return backend

    def _check_held(self) -> None:
        """What a lost session held is sent again by the slot."""

    def check_confirmed(self, cluster: Cluster, commit: int) -> None:
        self.world.check_confirmed(cluster, commit)

    def check_sent(self, message: ControlMessage) -> None:
        super().check_sent(message)
        if isinstance(message, Begin) and message.token in self.world.postgres.begun:
            raise Violation(f"a begin is sent again although the WAL has it: {message}")

    def check_memory(self) -> None:
        """What is read and not in the stream stays within the limits, but for one read."""
        sequencer = self.sequencer
        if isinstance(sequencer, WalSequencer):
            events = len(sequencer._held) + sequencer.phase.buffered.events
            if events > self.world.limits.events + MAX_READ:
                raise Violation(f"{events} events are held")


class WalWorld(World):
    """All servers and processes, and the guarantees that are checked after every step.

    Kinds: "rough"; "gentle", with faults after which the slot has everything still; or "lone", the same with a single
    listener. In the latter two no gap may be announced.
    """

    postgres: WalPostgres
    KINDS = ("gentle", "lone", "rough")
    FAULTS = WAL_FAULTS
    LISTENER = WalListener
    MAX_LISTENERS = 3

    def __init__(self, seed: int, **settings: Any) -> None:
        self.kept: dict[int, int] = {}  # by timeline: the last commit of which Redis had an event for the trail
        super().__init__(seed, **settings)

    def _new_server(self) -> WalPostgres:
        return WalPostgres(self.rng)

    def resolve(self) -> WalPostgres:
        server = super().resolve()
        assert isinstance(server, WalPostgres)
        return server

    def _may_happen(self, fault: str) -> bool:
        return self.kind == "rough" or fault not in LOSING

    def _prepare(self) -> None:
        """Nobody is protected: the slot remembers."""

    @staticmethod
    def _appends(_: Active) -> bool:
        """The slot has one reader."""
        return True

    def tick(self) -> None:
        super().tick()
        self.check_passed()

    def check_passed(self) -> None:
        """What has to hold after some time has passed."""
        self.note_kept()
        for listener in self.listeners:
            if isinstance(listener, WalListener):
                listener.check_memory()

    # The guarantees.

    def note_kept(self) -> None:
        """Note what Redis has had for the trail."""
        until = self.wall - TRAIL_SECONDS
        for master in self.masters:
            for entry in reversed(master.entries):
                if master.since[entry.id] <= until:
                    if place := WalPlace.of_text(entry.text):
                        self.kept[place.timeline] = max(self.kept.get(place.timeline, 0), place.commit)
                    break

    def check_confirmed(self, cluster: Cluster, commit: int) -> None:
        self.note_kept()
        if commit > self.kept.get(cluster.timeline, 0):
            raise Violation(f"{commit:X} is confirmed, and Redis has had events up to {self.kept} for the trail only")

    def check_identities(self, request: Append) -> None:
        super().check_identities(request)
        self.check_fed(request.texts)

    def check_fed(self, lines: list[bytes]) -> None:
        unseen = self.postgres.unseen_numbers
        for line in lines if unseen else []:
            event = decode(line) if line.startswith(b'{"id"') else None
            if event and event.channel in _CHANNELS and int(bytes(event.payload)) in unseen:
                raise Violation(f"event {bytes(event.payload)!r} is handed on before any query sees it")

    def check_quiet(self) -> None:
        """Besides, the stream has the events of an epoch in the order of the WAL."""
        super().check_quiet()
        for before, entry in pairwise(self.redis.entries):
            one, next_one = WalPlace.of_text(before.text), WalPlace.of_text(entry.text)
            if entry.id.epoch == before.id.epoch and one and next_one and not one < next_one:
                raise Violation(f"{before.id} is at {one} and {entry.id} at {next_one}")

    def gap_announced(self, gap: Gap, last: EventId | None) -> None:
        """In a calm world no gap may be announced."""
        if self.calm:
            raise Violation(f"a gap was announced although the slot has everything: {gap}")
