"""Broken rules, one or more for each of the thirteen, which the schedules must notice.

A mutation is a function that patches the product (or, for the script, its likeness in the simulated world).
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from app.core.progress_timeout import ProgressTimeout
from app.sources.sequence_tracker import SequenceTracker
from app.sources.sequence_tracker import StreamEvent as FollowedEntry
from listener.sequencer.active import Active, Role
from listener.sequencer.aligning import Aligning, ReceivedNotification
from listener.sequencer.control_messages import Begin, ReceivedControl
from listener.sequencer.event_window import EventWindow
from listener.sequencer.redis_requests import Append, AppendResult, AppendStatus, StreamEntry
from listener.sequencer.sequencer import Sequencer
from listener.sequencer.transitions import MarkerFound
from notifymux.event import Event, EventId, encode
from tests.simulation.actors import Listener
from tests.simulation.servers import NOTHING, Redis
from tests.simulation.world import World

Patch = pytest.MonkeyPatch


def rule_1_a_new_session_keeps_its_count(patch: Patch) -> None:
    """What was notified between two sessions is not counted."""
    make = World.make_numbering

    def keep(world: World, listener: Listener) -> Sequencer:
        old = getattr(listener, "kept", None)
        numbering = make(world, listener)
        if old and isinstance(old.phase, Active):
            numbering.phase = old.phase
            listener.session.channels = listener.channels | {"pg_notify_mux"}  # type: ignore[union-attr]
        listener.kept = numbering  # type: ignore[attr-defined]
        return numbering

    patch.setattr(World, "make_numbering", keep)


def rule_2_the_head_is_read_after_the_marker(patch: Patch) -> None:
    """The marker may be before it, and is never found."""
    scanned = Aligning.scanned

    def late(search: Aligning, entries: list[StreamEntry], now: float) -> Any:
        if now < vars(search).setdefault("until", now + 1):
            search.cursor = entries[-1].id if entries else search.cursor
            entries = []
        return scanned(search, entries, now)

    patch.setattr(Aligning, "scanned", late)


def rule_3_ids_come_from_the_buffers_index(patch: Patch) -> None:
    """What was appended meanwhile isn't in the buffer any more."""

    def number(count: Active, heard: ReceivedNotification, now: float) -> None:
        count.sequence += 1
        at = EventId(count.epoch, len(count.buffer) + 1)
        count.buffer.append(encode(heard.channel, heard.payload, heard.at, at, count._fingerprint))

    patch.setattr(Active, "number", number)


def rule_3_an_unaligned_listener_counts_from_the_head(patch: Patch) -> None:
    """Its first event need not be the one after the head."""
    patch.setattr(
        Aligning, "scanned", lambda search, entries, _: MarkerFound(entries[-1].id if entries else search.cursor)
    )


def rule_4_what_was_heard_since_the_marker_is_forgotten(patch: Patch) -> None:
    """The count is behind by that many."""
    patch.setattr(Aligning, "hear", lambda *_: None)


def rule_4_a_newcomer_has_no_memory(patch: Patch) -> None:
    """It can't put back what it did not append itself."""
    loaded = Active.loaded
    patch.setattr(Active, "loaded", lambda count, entries: loaded(count, entries[:1]))


def rule_5_a_begin_need_not_be_above_the_head(patch: Patch) -> None:
    """An id may be given twice, or an epoch never be taken."""
    begin = Sequencer._begin

    def low(numbering: Sequencer, why: str) -> None:
        begin(numbering, why)
        last = numbering._outbox.pop()
        assert isinstance(last, Begin)
        numbering._outbox.append(last._replace(floor=1, jitter=0))

    patch.setattr(Sequencer, "_begin", low)


def rule_5_a_begin_does_not_wait(patch: Patch) -> None:
    """Somebody may be there."""
    patch.setattr(ProgressTimeout, "answered", lambda *_: True)


def rule_5_the_bound_runs_while_redis_is_away(patch: Patch) -> None:
    """Nobody could have appended."""

    def answered(patience: ProgressTimeout, now: float) -> bool:
        last = patience._last if patience._last is not None else now
        patience._spent += now - last
        patience._last = now
        return patience._spent >= patience._bound

    patch.setattr(ProgressTimeout, "answered", answered)
    patch.setattr(ProgressTimeout, "interrupted", lambda _: None)


def rule_5_an_empty_registry_shows_that_nobody_is_there(patch: Patch) -> None:
    """It may have been wiped."""

    def shows(listener: Listener, now: float) -> bool:
        return any(now - at < 5 for name, at in listener.redis.registry.items() if name != listener.name)

    patch.setattr(Listener, "_shows_others", shows)


def rule_5_of_two_begins_at_once_the_second_counts_too(patch: Patch) -> None:
    """One break is announced as two."""
    heard = Sequencer._heard_begin

    def always(numbering: Sequencer, said: ReceivedControl, epoch: int, now: float) -> None:
        heard(numbering, msgspec.structs.replace(said, floor=epoch), epoch, now)

    patch.setattr(Sequencer, "_heard_begin", always)


def rule_6_fingerprints_are_ignored(patch: Patch) -> None:
    """Who hears other channels counts something else."""
    make = World.make_numbering

    def same(world: World, listener: Listener) -> Sequencer:
        numbering = make(world, listener)
        numbering._fingerprint = "the same"
        return numbering

    patch.setattr(World, "make_numbering", same)


