"""What clients of one pod notice of an outage: the latest event while Redis is away, and while a listener is frozen."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import quantiles

import psutil

from bench.environment import Environment, environment_of, stream_events
from bench.report import Figure, Report
from bench.systems import MeasuredSystem, through_redis
from tests.support.programs import Listener, get
from tests.support.servers import temporary_servers
from tests.support.waiting import wait_until

BASE = "before"
_RATE = 200  # events a second
_REDIS_SECONDS, _SHORT_REDIS_SECONDS = 60.0, 5.0
_FROZEN_SECONDS, _SHORT_FROZEN_SECONDS = 10.0, 5.0
_CALM_SECONDS = 5.0
_SLICE_SECONDS = 2.5  # after which the clients answer pings
_LOOK_SECONDS = 0.05  # between two looks at readiness


def measure(_: Environment, report: Report, *, short: bool) -> None:
    """Measure on servers of its own, which it breaks."""
    _kill_redis(_SHORT_REDIS_SECONDS if short else _REDIS_SECONDS, report)
    _freeze_listener(_SHORT_FROZEN_SECONDS if short else _FROZEN_SECONDS, report)


def _kill_redis(seconds: float, report: Report) -> None:
    with temporary_servers("outages") as servers:
        environment = environment_of(servers)
        with (
            through_redis(environment) as system,
            MeasuredSystem.with_client_on_each_worker(system, environment) as measured,
        ):
            case = f"Redis killed for {seconds:g} s"
            _compare(case, measured, seconds, report, (servers.redis_process.kill, servers.start_redis))
            last = measured.emitter.last
            wait_until(lambda: stream_events(system.place).keys() >= set(range(1, last + 1)), what="the stream has all")


def _freeze_listener(seconds: float, report: Report) -> None:
    with temporary_servers("outages") as servers:
        environment = environment_of(servers)
        with (
            through_redis(environment) as system,
            MeasuredSystem.with_client_on_each_worker(system, environment) as measured,
        ):
            folder = system.place.folder / "other-pod"
            folder.mkdir()
            with Listener(folder, system.place.settings | {"POD_NAME": "other-pod"}) as other:
                other.wait_until_aligned()
                listener = psutil.Process(system.parts["listener"])
                case = f"listener frozen for {seconds:g} s, another pod has one"
                _compare(case, measured, seconds, report, (listener.suspend, listener.resume))


def _compare(
    case: str,
    measured: MeasuredSystem,
    seconds: float,
    report: Report,
    fault: tuple[Callable[[], object], Callable[[], object]],
) -> None:
    """Report how late events are before a fault, during and after it, and whether one was missed or a gap heard.

    `fault` is two functions, which begin and end it.
    """
    with _readiness(measured.system.port) as unready:
        report.run("outages", case, BASE, *_latest(measured, _CALM_SECONDS, report))
        begin, end = fault
        begin()
        report.run("outages", case, "meanwhile", *_latest(measured, seconds, report))
        end()
        report.run("outages", case, "after", *_latest(measured, _CALM_SECONDS, report))
    if unready:
        report.note(f"{case}: NOT ready at {len(unready)} looks")
    if resyncs := sum(client.resyncs for client in measured.clients.all):
        report.note(f"{case}: NOT without a gap, {resyncs} resyncs")


def _latest(measured: MeasuredSystem, seconds: float, report: Report) -> list[Figure]:
    delays: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sent = measured.notify_paced(_RATE, _SLICE_SECONDS)
        arrivals = measured.clients.arrivals()
        if any([arrival.serial for arrival in each] != list(sent) for each in arrivals):
            report.note(f"{measured.name}: NOT every client received every event in order")
        delays += [(arrival.at - sent[arrival.serial]) * 1000 for each in arrivals for arrival in each]
    cuts = quantiles(delays, n=1000)
    return [Figure("p50", "ms", cuts[499]), Figure("p99", "ms", cuts[989]), Figure("latest", "ms", max(delays))]


@contextmanager
def _readiness(port: int) -> Iterator[list[int]]:
    """Look at readiness while the block runs; the result has the statuses other than 200."""
    unready: list[int] = []
    stopping = threading.Event()

    def look() -> None:
        while not stopping.wait(_LOOK_SECONDS):
            if (status := get(port, "/readyz")[0]) != 200:
                unready.append(status)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield unready
    finally:
        stopping.set()
        thread.join()
