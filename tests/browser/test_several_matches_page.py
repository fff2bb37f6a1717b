"""Twelve live matches in a real browser: over one WebSocket, one event stream, and one socket for eight tabs."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from playwright.sync_api import Browser, BrowserContext

from tests.browser.several_matches_page import SeveralMatchesPage
from tests.support.programs import App, Listener
from tests.support.servers import Servers
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

MATCHES = list(range(1, 13))
TABS = 8
PAUSE = 0.1  # seconds between two rounds of changes
SNAPSHOT = "SELECT jsonb_build_object('n', n) FROM state WHERE id = %(match_id)s::int"
BLOCKED = "delete window.WebSocket"


class Matches(threading.Thread):
    """Matches that change all the time until `finish`."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._is_over = threading.Event()
        self.number = 0  # how often each match has changed
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            connection.execute("CREATE TABLE state (id int PRIMARY KEY, n int NOT NULL)")
            connection.cursor().executemany("INSERT INTO state VALUES (%s, 0)", [[match] for match in MATCHES])
        self.start()

    def run(self) -> None:
        with closing(psycopg.connect(self._url, autocommit=True)) as connection:
            while not self._is_over.wait(PAUSE):
                self._change(connection, self.number + 1)
                self.number += 1

    def _change(self, connection: psycopg.Connection, number: int) -> None:
        for match in MATCHES:
            payload = json.dumps({"match_id": match, "data": {"n": number}})
            with connection.transaction():
                connection.execute("UPDATE state SET n = %s WHERE id = %s", [number, match])
                connection.execute("SELECT pg_notify('match_change', %s)", [payload])

    def pass_on(self, rounds: int = 20) -> None:
        """Wait until the matches have changed some more times."""
        target = self.number + rounds
        wait_until(lambda: self.number >= target, 40, lambda: f"{self.number} of {target} rounds, {self.is_alive()}")

    def finish(self) -> int:
        """Change no more; return how often each match has changed."""
        self._is_over.set()
        self.join(20)
        return self.number


