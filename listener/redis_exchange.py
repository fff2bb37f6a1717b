"""The exchange with Redis: one request is under way at a time, and nothing waits for its answer (rule 12)."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from app.core.heartbeat import HEARTBEAT_SECONDS
from listener.environment import Environment
from listener.redis_connection import ConnectingError
from listener.registry import REDIS_RETRY_SECONDS
from listener.reserves import Look, Looked, Reserves
from listener.sequencer.redis_requests import Answer, Append, CheckOtherListeners, Request
from listener.sequencer.sequencer import Sequencer
from notifymux.background_call import PendingCall
from notifymux.reconnect import ReconnectState
from notifymux.redis_errors import fault

logger = logging.getLogger(__name__)

RESERVE_BEAT_SECONDS = 2.0  # between a reserve's heartbeats, of which nobody waits for the end
IDLE_SECONDS = 0.1  # how late a request may be sent that becomes due
_CONNECTING_SECONDS = 0.02  # the same while a connection is being made
# From one append to the next while workers are fed, which have the events already. A burst's first event is appended at
# once, and what follows it is one append: this takes less CPU time, here and in Redis.
_APPEND_SECONDS = 0.002


class _Request:
    """A sequencer's request. Its phase may have ended when the answer comes: then nobody wants it.

    One look at the registry does not show that there is no other listener: Redis may just have been wiped, replaced by
    an older copy, or have evicted a hash. So a listener that was seen at work counts until its heartbeats are missed.
    """

    def __init__(self, sequencer: Sequencer, request: Request, reserves: Reserves) -> None:
        self._sequencer, self._phase, self._request = sequencer, sequencer.phase, request
        self._reserves = reserves

    def on_answer(self, answer: Answer, now: float) -> None:
        if isinstance(self._request, CheckOtherListeners):
            answer = answer or self._reserves.sees_another
        if self._sequencer.phase is self._phase:
            self._sequencer.on_answer(self._request, answer, now)

    def on_failure(self, _now: float) -> None:
        if self._sequencer.phase is self._phase:
            self._sequencer.on_redis_failure()


class _LookAround:
    """A look at the other listeners."""

    def __init__(self, exchange: "RedisExchange", reserves: Reserves, look: Look, role: Callable[[], str]) -> None:
        self._exchange, self._reserves, self._look, self._role = exchange, reserves, look, role

    def on_answer(self, looked: Looked, now: float) -> None:
        role = self._role()
        self._reserves.on_answer(self._look, looked, now, role)
        if self._role() != role:
            self._exchange.beat_soon()

    def on_failure(self, now: float) -> None:
        self._reserves.on_redis_failure(now)

    def on_refusal(self, error: ResponseError, now: float) -> None:
        self._reserves.on_refusal(now)
        self._exchange.say_refused(error)


class _Waiting(NamedTuple):
    """What was sent, and is not answered."""

    call: PendingCall
    request: _Request | _LookAround | None  # None for a heartbeat
    appended: int = 0  # how many events it appends

    @property
    def is_append(self) -> bool:
        return self.appended > 0


def _is_lasting(error: ResponseError) -> bool:
    """Whether a command is refused because of the user's rights or of what a key holds."""
    return isinstance(error, NoPermissionError) or str(error).startswith("WRONGTYPE")


