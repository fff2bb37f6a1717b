"""The events that no client hears, because their payload names no topic: counted by channel and cause.

The first of each channel and cause is logged. Any program may publish on any channel, so the channels are bounded.
"""

import json
import logging
from collections import Counter
from enum import StrEnum
from typing import NamedTuple

import msgspec

from app.broadcast.router import Router
from app.core.canary import is_verification
from notifymux.event import MUX_CHANNEL, NULL, Event

logger = logging.getLogger(__name__)

OTHER_CHANNELS = "(other channels)"  # counts for every channel after the first ones
_MAX_CHANNELS = 20
_MAX_CHANNEL_CHARACTERS = 63  # PostgreSQL has no longer ones, unlike who publishes directly
_HALF_PAIR = "half of a surrogate pair, such as \\ud800, is not Unicode"

_text_decoder = msgspec.json.Decoder(str)
_validator = msgspec.json.Decoder(msgspec.Raw)


class Cause(StrEnum):
    """Why a payload names no topic. Values are labels in the metrics."""

    EMPTY = "empty"
    TEXT = "text"
    NOT_AN_OBJECT = "not_an_object"
    NO_KEY = "no_key"
    NO_ID = "no_id"


class Unroutable(NamedTuple):
    """How many events of a channel no client heard, and why; `text` says it to people."""

    channel: str
    cause: Cause
    text: str
    events: int


class UnroutableEvents:
    """The counters of one worker. `router` is the one that found no topic."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._counts: Counter[tuple[str, Cause]] = Counter()
        self._channels: set[str] = set()

    def add(self, event: Event) -> None:
        """Count an event without a topic; those of the project itself are for no client."""
        payload = bytes(event.payload)
        if event.channel == MUX_CHANNEL or is_verification(payload):
            return
        cause, channel = self._cause(payload), event.channel
        if len(self._channels) < _MAX_CHANNELS and len(channel) <= _MAX_CHANNEL_CHARACTERS:
            self._channels.add(channel)
        key = channel if channel in self._channels else OTHER_CHANNELS, cause
        self._counts[key] += 1
        if self._counts[key] == 1:
            logger.warning(
                "no client hears an event on channel %r: %s%s; further ones of this kind are only counted",
                channel[:_MAX_CHANNEL_CHARACTERS],
                self._describe(cause),
                _detail(cause, payload),
            )

    def report(self) -> list[Unroutable]:
        """Return the counts, the largest first."""
        return [
            Unroutable(channel, cause, self._describe(cause), events)
            for (channel, cause), events in self._counts.most_common()
        ]

    def _cause(self, payload: bytes) -> Cause:
        if payload == NULL:
            return Cause.EMPTY
        if payload.startswith(b'"'):
            return Cause.TEXT
        if not payload.startswith(b"{"):
            return Cause.NOT_AN_OBJECT
        return Cause.NO_ID if self._router.has_key(payload) else Cause.NO_KEY

    def _describe(self, cause: Cause) -> str:
        key = " or ".join(map(repr, self._router.keys))
        match cause:
            case Cause.EMPTY:
                return "the payload is empty or null"
            case Cause.TEXT:
                return "the payload is text and not a JSON object"
            case Cause.NOT_AN_OBJECT:
                return "the payload is JSON and not an object"
            case Cause.NO_KEY:
                return f"the payload has no key {key} (ROUTING_KEY), or null there"
            case Cause.NO_ID:
                return f"the payload's value of {key} (ROUTING_KEY) can't be a match id"


def _detail(cause: Cause, payload: bytes) -> str:
    """Say where a text stops being JSON, for one that was meant to be."""
    if cause is not Cause.TEXT:
        return ""
    text = _text_decoder.decode(payload)
    try:
        _validator.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return f" ({_HALF_PAIR if _has_half_pair(text) else error})"
    return ""


def _has_half_pair(text: str) -> bool:
    """Whether JSON text is right but for half of a surrogate pair, of which msgspec says something else."""
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        pass
    return False
