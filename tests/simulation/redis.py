"""Redis as far as listeners and workers can see it: the stream, the messages published, and the listeners' registry."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from math import inf
from typing import Any, NamedTuple

from listener.sequencer.redis_requests import Append, AppendResult, AppendStatus, StreamEntry
from listener.sequencer.wal_place import place_of
from notifymux.event import EventId
from tests.simulation.violation import Violation

NOTHING = EventId(0, 0)
DAY_MS = 24 * 3600 * 1000


class Mark(NamedTuple):
    """How many bytes of texts were appended up to an entry."""

    id: EventId
    bytes: int


class Redis:
    """One master.

    Args:
        clock: Unix seconds.
        max_bytes: of the stream's texts, STREAM_MAXBYTES.
    """

    def __init__(self, clock: Callable[[], float], max_bytes: float = inf) -> None:
        self.clock, self.max_bytes = clock, max_bytes
        self.counted = Mark(NOTHING, 0)  # up to the entry that was appended last
        self.marks: list[Mark] = []
        self.up = True
        self.refusal = ""  # what it answers instead of performing requests; empty if it performs them
        self.entries: list[StreamEntry] = []
        self.published: list[bytes] = []
        self.hashes: dict[str, dict[str, str]] = {}
        self.versions: defaultdict[str, deque[tuple[float, dict[str, str]]]] = defaultdict(lambda: deque(maxlen=50))
        self.expires: dict[str, float] = {}
        self.highest = NOTHING  # ever appended
        self.since: dict[EventId, float] = {}  # when each entry was added

    def copy(self, entries: int) -> "Redis":
        """Another master that has only the first `entries` entries, and the hashes of then: a replica that lagged."""
        other = Redis(self.clock)
        other.entries = self.entries[:entries]
        until = self.since[self.entries[entries].id] if entries < len(self.entries) else self.clock()
        for key in self.hashes:
            versions = [fields for at, fields in self.versions[key] if at < until or until == self.clock()]
            if versions:
                other.hashes[key] = dict(versions[-1])
        other.expires = {key: at for key, at in self.expires.items() if key in other.hashes}
        other.since = dict(self.since)
        return other

    def wipe(self) -> None:
        self.entries, self.hashes, self.expires = [], {}, {}

    @property
    def head(self) -> EventId | None:
        return self.entries[-1].id if self.entries else None

    def append(self, request: Append) -> AppendResult:
        """As `append.lua` does; tests/integration/test_append.py compares the two."""
        head = self.head or NOTHING
        epoch, first = request.first
        if head.epoch > epoch:
            if head.epoch <= max(epoch, int(self.clock()) * 1000) + DAY_MS:
                return AppendResult(AppendStatus.SUPERSEDED, head, 0)
            self.entries, head = [], NOTHING
        skip = 0
        if head.epoch == epoch:
            if first > head.sequence + 1:
                return AppendResult(AppendStatus.GAP, head, 0)
            skip = min(head.sequence - first + 1, len(request.texts))
            if request.after and not self._follows(request, skip):
                return AppendResult(AppendStatus.GAP, head, 0)
        elif first != 1 and not request.restore:
            return AppendResult(AppendStatus.BEHIND, head, 0)
        keep = self._count(request.texts[skip:])
        for offset in range(skip, len(request.texts)):
            self.add(StreamEntry(EventId(epoch, first + offset), request.texts[offset]), publish=not request.restore)
        if self.head:
            self.counted = self.counted._replace(id=self.head)
        if keep > NOTHING:
            self.entries = [entry for entry in self.entries if entry.id >= keep]
        return AppendResult(AppendStatus.OK, self.head or NOTHING, len(request.texts) - skip)

    def _count(self, texts: list[bytes]) -> EventId:
        """Count bytes that are about to be appended; return the first entry that is kept."""
        if not texts:
            return NOTHING
        head, keep = self.head or NOTHING, NOTHING
        if self.counted.id != head or not self.marks:
            self.counted, self.marks = Mark(head, 0), [Mark(head, 0)]
        elif self.counted.bytes - self.marks[-1].bytes >= self.max_bytes / 16:
            after = self.counted.bytes + sum(map(len, texts))
            kept = [mark for mark in self.marks if after - mark.bytes <= self.max_bytes * 15 / 16]
            is_dropped = len(kept) < len(self.marks)
            self.marks = [*kept, self.counted]
            keep = self.marks[0].id if is_dropped else NOTHING
        self.counted = Mark(head, self.counted.bytes + sum(map(len, texts)))
        return keep

    def _follows(self, request: Append, skip: int) -> bool:
        """Whether the head is the entry that a reader of the WAL follows, or the same of what it appends."""
        if self.entries[-1].id.sequence != request.first.sequence + skip - 1:
            return True
        expected = place_of(request.texts[skip - 1]) if skip else request.after
        return place_of(self.entries[-1].text) == expected

    def add(self, entry: StreamEntry, *, publish: bool) -> None:
        """XADD, which refuses an id that is not above the last one, and PUBLISH."""
        if self.head and entry.id <= self.head:
            raise Violation(f"Redis refuses {entry.id} after {self.head}")
        self.entries.append(entry)
        self.since[entry.id] = self.clock()
        self.highest = max(self.highest, entry.id)
        if publish:
            self.published.append(entry.text)

    def after(self, position: EventId, limit: int) -> list[StreamEntry]:
        low, high = 0, len(self.entries)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.entries[middle].id <= position else (low, middle)
        return self.entries[low : low + limit]

    def expire(self) -> None:
        for key in [key for key, at in self.expires.items() if at <= self.clock()]:
            del self.expires[key], self.hashes[key]


class RegistryClient:
    """The commands of redis-py's client that `listener.registry` uses.

    Args:
        request: performs something on the master that the client is connected to, or fails; the second argument tells
            whether it writes.
    """

    def __init__(self, request: Callable[[Callable[[Redis], Any], bool], Any]) -> None:
        self._request = request

    def scan_iter(self, match: str, count: int) -> Iterator[bytes]:
        def scan(redis: Redis) -> list[bytes]:
            redis.expire()
            return [key.encode() for key in redis.hashes if fnmatchcase(key, match)]

        return iter(self._request(scan, False))

    def pipeline(self, *, transaction: bool) -> "RegistryPipeline":
        return RegistryPipeline(self._request)


class RegistryPipeline:
    """Queues commands and performs them together."""

    def __init__(self, request: Callable[[Callable[[Redis], Any], bool], Any]) -> None:
        self._request = request
        self._commands: list[Callable[[Redis], Any]] = []
        self._writes = False

    def hset(self, key: str, mapping: Mapping[str, str | int]) -> None:
        fields = {name: str(value) for name, value in mapping.items()}

        def command(redis: Redis) -> int:
            known = redis.hashes.setdefault(key, {})
            new = len(fields.keys() - known.keys())
            known.update(fields)
            redis.versions[key].append((redis.clock(), dict(known)))
            return new

        self._write(command)

    def pexpire(self, key: str, milliseconds: int) -> None:
        self._write(lambda redis: redis.expires.__setitem__(key, redis.clock() + milliseconds / 1000))

    def xadd(self, *_: Any, **__: Any) -> None:
        self._write(lambda _: b"0-1")  # the incident log is for people

    def pttl(self, key: str) -> None:
        def command(redis: Redis) -> int:
            at = redis.expires.get(key)
            return -2 if at is None else int((at - redis.clock()) * 1000)

        self._commands.append(command)

    def hmget(self, key: str, names: tuple[str, ...]) -> None:
        def command(redis: Redis) -> list[bytes | None]:
            fields = redis.hashes.get(key, {})
            return [fields[name].encode() if name in fields else None for name in names]

        self._commands.append(command)

    def scan(self, _cursor: int, match: str, count: int) -> None:
        def command(redis: Redis) -> tuple[int, list[bytes]]:
            return 0, [key.encode() for key in redis.hashes if fnmatchcase(key, match)]

        self._commands.append(command)

    @property
    def is_empty(self) -> bool:
        return not self._commands

    def execute(self) -> list[Any]:
        def perform(redis: Redis) -> list[Any]:
            redis.expire()
            return [command(redis) for command in self._commands]

        answers: list[Any] = self._request(perform, self._writes)
        return answers

    def _write(self, command: Callable[[Redis], Any]) -> None:
        self._writes = True
        self._commands.append(command)
