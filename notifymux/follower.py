"""Follow the events: every event once and in order, or a gap. `RedisNotifierService` is at most once, this is not."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing
from dataclasses import dataclass

from notifymux.event import MUX_CHANNEL, Event, EventId
from notifymux.redis_client import RedisAddress
from notifymux.redis_keys import DEFAULT_NAMESPACE, RedisNames
from notifymux.redis_url import RedisUrlError, parse_redis_url
from notifymux.sequence_tracker import NOTHING, Gap, GapReason, SequenceTracker
from notifymux.stream_follower import Start, StreamFollower
from notifymux.subscription import SILENCE_SECONDS, Subscription

logger = logging.getLogger(__name__)

_MAX_HALF = 2**63  # of an id; Redis's own ids end at 2**64


@dataclass
class _Place:
    """Where a follower is. The generator moves it and has no reference to the follower, so `break` ends both."""

    position: str | None


class Follower(AsyncIterator[Event | Gap]):
    """The events and gaps that `follow` yields. One task may iterate it."""

    def __init__(self, items: AsyncGenerator[Event | Gap, None], place: _Place) -> None:
        self._items, self._place = items, place

    @property
    def position(self) -> str | None:
        """The id to pass as `after` to go on from here; None before the first item, if there was no `after`.

        It moves over an item when the next one is asked for, so an item that was being handled when the program ended
        comes again. It also moves over the events of other channels.
        """
        return self._place.position

    async def __anext__(self) -> Event | Gap:
        """Wait for the next event or gap. A wait that is cancelled ends the iteration."""
        return await anext(self._items)

    async def aclose(self) -> None:
        """End the iteration and close the connections to Redis."""
        await self._items.aclose()


def follow(
    url: str,
    *,
    after: str | None = None,
    channels: Collection[str] | None = None,
    namespace: str = DEFAULT_NAMESPACE,
) -> Follower:
    """Return an asynchronous iterator over events, each once and in commit order, and gaps.

    A `Gap` says that events before the next ones may be missing: whoever keeps a state loads it anew. The first item is
    a gap, unless `after` is given and nothing is missing since. Redis may be away; it is waited for.

    While the caller handles an item nothing is received. A caller that is slow reads from the stream later, and gets a
    gap if the stream has lost its place by then.

    Args:
        url: as `REDIS_URL`.
        after: the `position` of an earlier follower; `0-0` is before all that the stream holds. None is the stream's
            end.
        channels: of the events that are yielded; None for all. Gaps come whatever the channel.
        namespace: `REDIS_NAMESPACE` of the listener.

    Raises:
        RedisUrlError: the URL is none. It is a ValueError.
        ValueError: `after` is no id, or `channels` is empty.
        TypeError: `channels` is a text.
    """
    try:
        parse_redis_url(url)
    except RedisUrlError as error:
        raise RedisUrlError(f"the URL of Redis can't be used: {error}") from None
    if isinstance(channels, str):
        raise TypeError("channels is a text; it takes a collection of names")
    if channels is not None and not channels:
        raise ValueError("channels is empty; leave it out for the events of all channels")
    tracker = SequenceTracker()
    if after is not None:
        tracker.start(_parse_id(after))
    place = _Place(after)
    return Follower(_follow(url, RedisNames(namespace), tracker, channels and frozenset(channels), place), place)


def _parse_id(text: str) -> EventId:
    found = EventId.parse(text)
    if max(found) >= _MAX_HALF:
        raise ValueError(f"{text!r} is not an event id")
    return found


async def _follow(
    url: str, names: RedisNames, tracker: SequenceTracker, channels: Collection[str] | None, place: _Place
) -> AsyncGenerator[Event | Gap, None]:
    subscription = Subscription(RedisAddress(url, names.log), [names.events], SILENCE_SECONDS)
    try:
        async with aclosing(StreamFollower(subscription, names, tracker).items()) as items:
            async for item in items:
                if isinstance(item, list):
                    for event in item:
                        if event.id is None:
                            continue  # it was published and is not in the stream
                        if event.channel != MUX_CHANNEL and (channels is None or event.channel in channels):
                            yield event
                        place.position = event.id
                elif isinstance(item, Gap):
                    yield item
                    place.position = str(item.position)
                elif isinstance(item, Start):
                    if item.position == NOTHING:
                        logger.warning("the stream %s is empty: no listener has written to it yet", names.log)
                    yield Gap(item.position, GapReason.SESSION)
                    place.position = str(item.position)
    finally:
        await subscription.close()
        await subscription.client.aclose()
