"""One event to many clients, on one worker and on four: how fast, at what cost; and what an idle client weighs."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench.arena import Arena
from bench.clients import Client, Clients, allow_open_files, crowd
from bench.cpu import Meter, family, memory_bytes
from bench.events import Emitter
from bench.report import Report
from bench.systems import WORKERS, Start, System, picows, plain_listen, through_redis

BASE = "plain-listen"  # Starlette's `send_text` in a loop
_SIZES, _SHORT_SIZES = (100, 1000, 5000), (20, 60)
_ROUNDS, _SHORT_ROUNDS = 5, 2
_BURST = 10  # events in one transaction
_FRAMES, _MOST_EVENTS = 20_000, 20  # frames of a run, at least; but no more events than that
_AT_ONCE = 100  # clients that connect
_SILENCE = 5.0  # seconds after which no more is expected


def measure(arena: Arena, report: Report, *, short: bool) -> None:
    """One worker beside Starlette's and picows, then four."""
    allow_open_files()
    for workers, starts in ((1, (through_redis, plain_listen, picows)), (WORKERS, (through_redis, plain_listen))):
        with ExitStack() as stack:
            crowds = [stack.enter_context(_gathering(start, workers, arena)) for start in starts]
            for size in _SHORT_SIZES if short else _SIZES:
                _gather(crowds, size)
                _compare(crowds, f"{size} clients, {_workers(workers)}", report, rounds=_SHORT_ROUNDS if short else _ROUNDS)
            _weigh(crowds, _workers(workers), report)


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


class Crowd:
    """The clients of one system."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.emitter = Emitter(system.place.database)
        self.all: list[Client] = []
        self.clients = Clients([])
        self._empty = self._memory()

    def grow(self, count: int) -> None:
        """Some more connect."""
        size = len(self.all)
        self.all += crowd(self.system.port, self.system.client_path, range(size, size + count))
        self.clients.forget()
        self.clients = Clients(self.all)

    def event(self, events: int) -> tuple[float, float]:
        """Notifies; seconds from the first client's first event to the last client's last, and from NOTIFY to that.

        Raises:
            AssertionError: not every client got every event.
        """
        first = self.emitter.last + 1
        began = self.emitter.once(events)
        last = self.clients.read_until(first + events - 1, _SILENCE)
        arrivals = self.clients.arrivals()
        expected = list(range(first, first + events))
        complete = [arrival.serial for each in arrivals for arrival in each] == expected * len(arrivals)
        assert last
        assert complete, f"{self.system.name}: not every client got every event"
        return last - min(each[0].at for each in arrivals), last - began

    def meter(self) -> Meter:
        """CPU time of the workers from now on."""
        return Meter(self.system.parts)

    @property
    def weight(self) -> float:
        """Bytes of the workers' memory for each client."""
        return (self._memory() - self._empty) / len(self.all)

    def _memory(self) -> int:
        return memory_bytes(family(self.system.parts["workers"]))


@contextmanager
def _gathering(start: Start, workers: int, arena: Arena) -> Iterator[Crowd]:
    with start(arena, workers) as system:
        found = Crowd(system)
        try:
            yield found
        finally:
            found.clients.close()
            found.emitter.__exit__()


def _gather(crowds: Sequence[Crowd], size: int) -> None:
    while any(len(each.all) < size for each in crowds):
        for each in crowds:
            each.grow(min(_AT_ONCE, size - len(each.all)))
            each.clients.pump()
    for each in crowds:  # everybody has what a client begins with, and hears
        while each.emitter.once() and not each.clients.read_until(each.emitter.last, 1.0):
            each.clients.pump()
        each.clients.pump()


def _compare(crowds: Sequence[Crowd], case: str, report: Report, rounds: int) -> None:
    figures: dict[str, list[dict[str, float]]] = {each.system.name: [] for each in crowds}
    for _ in range(rounds):
        for each in crowds:
            figures[each.system.name].append(_run(each))
            for other in crowds:
                other.clients.pump()
    for metric, unit in _UNITS.items():
        for name, runs in figures.items():
            report.add("fanout", case, name, metric, unit, [run[metric] for run in runs])


_SINGLE, _BURSTS, _GAIN = "frames_per_s", "frames_per_s, bursts of 10", "bursts of 10 over single events"
_UNITS = {_SINGLE: "/s", _BURSTS: "/s", _GAIN: "times", "last client after": "ms", "workers_cpu": "µs/frame",
          "workers_cpu, bursts of 10": "µs/frame"}  # fmt: skip


def _run(each: Crowd) -> dict[str, float]:
    single, last, cpu = _several(each, 1)
    bursts, _, bursts_cpu = _several(each, _BURST)
    found = (single, bursts, bursts / single, last * 1000, cpu, bursts_cpu)
    return dict(zip(_UNITS, found, strict=True))


def _several(each: Crowd, events: int) -> tuple[float, float, float]:
    """Frames/s, seconds from NOTIFY to the last client, and µs of the workers' CPU for each frame: means."""
    times = min(_MOST_EVENTS, 1 + _FRAMES // (len(each.all) * events))
    meter = each.meter()
    took = [each.event(events) for _ in range(times)]
    cpu = meter.read()["workers"]
    frames = times * events * len(each.all)
    return frames / sum(spread for spread, _ in took), sum(last for _, last in took) / times, cpu / frames * 1e6


def _weigh(crowds: Sequence[Crowd], case: str, report: Report) -> None:
    for each in crowds:
        size = len(each.all)
        report.add("fanout", f"{size} clients, {case}", each.system.name, "idle client", "KiB", [each.weight / 1024])


