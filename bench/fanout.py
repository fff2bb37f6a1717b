"""One event to many clients, on one worker and on four: how fast, at what cost; and what an idle client weighs."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bench.clients import Clients, allow_open_files, crowd
from bench.cpu import family, memory_bytes
from bench.environment import Environment
from bench.report import Figure, Report
from bench.systems import WORKERS, Start, System, Watched, picows, plain_listen, through_redis

BASE = "plain-listen"  # Starlette's `send_text` in a loop
_SIZES, _SHORT_SIZES = (100, 1000, 5000), (20, 60)
_ROUNDS, _SHORT_ROUNDS = 5, 2
_BURST = 10  # events in one transaction
_FRAMES, _MOST_EVENTS = 20_000, 20  # frames of a run, at least; but no more events than that
_AT_ONCE = 100  # clients that connect
_SILENCE = 5.0  # seconds after which no more is expected


def measure(arena: Environment, report: Report, *, short: bool) -> None:
    """One worker beside Starlette's and picows, then four."""
    allow_open_files()
    sizes, rounds = (_SHORT_SIZES, _SHORT_ROUNDS) if short else (_SIZES, _ROUNDS)
    cases: list[tuple[int, list[Start]]] = [
        (1, [through_redis, plain_listen, picows]),
        (WORKERS, [through_redis, plain_listen]),
    ]
    for workers, starts in cases:
        with ExitStack() as stack:
            systems = [stack.enter_context(start(arena, workers)) for start in starts]
            crowds = [stack.enter_context(Crowd(system, arena)) for system in systems]
            for size in sizes:
                _gather(crowds, size)
                _compare(crowds, _case(size, workers), report, rounds)
            _weigh(crowds, _case(sizes[-1], workers), report)


def _case(size: int, workers: int) -> str:
    return f"{size} clients, {workers} worker{'s' if workers > 1 else ''}"


class Crowd(Watched):
    """A system and its many clients."""

    def __init__(self, system: System, arena: Environment) -> None:
        super().__init__(system, Clients([]), arena)
        self.weight = 0.0  # bytes of the workers' memory for each of the last that came

    def grow(self, count: int) -> None:
        """Some more connect."""
        size = len(self.clients.all)
        coming = crowd(self.system.port, self.system.client_path, range(size, size + count))
        self.clients.forget()
        self.clients = Clients([*self.clients.all, *coming])

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
        assert complete, f"{self.name}: not every client got every event"
        return last - min(each[0].at for each in arrivals), last - began

    def memory(self) -> int:
        """Bytes that the workers hold."""
        return memory_bytes(family(self.system.parts["workers"]))


def _gather(crowds: Sequence[Crowd], size: int) -> None:
    before = [(each.memory(), len(each.clients.all)) for each in crowds]
    while any(len(each.clients.all) < size for each in crowds):
        for each in crowds:
            each.grow(min(_AT_ONCE, size - len(each.clients.all)))
            each.clients.pump()
    for each, (memory, count) in zip(crowds, before, strict=True):
        # Not from the first client on: the code's own pages, which a worker that has work takes from its master, are
        # nobody's weight; nor are the events that it remembers.
        each.weight = (each.memory() - memory) / (size - count)
        each.heard()


def _compare(crowds: Sequence[Crowd], case: str, report: Report, rounds: int) -> None:
    for _ in range(rounds):
        for each in crowds:
            single, burst = _several(each, 1), _several(each, _BURST)
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
            for other in crowds:
                other.clients.pump()


class Spread(NamedTuple):
    """How some events reached a crowd: means, in seconds."""

    rate: float  # frames a second, from the first client's first to the last client's last
    last: float  # from NOTIFY to the last client
    cpu: float  # of the workers, for each frame


def _several(each: Crowd, events: int) -> Spread:
    """Transactions of so many events, the next when everybody has got the last."""
    times = min(_MOST_EVENTS, 1 + _FRAMES // (len(each.clients.all) * events))
    frames = times * events * len(each.clients.all)
    meter = each.meter()
    took = [each.event(events) for _ in range(times)]
    cpu = meter.read()["workers"]
    return Spread(frames / sum(spread for spread, _ in took), sum(last for _, last in took) / times, cpu / frames)


def _weigh(crowds: Sequence[Crowd], case: str, report: Report) -> None:
    for each in crowds:
        report.run("fanout", case, each.name, Figure("idle client", "KiB", each.weight / 1024))
