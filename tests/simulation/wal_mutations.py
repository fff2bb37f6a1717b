"""Broken rules of docs/wal.md, which the schedules must notice.

A mutation is a function that patches the product (or, for append.lua, its model in the simulated world).
"""

from typing import Any

import psycopg
import pytest

from listener.sequencer.active import Active
from listener.sequencer.anchoring import Anchoring
from listener.sequencer.confirmation_trail import ConfirmationTrail
from listener.sequencer.control_messages import ReceivedControl
from listener.sequencer.sequencer import Sequencer
from listener.sequencer.snapshot import Snapshot
from listener.sequencer.transitions import Anchored, SendBegin
from listener.sequencer.wal_message import WalMessage
from listener.sequencer.wal_place import WalPlace
from listener.sequencer.wal_sequencer import WalSequencer
from listener.wal.wal_session import WalHealth
from notifymux.event import EventId
from notifymux.sequence_tracker import SequenceTracker
from tests.simulation.redis import Redis
from tests.simulation.wal_postgres import SimulatedWalSession

Patch = pytest.MonkeyPatch


def rule_w1_events_are_numbered_before_queries_see_them(patch: Patch) -> None:
    """A client that asks for the row gets the old one."""
    patch.setattr(Snapshot, "is_finished", lambda *_: True)


def rule_w1_later_commits_do_not_wait(patch: Patch) -> None:
    """Ids are not in the order of the commits, and are others for the next reader."""
    number = WalSequencer._number

    def overtake(sequencer: WalSequencer, now: float) -> None:
        if sequencer._snapshot:
            seen = sequencer._snapshot.is_finished
            held = sorted(sequencer._held, key=lambda each: not seen(each[0].xid))
            sequencer._held.clear()
            sequencer._held.extend(held)
        number(sequencer, now)

    patch.setattr(WalSequencer, "_number", overtake)


def rule_w1_an_xid_is_not_widened(patch: Patch) -> None:
    """After 2^32 transactions every one seems to be finished, or none."""
    patch.setattr(Snapshot, "_widen", lambda _, xid: xid)


def rule_w1_answers_are_not_read_while_messages_are_held_back(patch: Patch) -> None:
    """Only a snapshot gets them on."""
    receive, take_outcome = SimulatedWalSession.receive, SimulatedWalSession.take_outcome

    def read(session: SimulatedWalSession) -> list[WalMessage]:
        vars(session)["may_read"] = True
        return receive(session)

    def take(session: SimulatedWalSession) -> Any:
        return take_outcome(session) if vars(session).pop("may_read", False) else None

    patch.setattr(SimulatedWalSession, "receive", read)
    patch.setattr(SimulatedWalSession, "take_outcome", take)


def rule_w2_a_reader_counts_from_the_head_without_an_anchor(patch: Patch) -> None:
    """What the slot does not send any more is lost, and the next event has its id."""
    begin = Anchoring._begin

    def count_on(anchoring: Anchoring, why: str) -> Any:
        entry = anchoring._entry
        if entry and "does not send" in why:
            return Anchored(entry.id, str(WalPlace.of_text(entry.text)))
        return begin(anchoring, why)

    patch.setattr(Anchoring, "_begin", count_on)


def rule_w2_an_older_copy_of_the_server_is_not_noticed(patch: Patch) -> None:
    """Nothing is forwarded until it has written as much as the one before."""
    look = Anchoring.look
    patch.setattr(Anchoring, "look", lambda anchoring, received, *, is_own: look(anchoring, received, is_own=False))


def rule_w2_what_was_received_is_confirmed(patch: Patch) -> None:
    """Redis does not have it yet."""
    on_message = WalSequencer._on_message

    def confirm(sequencer: WalSequencer, message: WalMessage, at: float, now: float) -> None:
        on_message(sequencer, message, at, now)
        sequencer._trail.confirmable = message.commit

    patch.setattr(WalSequencer, "_on_message", confirm)


def rule_w2_there_is_no_trail(patch: Patch) -> None:
    """A Redis that comes back slightly older lacks what the slot has forgotten."""
    appended = ConfirmationTrail.appended

    def at_once(trail: ConfirmationTrail, *arguments: Any) -> None:
        trail._seconds = 0
        appended(trail, *arguments)

    patch.setattr(ConfirmationTrail, "appended", at_once)


def rule_w2_time_alone_confirms(patch: Patch) -> None:
    """Redis may have fallen back since its last answer."""
    patch.setattr(WalSequencer, "to_redis", _with_trail(WalSequencer.to_redis))
    patch.setattr(WalSequencer, "on_answer", Sequencer.on_answer)


def _with_trail(to_redis: Any) -> Any:
    def mutated(sequencer: WalSequencer, now: float) -> Any:
        if isinstance(sequencer.phase, Active) and (place := WalPlace.parse(sequencer.phase.confirmed_place)):
            sequencer._trail.appended(place.commit, now, now)
        return to_redis(sequencer, now)

    return mutated


def rule_w2_a_late_answer_counts_from_when_it_comes(patch: Patch) -> None:
    """It shows what Redis had when it was asked."""
    appended = ConfirmationTrail.appended

    def late(trail: ConfirmationTrail, commit: int, _: float, now: float) -> None:
        appended(trail, commit, now, now)

    patch.setattr(ConfirmationTrail, "appended", late)


def rule_w2_the_trail_outlives_a_loss(patch: Patch) -> None:
    """What is put back has not been in Redis since it was there first."""
    patch.setattr(ConfirmationTrail, "lost", lambda _: None)


def rule_w3_an_append_names_no_predecessor(patch: Patch) -> None:
    """It follows an entry of the same id and another place."""
    append = Redis.append
    patch.setattr(Redis, "append", lambda redis, request: append(redis, request._replace(after="")))


