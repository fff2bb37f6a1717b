"""Which listeners of a deployment hold a PostgreSQL session: rules 16 to 18 of docs/numbering.md.

It decides and does no I/O: it says what to look at in the registry (`to_redis`), and is told what was found
(`on_answer`). Times are seconds on any monotonic clock.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

HOLDING = frozenset({"primary", "standby", "unaligned", "waiting"})  # the roles of those that hold a session
_ALIGNED = HOLDING - {"unaligned"}
RESERVE = "reserve"  # the role of one that does not, because enough others do

LOOK_SECONDS = 2.5  # between two looks at those that hold a session
CLOSE_LOOK_SECONDS = 1.0  # the same while there are too few of them, or too many, or one is silent
_SURVEY_SECONDS = 10.0  # between two searches for listeners, of one that needs to know all
STILL_SECONDS = 4.0  # after which a listener whose heartbeats stand still is gone
_FRESH_SECONDS = 2.0  # within which the heartbeats of those must have gone on for whom one steps back
STEADY_SECONDS = 5.0  # for which there have to be too many until one steps back
TURN_SECONDS = 3.0  # for which some reserves may try to take a place, before the next ones may

FIELDS = (
    *("state", "role", "passive", "unreachable", "beats", "started", "pod", "program"),
    *("channels", "slot", "database"),
)


class Look(NamedTuple):
    """What to read of the registry."""

    cursor: int | None  # from where to go on searching for listeners; None for no search
    keys: tuple[str, ...]  # of the hashes to read


class Looked(NamedTuple):
    """What was found."""

    cursor: int  # from where to go on; 0 at the end
    found: frozenset[str]  # keys of listeners
    listeners: Mapping[str, Mapping[str, str]]  # by key: those of `FIELDS` that a hash has, if it exists


class Group(NamedTuple):
    """What listeners have in common that can take each other's place."""

    channels: str
    slot: str
    database: str


def in_order(channels: str) -> str:
    """A hash's list of channels, sorted: listeners that hear the same may have them in another order."""
    try:
        return json.dumps(sorted(json.loads(channels)), ensure_ascii=False)
    except (ValueError, TypeError):
        return channels


class Own(NamedTuple):
    """This process, as the registry shows it."""

    key: str
    pod: str
    program: str
    started: float  # Unix seconds
    group: Group


@dataclass
class _Other:
    """Another listener, as its hash showed it last."""

    key: str
    fields: Mapping[str, str] = field(default_factory=dict)
    is_read: bool = False
    has_moved: bool = False  # a heartbeat has been seen to follow another
    still_for: float = 0.0  # seconds in which Redis was looked at, since a new heartbeat was seen

    def saw(self, fields: Mapping[str, str] | None) -> None:
        """Take what a look found; None for a hash that is missing, which was wiped, or has expired."""
        if fields is not None and (not self.is_read or fields.get("beats") != self.fields.get("beats")):
            self.has_moved, self.still_for = self.is_read, 0.0
        self.fields, self.is_read = self.fields if fields is None else fields, True

    @property
    def is_alive(self) -> bool:
        """Whether its heartbeats go on."""
        return self.fields.get("state") == "running" and self.still_for < STILL_SECONDS

    @property
    def role(self) -> str:
        """What it does."""
        return self.fields.get("role", "")

    @property
    def holds(self) -> bool:
        """Whether it holds a session, not of another cluster or a copy (rule 6), nor one that is cut off."""
        is_ours = self.role == "waiting" or not self.fields.get("passive")
        is_of_use = is_ours and not self.fields.get("unreachable")
        return self.role in HOLDING and is_of_use and self.fields.get("state") == "running"

    @property
    def age(self) -> tuple[float, str]:
        """Sorts listeners, the oldest first."""
        try:
            return float(self.fields.get("started", "")), self.key
        except ValueError:
            return 0.0, self.key