class Pod:
    """Two workers and a listener, on servers of their own."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        self._folder = folder
        self._servers = servers
        self.settings = servers.settings | {"SNAPSHOT_QUERY": SNAPSHOT, "CANARY_INTERVAL": "0.5"}
        self.matches = Matches(servers.embedded.database_url)
        self.listener = Listener(folder, self.settings)
        self.app = App(folder, self.settings, workers=2)
        self.url = f"http://127.0.0.1:{self.app.port}"
        self.listener.wait_until_aligned()
        self.app.wait_until_ready()

    def kill_the_serving_worker(self) -> None:
        """Kill -9 the worker that has clients, or both if both have."""
        for worker in psutil.Process(self.app.pid).children():
            connections = worker.net_connections("inet")
            if any(each.status == "ESTABLISHED" and each.laddr.port == self.app.port for each in connections):
                os.kill(worker.pid, signal.SIGKILL)

    def kill_the_listener(self) -> None:
        """Kill -9 the only listener, and start another one."""
        self.listener.kill()
        self.matches.pass_on()
        self.listener = Listener(self._folder, self.settings)
        self.listener.wait_until_aligned(within=40)

    def wipe_redis(self) -> None:
        with redis.Redis.from_url(self._servers.embedded.redis_url) as client:
            client.flushall()

    def close(self) -> None:
        self.matches.finish()
        self.app.stop()
        self.listener.stop()


@pytest.fixture
def pod(tmp_path: Path, servers: Servers) -> Iterator[Pod]:
    pod = Pod(tmp_path, servers)
    yield pod
    pod.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context()
    yield context
    context.close()


def assert_everything_is_heard(pod: Pod, pages: list[SeveralMatchesPage]) -> None:
    """Stop the matches; assert that the pages know their last state, and how they came to know it."""
    last = pod.matches.finish()
    for page in pages:
        page.wait_until_heard(last)
        page.assert_complete()
        page.assert_in_commit_order()


FAULTS: list[Callable[[Pod], None]] = [Pod.kill_the_serving_worker, Pod.kill_the_listener, Pod.wipe_redis]


@pytest.mark.parametrize("script", ["", BLOCKED], ids=["one WebSocket", "one event stream"])
def test_twelve_live_matches_over_one_connection_lose_nothing_through_three_faults(
    pod: Pod, context: BrowserContext, script: str
) -> None:
    page = SeveralMatchesPage(context, pod.url, MATCHES, script)
    page.wait_until_started()
    for fault in FAULTS:
        fault(pod)
        pod.matches.pass_on()
    assert_everything_is_heard(pod, [page])
    if script:
        assert page.sockets == []
        assert all(url.count("match=") == len(MATCHES) for url in page.streams)
        assert page.streams[-1].count("after=") == len(MATCHES)
    else:
        assert page.open_sockets == 1
        assert page.streams == []


def test_matches_are_added_and_removed_over_both_transports(pod: Pod, context: BrowserContext) -> None:
    pages = [SeveralMatchesPage(context, pod.url, MATCHES[:3], script) for script in ("", BLOCKED)]
    for page in pages:
        page.wait_until_started()
        page.page.evaluate("connection.remove(1); connection.add(4); connection.add('5')")
        page.matches = [2, 3, 4, 5]
        page.wait_until_started()
        heard = page.numbers_of(1)
        pod.matches.pass_on()
        assert page.numbers_of(1) == heard, "nothing comes of a match that was removed"
    assert_everything_is_heard(pod, pages)


def set_hidden(tab: SeveralMatchesPage, *, hidden: bool) -> None:
    tab.page.evaluate(
        """(value) => {
          Object.defineProperty(document, "hidden", { value, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_a_visible_tab_takes_the_lead_over_from_a_hidden_one(pod: Pod, context: BrowserContext) -> None:
    tabs = [SeveralMatchesPage(context, pod.url, MATCHES, shareTabs="user 1") for _ in range(3)]
    for tab in tabs:
        tab.wait_until_started()
    [first] = [tab for tab in tabs if tab.open_sockets]
    second, third = [tab for tab in tabs if tab is not first]
    for tab in (third, first):
        set_hidden(tab, hidden=True)
    wait_until(lambda: second.open_sockets == 1 and not first.open_sockets, what="the visible tab leads")
    set_hidden(second, hidden=True)
    pod.matches.pass_on()
    assert [tab.open_sockets for tab in (first, second, third)] == [0, 1, 0], "all are hidden, and nobody takes over"
    set_hidden(third, hidden=False)
    wait_until(lambda: third.open_sockets == 1 and not second.open_sockets, what="the tab that became visible leads")
    assert_everything_is_heard(pod, tabs)


def test_eight_tabs_share_one_socket_and_lose_nothing_when_the_leading_tab_closes(
    pod: Pod, context: BrowserContext
) -> None:
    tabs = [SeveralMatchesPage(context, pod.url, MATCHES, shareTabs=True) for _ in range(TABS)]
    for tab in tabs:
        tab.wait_until_started()
    for close in (SeveralMatchesPage.close, SeveralMatchesPage.crash):
        [leader] = [tab for tab in tabs if tab.open_sockets]
        tabs.remove(leader)
        close(leader)
        wait_until(lambda: sum(tab.open_sockets for tab in tabs) == 1, 20, "another tab leads")
        pod.matches.pass_on()
    pod.kill_the_serving_worker()
    pod.matches.pass_on()
    late = SeveralMatchesPage(context, pod.url, MATCHES[:2], shareTabs=True)
    late.wait_until_started()
    pod.wipe_redis()
    pod.matches.pass_on()
    assert_everything_is_heard(pod, [*tabs, late])
    assert sum(tab.open_sockets for tab in [*tabs, late]) == 1
