"""Broken rules of docs/numbering.md, which the schedules must notice.

A mutation is a function that patches the product (or, for append.lua, its model in the simulated world).
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg
import pytest

from app.core.session_health import SessionHealth
from app.sources.feed_follower import FeedFollower
from listener.forwarder import Forwarder
from listener.sequencer.active import Active, Role
from listener.sequencer.aligning import Aligning
from listener.sequencer.control_messages import Begin, ControlChannel, ReceivedControl
from listener.sequencer.event_window import EventWindow
from listener.sequencer.notify_sequencer import NotifySequencer
from listener.sequencer.process_state import ProcessState
from listener.sequencer.received import ReceivedNotification
from listener.sequencer.redis_requests import Append, AppendResult, AppendStatus, StreamEntry
from listener.sequencer.transitions import MarkerFound
from notifymux.event import MUX_CHANNEL, Event, EventId, encode
from notifymux.progress_timeout import POLL_SECONDS, ProgressTimeout
from notifymux.sequence_tracker import SequenceTracker
from notifymux.sequence_tracker import StreamEvent as FollowedEntry
from tests.simulation.listener import Listener
from tests.simulation.redis import NOTHING, Redis

Patch = pytest.MonkeyPatch


def rule_1_a_new_session_keeps_its_ids(patch: Patch) -> None:
    """Notifications between two sessions get no ids."""
    open_session, lose_session = Forwarder._open_session, Forwarder._lose_session

    def keep(forwarder: Forwarder, error: Any) -> None:
        vars(forwarder)["kept"] = forwarder._sequencer
        lose_session(forwarder, error)
        forwarder._leftover = None

    def reopen(forwarder: Forwarder, now: float) -> None:
        open_session(forwarder, now)
        old, new, session = vars(forwarder).get("kept"), forwarder._sequencer, forwarder.session
        if new and old and isinstance(old.phase, Active):
            new.phase = old.phase
            session.backend.channels = session._path.channels | {MUX_CHANNEL}  # type: ignore[union-attr]

    patch.setattr(Forwarder, "_lose_session", keep)
    patch.setattr(Forwarder, "_open_session", reopen)


def rule_1_a_session_that_waits_is_replaced(patch: Patch) -> None:
    """What it is about to receive is lost."""
    check = SessionHealth.check

    def impatient(health: SessionHealth, now: float, *, is_answered: bool, is_received: bool) -> None:
        check(health, now, is_answered=is_answered, is_received=is_received)
        if health._unanswered_since is not None and now - health._unanswered_since > 4:
            raise psycopg.OperationalError("no answer within 4 s")

    patch.setattr(SessionHealth, "check", impatient)


def rule_1_what_a_lost_session_held_is_dropped(patch: Patch) -> None:
    """It has its ids, and nobody else may have it."""
    lose_session = Forwarder._lose_session

    def drop(forwarder: Forwarder, error: Any) -> None:
        lose_session(forwarder, error)
        forwarder._leftover = None

    patch.setattr(Forwarder, "_lose_session", drop)


def rule_2_the_head_is_read_after_the_marker(patch: Patch) -> None:
    """The marker may be below the head, and is never found."""
    entries_read = Aligning._entries_read

    def late(aligning: Aligning, limit: int, entries: list[StreamEntry], now: float) -> Any:
        if now < vars(aligning).setdefault("until", now + 1):
            aligning.position = entries[-1].id if entries else aligning.position
            entries = []
        return entries_read(aligning, limit, entries, now)

    patch.setattr(Aligning, "_entries_read", late)


def rule_3_ids_come_from_the_buffers_index(patch: Patch) -> None:
    """Events that were appended meanwhile are no longer in the buffer."""

    def on_notification(active: Active, received: ReceivedNotification, *_: Any) -> None:
        active.position = EventId(active.epoch, active.position.sequence + 1)
        at = EventId(active.epoch, len(active.buffer) + 1)
        text = encode(received.channel, received.payload, received.at, at)
        active.buffer.append(text)

    patch.setattr(Active, "on_notification", on_notification)


def rule_3_a_new_listener_counts_from_the_head(patch: Patch) -> None:
    """Its first event need not be the one after the head."""
    patch.setattr(
        Aligning,
        "_entries_read",
        lambda aligning, entries, _: MarkerFound(entries[-1].id if entries else aligning.position),
    )


def rule_4_notifications_after_the_marker_are_dropped(patch: Patch) -> None:
    """Ids are too low by their number."""
    on_notification = Aligning.on_notification

    def drop(aligning: Aligning, *arguments: Any) -> None:
        if not aligning.marker_received:
            on_notification(aligning, *arguments)

    patch.setattr(Aligning, "on_notification", drop)


def rule_5_an_epoch_need_not_be_above_the_highest(patch: Patch) -> None:
    """Two events may get the same id, or no listener accepts the epoch."""
    send_begin = ControlChannel.send_begin

    def low(control: ControlChannel, previous: EventId, why: str) -> None:
        send_begin(control, previous, why)
        last = control._queue.pop()
        assert isinstance(last, Begin)
        control._queue.append(last._replace(floor=1, jitter=0))

    patch.setattr(ControlChannel, "send_begin", low)


def rule_5_a_begin_does_not_wait(patch: Patch) -> None:
    """Another listener may be alive."""
    patch.setattr(ProgressTimeout, "tick", lambda *_: True)


def rule_5_the_timeout_runs_while_redis_is_away(patch: Patch) -> None:
    """No listener could have appended."""

    def tick(timeout: ProgressTimeout, now: float) -> bool:
        last = timeout._last_tick if timeout._last_tick is not None else now
        timeout._elapsed += now - last
        timeout._last_tick = now
        return timeout._elapsed >= timeout._seconds

    patch.setattr(ProgressTimeout, "tick", tick)
    patch.setattr(ProgressTimeout, "pause", lambda _: None)


def rule_5_an_empty_registry_shows_that_no_listener_is_alive(patch: Patch) -> None:
    """It may have been wiped."""
    patch.setattr("listener.registry.SETTLE_SECONDS", -1.0)


def rule_5_the_highest_epoch_is_forgotten_with_the_session(patch: Patch) -> None:
    """The next begin may be below it."""
    lose_session = Forwarder._lose_session

    def forget(forwarder: Forwarder, error: Any) -> None:
        lose_session(forwarder, error)
        forwarder._process.highest_epoch = 0

    patch.setattr(Forwarder, "_lose_session", forget)


def rule_5_a_begin_far_ahead_is_accepted(patch: Patch) -> None:
    """Any role may send one."""
    patch.setattr(ProcessState, "is_plausible", lambda *_: True)


def rule_6_a_lower_timeline_does_not_yield(patch: Patch) -> None:
    """Two primaries' listeners take turns at beginning epochs."""
    patch.setattr(ProcessState, "why_outdated", lambda *_: None)