class RedisExchange:
    """Sends sequencers' requests and heartbeats, when they are due, and hands answers to who asked.

    Args:
        environment: Redis, and the clock.
    """

    def __init__(self, environment: Environment) -> None:
        self._env = environment
        self.state = ReconnectState("Redis", logger, cap=REDIS_RETRY_SECONDS)
        self._due = self._beat_due = 0.0
        self._publish_checked = self._append_refused = self._said_refused = False
        self._waiting: _Waiting | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a request is under way."""
        return self._waiting is not None

    def beat_soon(self) -> None:
        """Send the next heartbeat at once."""
        self._beat_due = self._env.monotonic()

    def say_refused(self, error: ResponseError) -> None:
        """Log once that Redis refuses to show the other listeners."""
        if not self._said_refused:
            self._said_refused = True
            logger.error(
                "Redis does not show the other listeners, so this one joins whatever they do: %s",
                fault(error),
            )

    def awaited(self, unconfirmed: int) -> PendingCall | None:
        """The call whose answer is taken as soon as it is there, if any; not before the next append may be sent.

        Args:
            unconfirmed: how many events are not known to be in the stream.
        """
        is_awaited = self._waiting and self._is_due_for(unconfirmed) and self._env.monotonic() >= self._due
        return self._waiting.call if self._waiting and is_awaited else None

    def _is_due_for(self, unconfirmed: int) -> bool:
        """Whether there is something to do at `_due`.

        Nothing waits for the answer to an append of all that there is: it is taken at the next step, whatever causes
        that. For lone events this is one step less for each.
        """
        if self._waiting is None:
            return unconfirmed > 0
        return not self._waiting.appended >= unconfirmed > 0

    def step(
        self,
        next_sequencer: Callable[[], Sequencer | None],
        start_beat: Callable[[], PendingCall],
        role: Callable[[], str],
        unconfirmed: int,
    ) -> float:
        """Take the answer that has arrived, and send what is due next.

        Args:
            next_sequencer: returns whose request is next.
            start_beat: sends a heartbeat.
            role: returns this listener's role.
            unconfirmed: how many events are not known to be in the stream.

        Returns:
            The seconds until there is more to do, unless an answer arrives before.
        """
        now = self._env.monotonic()
        if now < self._due:
            return self._due - now if self._is_due_for(unconfirmed) else IDLE_SECONDS
        if self._waiting and not self._waiting.call.is_done:
            return IDLE_SECONDS
        self.finish()
        if (now := self._env.monotonic()) < self._due:
            return self._due - now if unconfirmed else IDLE_SECONDS
        self._waiting = (
            self._start_beat(start_beat, now)
            or self._start_look(role, now)
            or self._start_request(next_sequencer(), now)
        )
        return 0.0 if self._waiting and self._waiting.call.is_done else IDLE_SECONDS

    def finish(self) -> None:
        """Hand over the answer to what is under way; wait for it within Redis's timeout."""
        if self._waiting is None:
            return
        waiting, self._waiting = self._waiting, None

        def take() -> None:
            try:
                answer = waiting.call.result()
            except ResponseError as error:
                # That is no outage: events are appended all the same.
                if not isinstance(waiting.request, _LookAround) or not _is_lasting(error):
                    raise
                waiting.request.on_refusal(error, self._env.monotonic())
                return
            if waiting.request:
                waiting.request.on_answer(answer, self._env.monotonic())

        # A heartbeat is small: a full Redis may take it while it still refuses an append.
        is_proof = waiting.is_append or (waiting.request is None and not self._append_refused)
        if self.attempt(take, proof=is_proof):
            self._append_refused = self._append_refused and not waiting.is_append
        else:
            self._failed(waiting.request, is_append=waiting.is_append)

    def attempt(self, call: Callable[[], None], *, proof: bool = False) -> bool:
        """Call and return whether Redis answered; after a failure wait before the next call.

        A call with `proof` shows that the outage is over: it writes, and a full Redis refuses writes but answers reads.
        """
        try:
            call()
        except ConnectingError:
            self._due = self._env.monotonic() + _CONNECTING_SECONDS
            return False
        except RedisError as error:
            self._due = self._env.monotonic() + self.state.failed(str(fault(error)))
            return False
        if proof:
            self.state.recovered()
        return True

    def _start_beat(self, start: Callable[[], PendingCall], now: float) -> _Waiting | None:
        if now < self._beat_due:
            return None
        self._beat_due = now + (RESERVE_BEAT_SECONDS if self._env.reserves.is_full else HEARTBEAT_SECONDS)
        return self._start(start, None)

    def _start_look(self, role: Callable[[], str], now: float) -> _Waiting | None:
        reserves = self._env.reserves
        if (look := reserves.to_redis(now, role())) is None:
            return None
        return self._start(lambda: self._env.registry.start_look(look), _LookAround(self, reserves, look, role))

    def _start_request(self, sequencer: Sequencer | None, now: float) -> _Waiting | None:
        request = sequencer.to_redis(now) if sequencer else None
        if sequencer is None or request is None:
            return None
        appended = len(request.texts) if isinstance(request, Append) else 0
        if appended and self._env.feed.has_workers:
            self._due = now + _APPEND_SECONDS

        def start() -> PendingCall:
            if not self._publish_checked:
                self._env.stream.check_publish(self._env.wall())
                self._publish_checked = True
            return self._env.stream.start(request)

        return self._start(start, _Request(sequencer, request, self._env.reserves), appended)

    def _start(
        self, start: Callable[[], PendingCall], request: _Request | _LookAround | None, appended: int = 0
    ) -> _Waiting | None:
        """Send something; return None if that is not possible."""
        calls: list[PendingCall] = []
        if self.attempt(lambda: calls.append(start())):
            return _Waiting(calls[0], request, appended)
        self._failed(request, is_append=appended > 0)
        return None

    def _failed(self, request: _Request | _LookAround | None, *, is_append: bool) -> None:
        self._append_refused = self._append_refused or is_append
        if request:
            request.on_failure(self._env.monotonic())
        else:
            self.beat_soon()
