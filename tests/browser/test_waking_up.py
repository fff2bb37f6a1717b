"""notifymux.js and the status page on a device that sleeps, changes its network, or hides the page."""

import re
from collections.abc import Iterator

import psycopg
import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.browser.own_page import OwnPage
from tests.conftest import StartApp, StartListener
from tests.support.programs import App
from tests.support.proxy import Proxy
from tests.support.waiting import hold_for, wait_until

pytestmark = pytest.mark.long

# Seconds after waking up, until the page has heard what it missed: 4.6 at most by its timers, 5 as promised, and what a
# busy machine takes.
WITHIN = 7.0
WAKES = {
    "the page becomes visible": "document.dispatchEvent(new Event('visibilitychange'))",
    "the page returns": "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",
    "the network returns": "dispatchEvent(new Event('online'))",
    "the clock jumps": "{ const now = Date.now; Date.now = () => now() + 60_000; }",
    "all at once": """
        document.dispatchEvent(new Event('visibilitychange'));
        for (const type of ['pageshow', 'online']) dispatchEvent(new Event(type));
    """,
}


@pytest.fixture
def app(settings: dict[str, str], start_listener: StartListener, start_app: StartApp) -> App:
    start_listener(settings).wait_until_aligned()
    return start_app(settings).wait_until_ready()


@pytest.fixture
def proxy(app: App) -> Iterator[Proxy]:
    """The network between the page and the server."""
    with Proxy(app.port) as proxy:
        yield proxy


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture(params=["WebSocket", "server-sent events"])
def own(request: pytest.FixtureRequest, page: Page, proxy: Proxy, connection: psycopg.Connection) -> OwnPage:
    """A page that is live, over each transport, and has received an event."""
    if request.param != "WebSocket":
        page.add_init_script("delete window.WebSocket")
    return live_page(page, proxy, connection)


def live_page(page: Page, proxy: Proxy, connection: psycopg.Connection) -> OwnPage:
    own = OwnPage(page, f"http://127.0.0.1:{proxy.port}")
    own.wait_for_state("live")
    notify(connection, 1)
    own.wait_for_numbers([1])
    return own


def notify(connection: psycopg.Connection, *numbers: int) -> None:
    for number in numbers:
        connection.execute("SELECT pg_notify('match_change', %s)", [f'{{"match_id": 7, "data": {{"n": {number}}}}}'])


def wake(page: Page, how: str = "the page becomes visible") -> None:
    page.evaluate(WAKES[how])


def set_hidden(page: Page, hidden: bool) -> None:
    page.evaluate("(value) => Object.defineProperty(document, 'hidden', { value, configurable: true })", hidden)
    wake(page)


@pytest.mark.parametrize("how", WAKES)
def test_a_page_that_wakes_on_a_dead_connection_hears_what_it_missed_within_5_seconds(
    own: OwnPage, proxy: Proxy, connection: psycopg.Connection, how: str
) -> None:
    proxy.stall_established()
    notify(connection, 2, 3)
    wake(own.page, how)
    own.wait_for_numbers([1, 2, 3], WITHIN)
    notify(connection, 4)
    own.wait_for_numbers([1, 2, 3, 4])


def test_a_page_that_wakes_before_its_network_hears_what_it_missed_within_5_seconds_of_that(
    own: OwnPage, proxy: Proxy, connection: psycopg.Connection
) -> None:
    proxy.stall()
    wake(own.page)
    wait_until(lambda: own.attempts > 1, what="the page tries another connection, which is silent too")
    notify(connection, 2)
    proxy.stall_established()
    proxy.resume()
    wake(own.page, "the network returns")
    own.wait_for_numbers([1, 2], WITHIN)


def test_a_page_that_wakes_on_a_connection_that_is_alive_keeps_it(
    page: Page, proxy: Proxy, connection: psycopg.Connection
) -> None:
    own = live_page(page, proxy, connection)
    wake(page, "all at once")
    wait_until(lambda: '{"type":"pong"}' in own.frames, WITHIN, "the server answers")
    hold_for(4, lambda: own.states == ["connecting", "live"])
    notify(connection, 2)
    own.wait_for_numbers([1, 2])
    assert own.attempts == 1


def test_on_a_server_before_the_ping_a_page_that_wakes_makes_one_new_connection_and_keeps_it(
    page: Page, proxy: Proxy, connection: psycopg.Connection
) -> None:
    """During an update, pages have the new module and reach workers that do not answer its ping yet."""

    def drop_pongs(route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        server.on_message(lambda text: None if text == '{"type":"pong"}' else route.send(text))

    page.route_web_socket(re.compile("/api/matches/ws/"), drop_pongs)
    own = live_page(page, proxy, connection)
    wake(page, "all at once")
    wait_until(lambda: own.states == ["connecting", "live", "reconnecting", "live"], what="a new connection")
    notify(connection, 2)
    own.wait_for_numbers([1, 2])
    hold_for(5, lambda: len(own.states) == 4)
    own.wait_for_numbers([1, 2])


def test_while_a_page_is_hidden_its_retries_wait(own: OwnPage, proxy: Proxy, connection: psycopg.Connection) -> None:
    set_hidden(own.page, hidden=True)
    proxy.cut()
    own.wait_for_state("reconnecting")
    notify(connection, 2)
    proxy.resume()
    before = own.attempts
    hold_for(4, lambda: own.attempts == before)  # the first retry is due after half a second
    set_hidden(own.page, hidden=False)
    own.wait_for_numbers([1, 2], WITHIN)


# ---- the status page


@pytest.fixture
def status(page: Page, proxy: Proxy) -> Page:
    page.goto(f"http://127.0.0.1:{proxy.port}/")
    expect(page.locator("#state")).to_have_text("Healthy", timeout=20_000)
    page.wait_for_timeout(3_000)  # a connection that is younger is not asked
    return page


@pytest.mark.parametrize("how", WAKES)
def test_a_status_page_that_wakes_on_a_dead_connection_is_live_within_5_seconds(
    status: Page, proxy: Proxy, how: str
) -> None:
    proxy.stall_established()
    with status.expect_response(re.compile("/api/status/events"), timeout=WITHIN * 1_000):
        wake(status, how)
    expect(status.locator("#state")).to_have_text("Healthy")


def test_while_a_status_page_is_hidden_its_retries_wait(status: Page, proxy: Proxy) -> None:
    set_hidden(status, hidden=True)
    proxy.cut()
    expect(status.locator("#state")).to_have_text("No connection")
    requests: list[str] = []
    status.on("request", lambda request: requests.append(request.url))
    proxy.resume()
    hold_for(4, lambda: not requests and status.evaluate("true"))
    set_hidden(status, hidden=False)
    expect(status.locator("#state")).to_have_text("Healthy", timeout=WITHIN * 1_000)
