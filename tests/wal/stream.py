"""What is in the stream, and writers that send messages."""

import json
import random
import threading
import time
from abc import ABC, abstractmethod
from contextlib import closing, suppress
from typing import Any, NamedTuple, Self

import psycopg

from listener.sequencer.wal_place import WalPlace
from notifymux.event import EventId, decode
from tests.conftest import RedisPlace
from tests.support.postgres_cluster import PostgresServer

CHANNEL = "match_change"
EMIT = "SELECT pg_logical_emit_message(true, 'notifymux:match_change', %s)"


class Entry(NamedTuple):
    id: EventId
    channel: str
    payload: Any
    place: WalPlace


class Stream:
    """The stream of one namespace."""

    def __init__(self, place: RedisPlace) -> None:
        self._place, self.key = place, f"{{{place.namespace}}}:log"

    def entries(self) -> list[Entry]:
        with closing(self._place.client()) as client:
            found: Any = client.xrange(self.key)
        return [self._entry(fields[b"event"]) for _, fields in found]

    @staticmethod
    def _entry(text: bytes) -> Entry:
        event, place = decode(text), WalPlace.of_text(text)
        assert event.id
        assert place
        return Entry(EventId.parse(event.id), event.channel, json.loads(bytes(event.payload)), place)

    def payloads(self) -> list[Any]:
        """The users' events, in order."""
        return [entry.payload for entry in self.entries() if entry.channel == CHANNEL]

    def dump(self) -> bytes:
        """A copy, to be put back."""
        with closing(self._place.client()) as client:
            copy: Any = client.dump(self.key)
        return bytes(copy)

    def put_back(self, copy: bytes) -> None:
        with closing(self._place.client()) as client:
            client.restore(self.key, 0, copy, replace=True)

    def wipe(self) -> None:
        with closing(self._place.client()) as client:
            for key in client.scan_iter(match=f"{{{self._place.namespace}}}:*"):
                client.delete(key)

    def assert_one_epoch(self) -> None:
        """No gap: ids without a hole, in the order of the commits."""
        entries = self.entries()
        assert [entry.id for entry in entries] == [
            EventId(entries[0].id.epoch, entries[0].id.sequence + n) for n in range(len(entries))
        ]
        places = [entry.place for entry in entries]
        assert places == sorted(set(places))


def emit(server: PostgresServer, *payloads: Any) -> None:
    """Send messages, each in a transaction of its own."""
    with closing(server.connect()) as connection:
        for payload in payloads:
            connection.execute(EMIT, [json.dumps(payload)])


class WriterThreads(ABC):
    """Threads that write, each as `write` says, until the block ends."""

    def __init__(self, server: PostgresServer, number: int) -> None:
        self._server, self._stopping = server, threading.Event()
        self._threads = [threading.Thread(target=self.write, args=[n], daemon=True) for n in range(number)]

    @abstractmethod
    def write(self, number: int) -> None:
        """Write as the n-th thread until `_stopping` is set."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


class Writers(WriterThreads):
    """Threads that commit messages, and roll some back. PostgreSQL may be away meanwhile."""

    def __init__(self, server: PostgresServer, number: int, rate: float) -> None:
        super().__init__(server, number)
        self._pause = number / rate
        self.committed: list[list[int]] = [[] for _ in range(number)]
        self.uncertain: list[set[int]] = [set() for _ in range(number)]  # COMMIT got no answer

    @property
    def total(self) -> int:
        return sum(map(len, self.committed))

    def write(self, number: int) -> None:
        rng, serials = random.Random(number), iter(range(10**9))
        while not self._stopping.is_set():
            with suppress(psycopg.OperationalError), closing(self._server.connect()) as connection:
                while not self._stopping.is_set():
                    self._commit(connection, number, [next(serials) for _ in range(rng.choice([1, 1, 3]))], rng)
            time.sleep(0.05)

    def _commit(self, connection: psycopg.Connection, number: int, serials: list[int], rng: random.Random) -> None:
        connection.execute("BEGIN")
        for serial in serials:
            connection.execute(EMIT, [json.dumps({"writer": number, "n": serial})])
        if rng.random() < 0.1:
            connection.execute("ROLLBACK")
        else:
            self.uncertain[number].update(serials)
            connection.execute("COMMIT")
            self.uncertain[number].difference_update(serials)
            self.committed[number] += serials
        time.sleep(self._pause * len(serials))

    def assert_in(self, stream: Stream) -> None:
        """Everything that was committed is there once, in order, and nothing that was rolled back."""
        heard: list[list[int]] = [[] for _ in self.committed]
        for payload in stream.payloads():
            heard[payload["writer"]].append(payload["n"])
        for got, committed, uncertain in zip(heard, self.committed, self.uncertain, strict=True):
            assert got == sorted(set(got))
            assert set(committed) <= set(got) <= {*committed, *uncertain}

    def is_in(self, stream: Stream) -> bool:
        """Whether the last of each writer's commits are there."""
        heard = {(payload["writer"], payload["n"]) for payload in stream.payloads()}
        return all((number, serials[-1]) in heard for number, serials in enumerate(self.committed) if serials)
