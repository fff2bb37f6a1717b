"""A worker under a steady load, without and with the status page open in a browser."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.support.programs import App, Listener
from tests.support.servers import Servers
from tests.support.writer import Writer

SAMPLES = 20
SETTLE_SECONDS = 15.0  # until the worker has started, and until the page shows all of its parts


class Sample(NamedTuple):
    """The browser's memory after a garbage collection."""

    at: float  # seconds since the page was opened
    heap: int  # bytes, of JavaScript
    nodes: int  # of the document
    rows: int  # of the recent events


class Result(NamedTuple):
    """The figures of one run."""

    cpu_without_page: float  # the worker's share of a core: the mean of before and after
    cpu_with_page: float
    samples: list[Sample]
    events: int  # notified


class Soak:
    """One run: a quarter of the time without the page, then the time with it, then a quarter without it again.

    Args:
        folder: for the servers.
        minutes: how long the page is open.
        per_second: events per second.
        report: called with one line per sample.
    """

    def __init__(self, folder: Path, minutes: float, per_second: float, report: Callable[[str], None]) -> None:
        self._folder, self._seconds, self._per_second, self._report = folder, minutes * 60, per_second, report

    def run(self, browser: Browser) -> Result:
        """Run to the end and return the figures."""
        with (
            Servers(self._folder / "servers") as servers,
            Listener(self._folder, servers.settings) as listener,
            App(self._folder, servers.settings) as app,
        ):
            listener.wait_until_aligned()
            worker = psutil.Process(app.wait_until_ready().pid).children()[0]
            with Writer(servers.embedded.database_url, self._per_second) as writer:
                time.sleep(SETTLE_SECONDS)
                before = self._measure_without_page(worker)
                page = browser.new_page()
                page.goto(f"http://127.0.0.1:{app.port}/")
                expect(page.locator("#state")).to_have_text("Healthy")
                time.sleep(SETTLE_SECONDS)
                with _cpu_usage(worker) as usage:
                    samples = list(self._sample(page))
                page.close()
                after = self._measure_without_page(worker)
                return Result((before + after) / 2, usage(), samples, writer.written)

    def _measure_without_page(self, worker: psutil.Process) -> float:
        with _cpu_usage(worker) as usage:
            time.sleep(self._seconds / 4)
        self._report(f"without the page: {usage():.2%} of a core")
        return usage()

    def _sample(self, page: Page) -> Iterator[Sample]:
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        began = time.monotonic()
        for number in range(SAMPLES + 1):
            page.wait_for_timeout(max(0, began + number * self._seconds / SAMPLES - time.monotonic()) * 1000)
            sample = _take_sample(session, page, time.monotonic() - began)
            self._report(
                f"{sample.at:6.0f} s: heap {sample.heap / 2**20:.2f} MiB, {sample.nodes} nodes, {sample.rows} rows"
            )
            yield sample


@contextmanager
def _cpu_usage(process: psutil.Process) -> Iterator[Callable[[], float]]:
    """Measure the share of a core that a process uses while the block runs; call the result after the block."""
    usage = 0.0

    def cpu_seconds() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before, began = cpu_seconds(), time.monotonic()
    yield lambda: usage
    usage = (cpu_seconds() - before) / (time.monotonic() - began)


def _take_sample(session: CDPSession, page: Page, at: float) -> Sample:
    session.send("HeapProfiler.collectGarbage")
    metrics: dict[str, Any] = {
        each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]
    }
    rows = page.locator("#recent-events li").count()
    return Sample(at, int(metrics["JSHeapUsedSize"]), int(metrics["Nodes"]), rows)
