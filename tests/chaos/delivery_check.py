"""Who heard what, against the order in which it was committed. Pure: what is judged is given, nothing is running."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Token(NamedTuple):
    """One event's name, which only one event ever has."""

    writer: int
    serial: int


class Seen(NamedTuple):
    """What a client heard: an event under an id, or, without a token, a `resync`."""

    token: Token | None
    id: str


@dataclass
class Verdict:
    """What became of the promises at one client, or, summed, at all."""

    heard: int = 0
    lost: int = 0
    announced: int = 0  # missing, with a `resync` between
    repeated: int = 0
    disordered: int = 0
    resyncs: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Verdict") -> None:
        self.heard += other.heard
        self.lost += other.lost
        self.announced += other.announced
        self.repeated += other.repeated
        self.disordered += other.disordered
        self.resyncs = max(self.resyncs, other.resyncs)
        self.wrong += other.wrong


class Rank(NamedTuple):
    """A place in the order. What was committed just before PostgreSQL died, and nobody heard, has its life's last."""

    life: int
    place: float


UNHEARD = float("inf")


class DeliveryLog:
    """The order of one match's events.

    Args:
        lives: what was heard, in commit order, in each of PostgreSQL's lives.
        unheard: what was committed but not heard before PostgreSQL died, with the life.
        uncertain: what may have been committed, for PostgreSQL died meanwhile; the same.
    """

    def __init__(
        self,
        lives: Sequence[Sequence[Token]],
        unheard: Mapping[Token, int] | None = None,
        uncertain: Mapping[Token, int] | None = None,
    ) -> None:
        self._ranks = {token: Rank(life, UNHEARD) for token, life in (uncertain or {}).items()}
        due = {token: Rank(life, UNHEARD) for token, life in (unheard or {}).items()}
        due |= {token: Rank(life, place) for life, tokens in enumerate(lives) for place, token in enumerate(tokens)}
        self._ranks |= due
        self._due = sorted((rank, token) for token, rank in due.items())

    def judge(self, name: str, seen: Iterable[Seen]) -> Verdict:
        """One client's part, which was connected from before the first event until after the last."""
        return _Trial(name, self._ranks, self._due).run(seen)


class _Trial:
    """One client's messages, one after the other."""

    def __init__(self, name: str, ranks: Mapping[Token, Rank], due: Sequence[tuple[Rank, Token]]) -> None:
        self._name, self._ranks, self._due = name, ranks, due
        self._verdict = Verdict()
        self._had: set[Token] = set()
        self._last, self._last_id = Rank(-1, -1), (0, 0)
        self._at = 0
        self._broken = False  # a `resync` stands since the last event

    def run(self, seen: Iterable[Seen]) -> Verdict:
        for token, event_id in seen:
            if token is None:
                self._verdict.resyncs += 1
                self._broken = True
            else:
                self._verdict.heard += 1
                self._hear(token, event_id)
        self._count_missing(Rank(self._due[-1][0].life + 1, 0) if self._due else Rank(0, 0))
        return self._verdict

    def _hear(self, token: Token, event_id: str) -> None:
        rank = self._ranks.get(token)
        if rank is None:
            self._verdict.wrong.append(f"{self._name} heard {token} under {event_id}, which was never committed")
        elif token in self._had:
            self._verdict.repeated += 1
            self._verdict.wrong.append(f"{self._name} heard {token} again, under {event_id}")
        elif rank < self._last:
            self._verdict.disordered += 1
            self._verdict.wrong.append(f"{self._name} heard {token} under {event_id} after {self._last}")
        else:
            self._count_missing(rank)
            self._check_id(event_id)
            self._had.add(token)
            self._last, self._broken = rank, False

    def _check_id(self, event_id: str) -> None:
        epoch, _, sequence = event_id.partition("-")
        number = (int(epoch), int(sequence))
        if number <= self._last_id:
            self._verdict.wrong.append(f"{self._name} heard {event_id} after {self._last_id}")
        self._last_id = number

    def _count_missing(self, before: Rank) -> None:
        while self._at < len(self._due) and self._due[self._at][0] < before:
            token = self._due[self._at][1]
            if token not in self._had:
                self._verdict.announced += self._broken
                self._verdict.lost += not self._broken
                if not self._broken and self._verdict.lost < 5:
                    self._verdict.wrong.append(f"{self._name} missed {token} before {before}")
            self._at += 1


def two_names(all_seen: Iterable[Iterable[Seen]]) -> list[str]:
    """Ids that name two events, and events that have two ids, among all clients."""
    events: dict[str, Token] = {}
    ids: dict[Token, str] = {}
    wrong: Counter[str] = Counter()
    for seen in all_seen:
        for token, event_id in seen:
            if token is not None and events.setdefault(event_id, token) != token:
                wrong[f"{event_id} is {token} and {events[event_id]}"] += 1
            if token is not None and ids.setdefault(token, event_id) != event_id:
                wrong[f"{token} is under {event_id} and {ids[token]}"] += 1
    return list(wrong)