def rule_5_of_two_concurrent_begins_the_second_is_accepted_too(patch: Patch) -> None:
    """One gap is announced as two."""
    on_begin = NotifySequencer._on_begin

    def always(sequencer: NotifySequencer, begin: ReceivedControl, epoch: int, now: float) -> None:
        on_begin(sequencer, msgspec.structs.replace(begin, floor=epoch), epoch, now)

    patch.setattr(NotifySequencer, "_on_begin", always)


def rule_6_fingerprints_are_ignored(patch: Patch) -> None:
    """A listener of other channels assigns other ids."""
    start = Listener._start

    def same(listener: Listener) -> None:
        start(listener)
        listener.process.fingerprint = "the same"

    patch.setattr(Listener, "_start", same)


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


def rule_7_the_script_does_not_check_for_a_gap(patch: Patch) -> None:
    """The gap is never filled, because no listener knows of it."""
    _script(lambda redis, request, answer: _force(redis, request) if answer.status is AppendStatus.GAP else answer)(
        patch
    )


def rule_7_the_script_accepts_any_start_of_an_epoch(patch: Patch) -> None:
    """The events before it are never restored."""
    _script(lambda redis, request, answer: _force(redis, request) if answer.status is AppendStatus.BEHIND else answer)(
        patch
    )


def rule_7_the_script_appends_entries_that_are_there(patch: Patch) -> None:
    """Redis refuses them."""
    _script(lambda redis, request, answer: answer if answer.added else _force(redis, request))(patch)


def rule_8_a_standby_never_takes_over(patch: Patch) -> None:
    """A dead primary is not replaced."""
    head_read = Active._head_read

    def never(active: Active, head: EventId, now: float) -> Any:
        transition = head_read(active, head, now)
        active._is_overdue = False
        return transition

    patch.setattr(Active, "_head_read", never)


def rule_8_every_listener_stays_primary(patch: Patch) -> None:
    """Each event is sent to Redis as often as there are listeners."""

    def take(active: Active, *_: Any) -> None:
        active.role = Role.PRIMARY

    patch.setattr(Active, "_update_role", take)


def rule_9_nothing_is_restored(patch: Patch) -> None:
    """A wiped stream is a gap."""
    patch.setattr(Active, "_fill_gap", lambda active, _: active._append(active.buffer))