def rule_w3_nothing_is_put_back(patch: Patch) -> None:
    """A wiped stream is a gap, though its reader lives."""
    patch.setattr(Active, "_fill_gap", lambda active, _: active._append(active.buffer))


def rule_w3_only_a_canary_shows_that_there_is_no_other_begin(patch: Patch) -> None:
    """It does not come where the buffer is half full."""

    def on_snapshot(sequencer: WalSequencer, snapshot: Snapshot, now: float) -> None:
        sequencer._snapshot = snapshot
        sequencer._retry_due = now + 0.1
        sequencer._number(now)

    patch.setattr(WalSequencer, "on_snapshot", on_snapshot)


def rule_w3_a_gap_is_not_asked_of_the_slot(patch: Patch) -> None:
    """An epoch begins although the slot would send again what is missing."""
    apply = WalSequencer._apply

    def begin(sequencer: WalSequencer, transition: Any) -> None:
        if isinstance(transition, SendBegin):
            sequencer._send_begin(transition)
        else:
            apply(sequencer, transition)

    patch.setattr(WalSequencer, "_apply", begin)


def rule_w4_timelines_are_not_compared(patch: Patch) -> None:
    """After a fail-over the same places are other events'."""
    patch.setattr("listener.sequencer.wal_sequencer.WalPlace", _TimelessPlace)
    patch.setattr("listener.sequencer.anchoring.WalPlace", _TimelessPlace)
    patch.setattr(Anchoring, "_on_another_timeline", _anchor_all_the_same)


class _TimelessPlace(WalPlace):
    @classmethod
    def parse(cls, text: str) -> Any:
        place = WalPlace.parse(text)
        return place and cls(*place)

    def __lt__(self, other: Any) -> bool:
        return (self.commit, self.lsn) < (other.commit, other.lsn)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WalPlace) and (self.commit, self.lsn) == (other.commit, other.lsn)

    def __hash__(self) -> int:
        return hash((self.commit, self.lsn))


def _anchor_all_the_same(anchoring: Anchoring, _: int) -> None:
    anchoring._control.send_canary()


def rule_w4_a_lower_timeline_does_not_yield(patch: Patch) -> None:
    """Two primaries' readers take turns at beginning epochs."""
    patch.setattr(
        Anchoring, "_on_another_timeline", lambda anchoring, _: anchoring._begin("the timeline is another one")
    )


def rule_w5_a_reader_passes_anothers_begin(patch: Patch) -> None:
    """It gives what follows other ids than who sent it."""
    on_begin = WalSequencer._on_begin

    def own_only(sequencer: WalSequencer, begin: ReceivedControl, epoch: int, now: float) -> None:
        if sequencer._control.is_own(begin):
            on_begin(sequencer, begin, epoch, now)

    patch.setattr(WalSequencer, "_on_begin", own_only)


def rule_w5_a_begin_that_came_too_late_is_not_sent_again(patch: Patch) -> None:
    """The reader has the slot, and no ids, for ever."""
    send_begin = WalSequencer._send_begin

    def once(sequencer: WalSequencer, begin: SendBegin) -> None:
        if "came after" not in begin.why:
            send_begin(sequencer, begin)

    patch.setattr(WalSequencer, "_send_begin", once)


def rule_w5_a_failed_snapshot_repeats_the_message_before_it(patch: Patch) -> None:
    """A begin that the WAL has begins another epoch."""
    patch.setattr(WalSequencer, "on_query_failure", Sequencer.on_query_failure)


def rule_w6_origins_are_not_compared(patch: Patch) -> None:
    """A reader of other channels has other events at the next ids."""
    init = WalSequencer.__init__

    def same(sequencer: WalSequencer, *arguments: Any) -> None:
        init(sequencer, *arguments)
        sequencer._origin, sequencer._place = "same", f"same:{sequencer._server.timeline}:"
        if isinstance(sequencer.phase, Anchoring):
            sequencer.phase._origin = "same"

    patch.setattr(WalSequencer, "__init__", same)


def rule_w9_a_silent_session_is_replaced(patch: Patch) -> None:
    """The next one has to wait for the same again."""
    check = WalHealth.check

    def impatient(health: WalHealth, now: float, *, is_answered: bool, is_received: bool) -> None:
        check(health, now, is_answered=is_answered, is_received=is_received)
        heard_at = now if is_received else vars(health).get("heard_at", now)
        vars(health)["heard_at"] = heard_at
        if now - heard_at > 4:
            raise psycopg.OperationalError("the canary has not come within 4 s")

    patch.setattr(WalHealth, "check", impatient)


def rule_w10_nothing_is_held_back(patch: Patch) -> None:
    """Without Redis the memory of the reader grows without bound."""
    patch.setattr(WalSequencer, "holds_back", False)


def rule_13_a_stream_that_only_lacks_what_was_delivered_is_taken_for_lost(patch: Patch) -> None:
    """Nothing is missing: the slot sends it again."""

    def is_behind(tracker: SequenceTracker, head: EventId) -> bool:
        return tracker.position is not None and head < tracker.position

    patch.setattr(SequenceTracker, "_goes_on_elsewhere", is_behind)


def rule_13_an_epoch_that_was_left_is_forgotten(patch: Patch) -> None:
    """An older copy of the stream is taken for a loss, and delivered again."""
    move_to = SequenceTracker._move_to

    def forget(tracker: SequenceTracker, at: EventId) -> None:
        move_to(tracker, at)
        tracker._left.clear()

    patch.setattr(SequenceTracker, "_move_to", forget)


MUTATIONS = [value for name, value in sorted(globals().items()) if name.startswith("rule_")]
