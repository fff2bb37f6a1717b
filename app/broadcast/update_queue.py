"""The updates of one topic that wait for queries, in commit order."""

from collections import OrderedDict
from collections.abc import Collection, Sequence

from app.broadcast.messages import Update
from app.broadcast.queried_update import QueriedUpdate
from app.broadcast.topic import Topic

MAX_UPDATES = 1000
# A newer update is not merged with one that has waited this long: the row of one that is never still would never be
# shown while other queries are before it.
_MERGE_SECONDS = 0.25

Key = tuple[str, tuple[Topic, ...], tuple[tuple[str, str | None], ...]]


def merge_key(update: QueriedUpdate) -> Key:
    """Return what two updates have in common that ask for the same, for the same clients."""
    return update.channel, update.topics, update.parameters


class UpdateQueue:
    """Holds updates until all before them are done.

    A newer update covers one that asks for the same and whose query has not begun: that query sees the newest state
    anyway. The older one leaves the queue, so the ids of what is sent only rise.
    """

    def __init__(self) -> None:
        self._updates: OrderedDict[int, Update] = OrderedDict()  # by serial number
        self._newest: dict[Key, QueriedUpdate] = {}  # those in `_updates` that may still be covered
        self._done: set[int] = set()  # of those with a query, by serial number
        self.running: QueriedUpdate | None = None  # always the first in the queue

    def __len__(self) -> int:
        return len(self._updates)

    @property
    def first(self) -> Update:
        """The first update; there is one."""
        return next(iter(self._updates.values()))

    def precedes(self, update: Update) -> bool:
        """Whether an update comes before all that are here; it may be a copy that was read from the stream."""
        first = self.first
        if update.serial:
            return update.serial < first.serial
        return update.parsed_id is None or first.parsed_id is None or update.parsed_id < first.parsed_id

    def put(self, updates: Sequence[Update], now: float) -> int:
        """Add the newest updates; return how many older ones they cover.

        Args:
            updates: in order.
            now: on the monotonic clock.
        """
        covered = 0
        for update in updates:
            if isinstance(update, QueriedUpdate):
                covered += self._cover_older(update, now)
            self._updates[update.serial] = update
        return covered

    def _cover_older(self, update: QueriedUpdate, now: float) -> bool:
        key = merge_key(update)
        older, self._newest[key] = self._newest.get(key), update
        if older is None or now - older.heard_at >= _MERGE_SECONDS:
            update.heard_at = now
            return False
        del self._updates[older.serial]
        older.is_covered = True
        update.heard_at = older.heard_at
        return True

    def is_done(self, update: Update) -> bool:
        """Whether an update needs no query, or not any more. One of several topics is in several queues."""
        if not isinstance(update, QueriedUpdate):
            return True
        return update.serial in self._done or update.serial not in self._updates

    def finish(self, update: QueriedUpdate) -> None:
        """Let an update be taken, if it is here: its query has run for all clients."""
        if update.serial in self._updates:
            self._done.add(update.serial)

    def take_done(self) -> list[Update]:
        """Remove and return the updates up to the first whose query is not done."""
        done: list[Update] = []
        while self._updates and (update := next(iter(self._updates.values()))) and self.is_done(update):
            del self._updates[update.serial]
            self._done.discard(update.serial)
            if update is self.running:
                self.running = None
            done.append(update)
        return done

    def begin(self) -> QueriedUpdate | None:
        """Return the first update, whose query is to be run now; None if the queue is empty, or it runs already.

        To be called after `take_done`.
        """
        if self.running or not self._updates:
            return None
        update = next(iter(self._updates.values()))
        if not isinstance(update, QueriedUpdate):
            raise TypeError("the first update needs no query: call take_done first")
        self.running = update
        key = merge_key(update)
        if self._newest.get(key) is update:
            del self._newest[key]
        return update

    def fail_all(self, error: str, groups: Collection[str]) -> None:
        """Let everything go out without its queries' results, for clients with these claims."""
        for update in self._updates.values():
            if isinstance(update, QueriedUpdate):
                for claims in groups:
                    if not update.is_fetched_for(claims):
                        update.fail(claims, error)
                self.finish(update)
        self._newest.clear()


def merged(updates: Sequence[Update], claims: str) -> list[Update]:
    """Return the updates without those whose query has not run for these claims and is asked again by a later one."""
    newest_first: list[Update] = []
    seen: set[Key] = set()
    for update in reversed(updates):
        if isinstance(update, QueriedUpdate) and not update.is_fetched_for(claims):
            if (key := merge_key(update)) in seen:
                continue
            seen.add(key)
        newest_first.append(update)
    return newest_first[::-1]