def rule_9_a_replay_window_with_a_gap_is_restored(patch: Patch) -> None:
    """Its missing events are missing in the stream, and the next ones have their ids."""

    def confirm(active: Active, head: EventId) -> int:
        moved = 0
        while active.buffer and active.buffer.first <= head.sequence:
            [text] = active.buffer.take(1)
            if active.buffer.first % 7:
                active.replay_window.append(text)
                moved += 1
        active.replay_window.first = active.buffer.first - len(active.replay_window)
        return moved

    patch.setattr(Active, "_confirm", confirm)


def rule_10_a_full_buffer_drops_its_oldest_events(patch: Patch) -> None:
    """The next events get their ids."""

    def drop(active: Active, _: float) -> None:
        first = active.buffer.first
        active.buffer = EventWindow(first)
        active.position = EventId(active.epoch, first - 1)

    patch.setattr(Active, "on_overflow", drop)


def rule_12_a_failed_append_is_not_repeated(patch: Patch) -> None:
    """The events that Redis did not take are lost."""
    on_redis_failure = Active.on_redis_failure

    def drop(active: Active) -> None:
        on_redis_failure(active)
        if active.buffer:
            active.buffer.take(1)

    patch.setattr(Active, "on_redis_failure", drop)


def rule_12_an_answer_reaches_another_phase(patch: Patch) -> None:
    """It was given to what has ended, and says nothing of what has begun since."""

    def on_answer(request: Any, answer: Any, now: float) -> None:
        request._sequencer.on_answer(request._request, answer, now)

    patch.setattr("listener.redis_exchange._Request.on_answer", on_answer)


def rule_13_a_jump_is_delivered_instead_of_filled(patch: Patch) -> None:
    """The events between are lost."""
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
    """A listener appends, and publishes, what was fed, or what Redis had lost."""
    accept = SequenceTracker._accept

    def again(tracker: SequenceTracker, event: Event) -> bool:
        at, position = event.parsed_id, tracker.position
        return accept(tracker, event) or (at is not None and position is not None and at <= position)

    patch.setattr(SequenceTracker, "_accept", again)


def rule_13_missing_events_are_waited_for_without_end(patch: Patch) -> None:
    """Nobody has them any more, and nothing is delivered again."""

    def never(tracker: SequenceTracker, now: float) -> bool:
        tracker.needs_read, tracker._read_at = True, now + POLL_SECONDS
        return False

    patch.setattr(SequenceTracker, "_timed_out", never)


def rule_13_a_stream_that_goes_on_in_an_earlier_epoch_is_not_followed(patch: Patch) -> None:
    """The epoch of before does not come back."""
    patch.setattr(SequenceTracker, "_goes_on_elsewhere", lambda *_: False)


def rule_13_a_new_epoch_is_not_a_gap(patch: Patch) -> None:
    """Events may be missing without an announced gap."""
    read_entry = SequenceTracker._read_entry

    def silent(tracker: SequenceTracker, entry: FollowedEntry, now: float) -> Any:
        if tracker.position and entry.id.epoch > tracker.position.epoch and entry.id.sequence == 1:
            tracker._move_to(entry.id)
            return []
        return read_entry(tracker, entry, now)

    patch.setattr(SequenceTracker, "_read_entry", silent)


def rule_13_a_gap_is_announced_at_once(patch: Patch) -> None:
    """Another listener would have filled it."""
    patch.setattr(SequenceTracker, "_timed_out", lambda *_: True)


def rule_14_a_begin_is_fed_before_the_stream_has_it(patch: Patch) -> None:
    """If nobody appends it, another begin of the same number may take its place."""
    feed_range = Active.feed_range

    def at_once(active: Active) -> Any:
        active._begin = 0
        return feed_range(active)

    patch.setattr(Active, "feed_range", at_once)


def rule_15_nobody_looks_whether_the_feed_is_behind(patch: Patch) -> None:
    """A listener that is frozen feeds nothing, while another one appends."""
    patch.setattr(FeedFollower, "looked", lambda *_, **__: None)


def rule_15_the_feed_is_followed_past_a_jump(patch: Patch) -> None:
    """What it does not have any more is in the stream."""
    patch.setattr(FeedFollower, "_is_alone", lambda *_: True)


def rule_15_without_redis_a_jump_is_waited_for(patch: Patch) -> None:
    """The feed has no more than it brings, and nobody else can be asked."""
    patch.setattr(FeedFollower, "_is_alone", lambda *_: False)


MUTATIONS = [value for name, value in sorted(globals().items()) if name.startswith("rule_")]
