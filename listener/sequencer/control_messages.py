"""The messages that listeners send each other on our own channel in PostgreSQL: marker, begin and canary."""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from app.core.canary import Canary
from listener.sequencer.process_state import ProcessState
from notifymux.event import EventId

_REPEAT_SECONDS = 1.0  # after a message's query failed
JITTER_MS = 1000  # of an epoch; below the takeover timeout, so that of two begins that far apart the later is higher


class Marker(NamedTuple):
    """Marks a position in PostgreSQL's order; the sender finds its ids by the marker's id in the stream (rule 2)."""

    token: str
    fingerprint: str


class Begin(NamedTuple):
    """Begins an epoch (rule 5): PostgreSQL's clock in milliseconds, or `floor` if that is higher, plus `jitter`.

    The jitter keeps two listeners from choosing the same epoch in the same millisecond, or while PostgreSQL's clock is
    behind. `previous` is the sender's position in the stream.
    """

    token: str
    fingerprint: str
    floor: int
    jitter: int
    previous: str
    why: str


@dataclass(frozen=True)
class TakeSnapshot:
    """Notifies nobody: it asks which transactions are finished."""


@dataclass(frozen=True)
class InspectSlot:
    """Notifies nobody: it asks who reads the slot, and what it keeps back. Others see by it that the session lives."""


ControlMessage = Marker | Begin | Canary | TakeSnapshot | InspectSlot


class ReceivedControl(Canary, frozen=True):
    """A control message as it is received: one of `canary`, `marker` and `begin` (the new epoch) is set."""

    marker: str | None = None
    begin: int | None = None
    floor: int = 0
    by: str = ""  # a begin's token
    fingerprint: str = ""
    previous: str = ""
    why: str = ""

    @property
    def token(self) -> str:
        """The message's token; empty if no listener sent it."""
        return self.marker or self.canary or self.by


_decoder = msgspec.json.Decoder(ReceivedControl)


def parse(payload: bytes) -> ReceivedControl:
    """Decode a payload of our own channel; one that no listener sent yields a message without fields."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ReceivedControl()


class ControlChannel:
    """The messages of one PostgreSQL session to all listeners, itself included.

    Args:
        session_id: unlike any other session's; the token of every message begins with it.
        process: this listener's.
    """

    def __init__(self, session_id: str, process: ProcessState) -> None:
        self._session_id, self._process = session_id, process
        self._tokens = 0
        self._queue: deque[ControlMessage] = deque()
        self._awaited: ControlMessage | None = None  # sent, and has not come back
        self._failed = False  # the query of the queue's first message failed
        self._repeat_at = 0.0  # then it is sent again
        self._next_canary: float | None = None  # due then; None until the first message came back

    def send_marker(self) -> str:
        """Queue a marker and return its token."""
        token = self._new_token()
        self._queue.append(Marker(token, self._process.fingerprint))
        return token

    def send_canary(self) -> str:
        """Queue a canary and return its token."""
        token = self._new_token()
        self._queue.append(Canary(token))
        return token

    def send_begin(self, previous: EventId, why: str) -> None:
        """Queue a begin of an epoch above all that this process has seen (rule 5)."""
        process, token = self._process, self._new_token()
        jitter = process.rng.randrange(JITTER_MS)
        self._queue.append(Begin(token, process.fingerprint, process.highest_epoch + 1, jitter, str(previous), why))

    def _new_token(self) -> str:
        self._tokens += 1
        return f"{self._session_id}.{self._tokens}"

    def is_own(self, message: ReceivedControl) -> bool:
        """Whether this session sent a message."""
        return message.token.startswith(self._session_id)

    def next_message(self, now: float) -> ControlMessage | None:
        """The next message to send, if any; a canary is added when it is due."""
        if self._next_canary is not None and now >= self._next_canary and not self._queue:
            self._next_canary = now + self._process.canary_interval
            self.send_canary()
        if not self._queue or now < self._repeat_at:
            return None
        self._awaited = self._queue.popleft()
        return self._awaited

    def on_own_message(self, now: float) -> None:
        """Record that one of this session's messages came back."""
        self._awaited, self._failed = None, False
        if self._next_canary is None:
            self._next_canary = now + self._process.canary_interval

    def on_query_failure(self, now: float) -> None:
        """Record that the query of the last message failed: it notified nobody, and is sent again."""
        if self._awaited:
            self._queue.appendleft(self._awaited)
            self._awaited, self._failed, self._repeat_at = None, True, now + _REPEAT_SECONDS

    @property
    def awaits_own_message(self) -> bool:
        """Whether the message sent last has not come back."""
        return self._awaited is not None

    @property
    def is_verified(self) -> bool:
        """Whether the messages of this session come back, so that LISTEN works on it."""
        return self._next_canary is not None and not self._failed
