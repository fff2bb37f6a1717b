"""Fan-out of events to many clients on one worker and on four: speed, CPU time, and memory per idle client."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bench.clients import Clients, allow_open_files, connect_all
from bench.cpu import family, memory_bytes
from bench.environment import Environment
from bench.events import MATCH
from bench.report import Figure, Report
from bench.systems import (
    WORKERS,
    MeasuredSystem,
    StartSystem,
    System,
    picows,
    plain_listen,
    through_redis,
    with_several_matches,
)

BASE = "plain-listen"  # Starlette's `send_text` in a loop
_SIZES, _SHORT_SIZES = (100, 1000, 5000), (20, 60)
_ROUNDS, _SHORT_ROUNDS = 5, 2
_BURST = 10  # events in one transaction
_MIN_FRAMES, _MAX_TRANSACTIONS = 20_000, 20  # of a run; the maximum takes precedence
_CLIENTS_AT_ONCE = 100  # that connect
_TIMEOUT_SECONDS = 5.0  # without an event
_SEVERAL_SIZE = 1000  # clients with several matches
_MORE_MATCHES = 100  # that each of them subscribes to, for the memory of one; together within the rate


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Compare one worker with Starlette and picows, four workers with Starlette, and several matches with one."""
    allow_open_files()
    sizes, rounds = (_SHORT_SIZES, _SHORT_ROUNDS) if short else (_SIZES, _ROUNDS)
    cases: list[tuple[int, list[StartSystem]]] = [
        (1, [through_redis, plain_listen, picows]),
        (WORKERS, [through_redis, plain_listen]),
    ]
    for workers, starts in cases:
        with ExitStack() as stack:
            systems = [stack.enter_context(start(environment, workers)) for start in starts]
            measured = [stack.enter_context(FanOut(system, environment)) for system in systems]
            for size in sizes:
                _connect_clients(measured, size)
                _compare(measured, _case(size, workers), report, rounds)
            _report_memory(measured, _case(sizes[-1], workers), report)

    _measure_several(environment, report, sizes[0] if short else _SEVERAL_SIZE, rounds)


def _measure_several(environment: Environment, report: Report, size: int, rounds: int) -> None:
    """Compare connections for several matches with those for one, and measure the memory of a further match."""
    with ExitStack() as stack:
        systems = [stack.enter_context(start(environment, 1)) for start in (through_redis, with_several_matches)]
        single, several = [stack.enter_context(FanOut(system, environment)) for system in systems]
        _connect_clients([single, several], size)
        case = f"{_case(size, 1)}, one match and several"
        _compare([single, several], case, report, rounds)
        _report_memory([single, several], case, report)
        memory = several.memory()
        for number in range(_MORE_MATCHES):
            several.subscribe(number)
        further = (several.memory() - memory) / (size * _MORE_MATCHES)
        report.run("fanout", case, several.name, Figure("further idle subscription", "bytes", further))


def _case(size: int, workers: int) -> str:
    return f"{size} clients, {workers} worker{'s' if workers > 1 else ''}"


class FanOut(MeasuredSystem):
    """A system and its many clients."""

    def __init__(self, system: System, environment: Environment) -> None:
        super().__init__(system, Clients([]), environment)
        self.memory_per_client = 0.0  # bytes in the workers, for each of the clients that connected last

    def connect(self, count: int) -> None:
        """Connect more clients."""
        size = len(self.clients.all)
        new = connect_all(self.system.port, self.system.client_path, range(size, size + count))
        self.clients.release()
        self.clients = Clients([*self.clients.all, *new])
        if self.system.matches > 1:
            matches = range(int(MATCH), int(MATCH) + self.system.matches)
            for client in new:
                client.subscribe(matches)
            self.clients.wait_until_loaded(len(matches), _TIMEOUT_SECONDS)

    def subscribe(self, number: int) -> None:
        """Have every client hear the n-th of further matches, which nobody hears yet."""
        loads = self.clients.all[0].loads + 1
        for client in self.clients.all:
            client.subscribe([int(MATCH) + self.system.matches + number])
        self.clients.wait_until_loaded(loads, _TIMEOUT_SECONDS)

    def notify(self, events: int) -> tuple[float, float]:
        """Notify in one transaction, and wait until every client has received all events.

        Return the seconds from the first client's first event to the last client's last event, and from NOTIFY to the
        last client's last event.

        Raises:
            AssertionError: not every client received every event.
        """
        first = self.emitter.last + 1
        began = self.emitter.once(events)
        last = self.clients.read_until(first + events - 1, _TIMEOUT_SECONDS)
        arrivals = self.clients.arrivals()
        expected = list(range(first, first + events))
        complete = [arrival.serial for each in arrivals for arrival in each] == expected * len(arrivals)
        assert last
        assert complete, f"{self.name}: not every client received every event"
        return last - min(each[0].at for each in arrivals), last - began

    def memory(self) -> int:
        """Return the bytes of memory that the workers use."""
        return memory_bytes(family(self.system.parts["workers"]))


def _connect_clients(measured: Sequence[FanOut], size: int) -> None:
    before = [(each.memory(), len(each.clients.all)) for each in measured]
    while any(len(each.clients.all) < size for each in measured):
        for each in measured:
            each.connect(min(_CLIENTS_AT_ONCE, size - len(each.clients.all)))
            each.clients.discard()
    for each, (memory, count) in zip(measured, before, strict=True):
        # Only the clients that connected last are counted: a worker's memory grows with its first clients and events,
        # because it writes to pages that it shared with its master, and fills its replay buffer.
        each.memory_per_client = (each.memory() - memory) / (size - count)
        each.wait_until_receiving()


def _compare(measured: Sequence[FanOut], case: str, report: Report, rounds: int) -> None:
    for _ in range(rounds):
        for each in measured:
            single, burst = _run(each, 1), _run(each, _BURST)
            report.run(
                "fanout",
                case,
                each.name,
                Figure("frames_per_s", "/s", single.rate),
                Figure(f"frames_per_s in bursts of {_BURST}", "/s", burst.rate),
                Figure(f"bursts of {_BURST} over single events", "times", burst.rate / single.rate),
                Figure("last client after", "ms", single.last * 1000),
                Figure("workers CPU", "µs/frame", single.cpu * 1e6),
                Figure(f"workers CPU in bursts of {_BURST}", "µs/frame", burst.cpu * 1e6),
            )
            for other in measured:
                other.clients.discard()


class Means(NamedTuple):
    """The means of a run."""

    rate: float  # frames a second, from the first client's first to the last client's last
    last: float  # seconds from NOTIFY to the last client
    cpu: float  # CPU seconds of the workers per frame


def _run(each: FanOut, events: int) -> Means:
    """Run transactions of some events, each after every client has received the events of the one before."""
    times = min(_MAX_TRANSACTIONS, 1 + _MIN_FRAMES // (len(each.clients.all) * events))
    frames = times * events * len(each.clients.all)
    meter = each.cpu_meter()
    seconds = [each.notify(events) for _ in range(times)]
    cpu = meter.read()["workers"]
    return Means(frames / sum(spread for spread, _ in seconds), sum(last for _, last in seconds) / times, cpu / frames)


def _report_memory(measured: Sequence[FanOut], case: str, report: Report) -> None:
    for each in measured:
        report.run("fanout", case, each.name, Figure("idle client", "KiB", each.memory_per_client / 1024))