class Reserves:
    """Decides for one listener whether it holds a session.

    Args:
        most: how many listeners hold one.
        own: this process.
    """

    def __init__(self, most: int, own: Own) -> None:
        self._most, self._own = most, own
        self._others: dict[str, _Other] = {}
        self._cursor: int | None = 0  # of the search for listeners; None between two searches
        self._searched_at: float | None = None  # when the last one ended
        self._next_look = 0.0
        self._looked_at: float | None = None  # None if Redis has not answered since
        self._missing_since: float | None = None  # since when there are too few, but for a short time
        self._full_since: float | None = None
        self._staying: frozenset[str] = frozenset()  # the older ones that are enough
        self._crowded_for = 0.0  # for how long they have been
        self.may_join = False  # it may open a session
        self.has_to_leave = False  # it has to close its session
        self.is_full = False  # others hold as many as there may be

    # Redis.

    def to_redis(self, now: float, role: str) -> Look | None:
        """What to read next, if anything; `role` is this listener's."""
        if now < self._next_look:
            return None
        is_missing = self._missing_since is not None
        watched = [key for key, other in self._others.items() if other.holds or not other.is_read]
        # Who has nobody to watch looks for some.
        if self._cursor is None and (not watched or (self._is_search_due(now) and (role in HOLDING or is_missing))):
            self._cursor = 0
        reads_all = self._cursor == 0 or is_missing
        return Look(self._cursor, tuple(self._others) if reads_all else tuple(watched))

    def on_redis_failure(self, now: float) -> None:
        """Record that Redis did not answer: nobody could send a heartbeat. What was decided stays (rule 18)."""
        self._looked_at, self._crowded_for = None, 0.0
        self._next_look = now + CLOSE_LOOK_SECONDS

    def on_answer(self, look: Look, looked: Looked, now: float, role: str) -> None:
        """Take what a look found, and decide; `role` is this listener's."""
        # While this process is frozen it does not look, and perhaps nobody can send a heartbeat.
        elapsed = 0.0 if self._looked_at is None else min(now - self._looked_at, LOOK_SECONDS)
        self._looked_at = now
        for other in self._others.values():
            other.still_for += elapsed
        for key in look.keys:
            self._others[key].saw(looked.listeners.get(key))
            if key not in looked.listeners and not self._others[key].is_alive:
                del self._others[key]
        for key in looked.found - self._others.keys() - {self._own.key}:
            self._others[key] = _Other(key)
        if look.cursor is not None:
            self._cursor = looked.cursor or None
            self._searched_at = self._searched_at if looked.cursor else now
        # The first search has to end. A later one goes on at each look, because there may be any number of other keys.
        if self._searched_at is not None and all(other.is_read for other in self._others.values()):
            self._decide(elapsed, now, role, knows_all=self._others.keys() <= set(look.keys))
        else:
            self._next_look = now

    def _is_search_due(self, now: float) -> bool:
        return self._searched_at is not None and now - self._searched_at >= _SURVEY_SECONDS

    # The decision.

    def _decide(self, elapsed: float, now: float, role: str, *, knows_all: bool) -> None:
        alive = [other for other in self._others.values() if self._counts(other)]
        holders = [other for other in alive if other.holds]
        if role in HOLDING:
            self._missing_since, self.is_full, self.may_join = None, False, True
            self._decide_to_leave(holders, elapsed, role)
        else:
            waiting = [other.age for other in alive if other.role not in HOLDING]
            self._staying, self.has_to_leave = frozenset(), False
            if not self._decide_to_join(self._most - len(holders), waiting, now, knows_all=knows_all):
                self._next_look = now
                return
        is_unsteady = self._missing_since is not None or self._staying or any(other.still_for for other in holders)
        self._next_look = now + (CLOSE_LOOK_SECONDS if is_unsteady else LOOK_SECONDS)

    def _counts(self, other: _Other) -> bool:
        """Rule 16: whether it is alive, and hears what this one would hear.

        A process of this one's name is its predecessor, unless its heartbeats are seen to go on. Versions before this
        one do not say of which database they hear.
        """
        get, own = other.fields.get, self._own
        theirs = Group(in_order(get("channels", "")), get("slot", ""), get("database", own.group.database))
        is_predecessor = (get("pod"), get("program")) == (own.pod, own.program) and not other.has_moved
        return other.is_alive and theirs == own.group and not is_predecessor

    def _decide_to_join(
        self, missing: int, waiting: Iterable[tuple[float, str]], now: float, *, knows_all: bool
    ) -> bool:
        """Rule 17: so many of those without a session as are missing may try at a time, the oldest first.

        Return whether that could be decided: it takes a look at all of them.
        """
        self.is_full = missing <= 0
        if self.is_full:
            self.may_join = False
            self._full_since = now if self._full_since is None else self._full_since
            # Not at once: one whose sessions end soon after they were opened has had its turn.
            if now - self._full_since >= STEADY_SECONDS:
                self._missing_since = None
            return True
        self._full_since = None
        if self._missing_since is None:
            self._missing_since = now
        if not knows_all:
            return False
        queue = sorted([*waiting, self._age])
        turn = int((now - self._missing_since) / TURN_SECONDS)
        self.may_join = (queue.index(self._age) - turn * missing) % len(queue) < missing
        return True

    def _decide_to_leave(self, holders: Iterable[_Other], elapsed: float, role: str) -> None:
        """Rule 18: this one leaves if enough older ones have been aligned for some time.

        The reader of a slot counts as older than those that wait for it.
        """
        mine = role == "waiting", *self._age
        ranks = {(other.role == "waiting", *other.age): other for other in holders if other.role in _ALIGNED}
        older = [ranks[rank] for rank in sorted(ranks) if rank < mine][: self._most]
        is_crowded = (
            role in _ALIGNED and len(older) == self._most and all(each.still_for < _FRESH_SECONDS for each in older)
        )
        staying = frozenset(each.key for each in older) if is_crowded else frozenset()
        # Looks are closer than that meanwhile, unless this process was frozen.
        goes_on = staying == self._staying and elapsed < 2 * CLOSE_LOOK_SECONDS
        self._crowded_for = self._crowded_for + elapsed if goes_on else 0.0
        self._staying = staying
        self.has_to_leave = is_crowded and self._crowded_for >= STEADY_SECONDS

    @property
    def sees_another(self) -> bool:
        """Whether another one that holds a session is alive, as the looks have shown it."""
        return any(self._counts(other) and other.holds for other in self._others.values())

    @property
    def is_reserve(self) -> bool:
        """Whether others hold enough sessions, or are to try first."""
        return not self.may_join and (self.is_full or self._missing_since is not None)

    @property
    def _age(self) -> tuple[float, str]:
        return self._own.started, self._own.key

    def on_refusal(self, now: float) -> None:
        """Record that Redis refuses the look: who knows nothing of the others joins. Ids make copies equal."""
        self.may_join, self.has_to_leave, self.is_full, self._missing_since = True, False, False, None
        self._staying, self._looked_at = frozenset(), None
        self._others.clear()
        self._next_look = now + _SURVEY_SECONDS

    def left(self) -> None:
        """Record that the session was closed because others hold enough."""
        self.may_join, self.has_to_leave, self.is_full, self._staying = False, False, True, frozenset()