def _script(check: Callable[[Redis, Append, AppendResult], AppendResult]) -> Callable[[Patch], None]:
    def mutate(patch: Patch) -> None:
        append = Redis.append

        def mutated(redis: Redis, request: Append) -> AppendResult:
            return check(redis, request, append(redis, request))

        patch.setattr(Redis, "append", mutated)

    return mutate


def _force(redis: Redis, request: Append) -> AppendResult:
    for offset, text in enumerate(request.texts):
        redis.add(StreamEntry(EventId(request.first.epoch, request.first.sequence + offset), text), publish=True)
    return AppendResult(AppendStatus.OK, redis.head or NOTHING, len(request.texts))


def rule_7_the_script_does_not_check_for_a_hole(patch: Patch) -> None:
    """A hole is never filled, for nobody knows of it."""
    _script(lambda redis, request, answer: _force(redis, request) if answer.status is AppendStatus.GAP else answer)(
        patch
    )


def rule_7_the_script_accepts_any_start_of_an_epoch(patch: Patch) -> None:
    """What was before it is never put back."""
    _script(lambda redis, request, answer: _force(redis, request) if answer.status is AppendStatus.BEHIND else answer)(
        patch
    )


def rule_7_the_script_appends_what_is_there(patch: Patch) -> None:
    """Redis refuses it."""
    _script(lambda redis, request, answer: answer if answer.added else _force(redis, request))(patch)


def rule_8_a_standby_never_takes_over(patch: Patch) -> None:
    """A dead primary is not replaced."""
    head_read = Active.head_read

    def never(count: Active, head: EventId, now: float) -> Any:
        verdict = head_read(count, head, now)
        count._overdue = False
        return verdict

    patch.setattr(Active, "head_read", never)


def rule_8_everybody_stays_primary(patch: Patch) -> None:
    """Each event is sent to Redis as often as there are listeners."""

    def take(count: Active, *_: Any) -> None:
        count.role = Role.PRIMARY

    patch.setattr(Active, "_take_role", take)


def rule_9_nothing_is_put_back(patch: Patch) -> None:
    """A wiped stream is a gap."""
    patch.setattr(Active, "_close", lambda count, _: count._append(count.buffer))


def rule_9_a_memory_with_a_hole_is_put_back(patch: Patch) -> None:
    """What is missing in it is missing in the stream, under the next one's id."""

    def settle(count: Active, head: EventId) -> int:
        moved = 0
        while count.buffer and count.buffer.first <= head.sequence:
            text = count.buffer.pop()
            if count.buffer.first % 7:
                count.memory.append(text)
                moved += 1
        count.memory.first = count.buffer.first - len(count.memory)
        return moved

    patch.setattr(Active, "_settle", settle)


def rule_10_an_overflowing_buffer_drops_its_oldest(patch: Patch) -> None:
    """Those that follow take their place."""

    def drop(numbering: Sequencer, _: float) -> None:
        phase = numbering.phase
        if isinstance(phase, Active) and numbering._exceeded(len(phase.buffer), phase.buffer.bytes):
            first = phase.buffer.first
            phase.buffer = EventWindow(first)
            phase.sequence = first - 1

    patch.setattr(Sequencer, "_check_bounds", drop)


def rule_12_a_failed_append_is_given_up(patch: Patch) -> None:
    """What Redis did not take is lost."""
    failed = Active.redis_failed

    def give_up(count: Active) -> None:
        failed(count)
        if count.buffer:
            count.buffer.pop()

    patch.setattr(Active, "redis_failed", give_up)


def rule_13_a_jump_is_delivered_instead_of_filled(patch: Patch) -> None:
    """What was between is lost."""
    on_published = SequenceTracker.on_published

    def jump(tracker: SequenceTracker, events: Sequence[Event]) -> Any:
        at = EventId.parse(events[-1].id or "0-0")
        if tracker.position and at.epoch == tracker.position.epoch and at > tracker.position:
            tracker._move_to(at)
            return events
        return on_published(tracker, events)

    patch.setattr(SequenceTracker, "on_published", jump)


def rule_13_the_stream_is_not_read_after_a_subscription_or_a_silence(patch: Patch) -> None:
    """A lost last message shows no jump."""
    patch.setattr(SequenceTracker, "request_read", lambda _: None)
    patch.setattr(SequenceTracker, "interrupted", lambda _: None)


def rule_13_a_repeat_is_delivered(patch: Patch) -> None:
    """The stream was put back, or read after what was heard."""
    patch.setattr(SequenceTracker, "_was_delivered", lambda *_: False)


def rule_13_a_new_epoch_is_not_a_gap(patch: Patch) -> None:
    """Nobody is told that something may be missing."""
    read_entry = SequenceTracker._read_entry

    def silent(tracker: SequenceTracker, entry: FollowedEntry, now: float) -> Any:
        if tracker.position and entry.id.epoch > tracker.position.epoch and entry.id.sequence == 1:
            tracker._move_to(entry.id)
            return []
        return read_entry(tracker, entry, now)

    patch.setattr(SequenceTracker, "_read_entry", silent)


def rule_13_a_hole_is_given_up_at_once(patch: Patch) -> None:
    """Somebody would have filled it."""
    patch.setattr(SequenceTracker, "_timed_out", lambda *_: True)


MUTATIONS = [value for name, value in sorted(globals().items()) if name.startswith("rule_")]
