"""A worker under a steady load, first without anybody who watches, then with the status page in a browser."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.support.programs import App, Listener
from tests.support.servers import Servers, database_settings
from tests.support.writer import Writer

SAMPLES = 20  # of a phase
SETTLED = 15.0  # seconds until the worker has started, and the page shows all it ever will


class Sample(NamedTuple):
    """What the browser holds, after it has collected its garbage."""

    at: float  # seconds since the page was opened
    heap: int  # bytes, of JavaScript
    nodes: int  # of the document
    rows: int  # of the tail


class Result(NamedTuple):
    """Of one run."""

    alone: float  # the worker's share of a core without the page: the mean of before and after
    watched: float  # and with it
    samples: list[Sample]
    events: int  # written


class Soak:
    """One run: a quarter of the time without the page, then with it, then a quarter of the time without it again.

    Args:
        folder: for the servers.
        minutes: for how long the page is open.
        per_second: events.
        say: hears a line per sample.
    """

    def __init__(self, folder: Path, minutes: float, per_second: float, say: Callable[[str], None]) -> None:
        self._folder, self._seconds, self._per_second, self._say = folder, minutes * 60, per_second, say

    def run(self, browser: Browser) -> Result:
        """Does all of it."""
        with _served(self._folder) as (app, servers):
            worker = psutil.Process(app.pid).children()[0]
            with Writer(servers.embedded.database_url, self._per_second) as writer:
                time.sleep(SETTLED)
                before = self._alone(worker)
                page = browser.new_page()
                page.goto(f"http://127.0.0.1:{app.port}/")
                expect(page.locator("#state")).to_have_text("Healthy")
                time.sleep(SETTLED)
                with _share(worker) as watched:
                    samples = list(self._watch(page))
                page.close()
                after = self._alone(worker)
                return Result((before + after) / 2, watched(), samples, writer.written)

    def _alone(self, worker: psutil.Process) -> float:
        with _share(worker) as share:
            time.sleep(self._seconds / 4)
        self._say(f"without the page: {share():.2%} of a core")
        return share()

    def _watch(self, page: Page) -> Iterator[Sample]:
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        began = time.monotonic()
        for number in range(SAMPLES + 1):
            page.wait_for_timeout(max(0, began + number * self._seconds / SAMPLES - time.monotonic()) * 1000)
            sample = _sample(session, page, time.monotonic() - began)
            self._say(
                f"{sample.at:6.0f} s: heap {sample.heap / 2**20:.2f} MiB, {sample.nodes} nodes, {sample.rows} rows"
            )
            yield sample


@contextmanager
def _served(folder: Path) -> Iterator[tuple[App, Servers]]:
    """One worker, its listener and their servers."""
    servers = Servers(folder / "servers")
    try:
        servers.start_postgres()
        servers.start_redis()
        embedded = servers.embedded
        settings = database_settings(embedded.database_url) | {"REDIS_URL": embedded.redis_url}
        settings["USE_REDIS_NOTIFIER"] = "true"
        with Listener(folder, settings) as listener, App(folder, settings) as app:
            listener.aligned()
            yield app.ready(), servers
    finally:
        servers.end()


@contextmanager
def _share(process: psutil.Process) -> Iterator[Callable[[], float]]:
    """Measures the share of a core that a process takes while the context lasts."""
    share = 0.0

    def used() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before, began = used(), time.monotonic()
    yield lambda: share
    share = (used() - before) / (time.monotonic() - began)


def _sample(session: CDPSession, page: Page, at: float) -> Sample:
    session.send("HeapProfiler.collectGarbage")
    metrics: dict[str, Any] = {
        each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]
    }
    rows = page.locator("#tail li").count()
    return Sample(at, int(metrics["JSHeapUsedSize"]), int(metrics["Nodes"]), rows)
