"""The demo page, which rests on notifymux.js, over what may happen to it: it ends with what the database says."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import jwt
import psutil
import psycopg
import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect
from psycopg import sql
from psycopg.rows import dict_row

from tests.appliance.test_appliance import MATCH, Appliance
from tests.conftest import StartApp, StartListener
from tests.support.documents import README, block
from tests.support.waiting import wait_until

LIVE = "body[data-link=live]"
# What Chromium writes about a network that isn't there, by itself: no script can keep it from that.
_NETWORK = re.compile(r"WebSocket connection to|net::ERR_|Failed to load resource")


class Board:
    """The demo in a tab of its own."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.context = browser.new_context()
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.sockets = 0
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._noted(message.type, message.text))
        self.page.on("websocket", lambda _: self._opened())
        self.page.goto(url)

    def _noted(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not _NETWORK.search(text):
            self.errors.append(text)

    def _opened(self) -> None:
        self.sockets += 1

    def live(self) -> None:
        expect(self.page.locator(LIVE)).to_be_visible(timeout=40_000)

    def count(self) -> int:
        """The sequence of the last event."""
        text = self.page.locator("#last-id").inner_text()
        return int(text.partition("-")[2] or 0) if "-" in text else 0

    def shows(self) -> dict[str, str]:
        """What the board says, by the ids of its parts."""
        parts = ("home-score", "away-score", "gameclock", "playclock", "quarter", "down", "drive", "events", "players")
        return {part: self.page.locator(f"#{part}").inner_text() for part in parts}

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def open_board(chromium: Browser) -> Iterator[Callable[[str], Board]]:
    boards: list[Board] = []

    def open_one(url: str) -> Board:
        boards.append(Board(chromium, url))
        return boards[-1]

    yield open_one
    for board in boards:
        board.close()


@pytest.fixture
def board(appliance: Appliance, open_board: Callable[[str], Board]) -> Iterator[Board]:
    """A board that is live; afterwards the match goes on."""
    board = open_board(demo(appliance))
    board.live()
    wait_until(lambda: board.count() > 0)
    yield board
    appliance.ctl("start", "demo")


def demo(appliance: Appliance) -> str:
    return f"http://127.0.0.1:{appliance.port}/demo"


def in_the_database(appliance: Appliance, table: str) -> list[dict[str, Any]]:
    """The match's rows, the newest first."""
    query = sql.SQL("SELECT * FROM {} WHERE match_id = %s ORDER BY id DESC").format(sql.Identifier(table))
    with closing(psycopg.connect(appliance.database_url, row_factory=dict_row)) as connection:
        return connection.execute(query, [MATCH]).fetchall()


def agrees(appliance: Appliance, board: Board, open_board: Callable[[str], Board]) -> None:
    """The match stands still: the board shows what a fresh one does, and both what the database says."""
    appliance.ctl("stop", "demo")
    fresh = open_board(demo(appliance))
    fresh.live()
    wait_until(lambda: board.shows() == fresh.shows(), what=f"{board.shows()} is {fresh.shows()}")
    (score,), (clock,) = (in_the_database(appliance, table) for table in ("scoreboard", "gameclock"))
    shown = board.shows()
    assert (shown["home-score"], shown["away-score"]) == (str(score["home_score"]), str(score["away_score"]))
    assert shown["gameclock"] == f"{clock['seconds'] // 60}:{clock['seconds'] % 60:02}"
    for event in in_the_database(appliance, "football_event")[:10]:
        assert event["text"] in shown["events"]
    assert board.errors == fresh.errors == []


def goes_on(board: Board) -> None:
    seen = board.count()
    wait_until(lambda: board.count() > seen + 3, 40, "the board goes on")
    board.live()


@pytest.mark.long
def test_the_worker_that_serves_is_killed(
    appliance: Appliance, board: Board, open_board: Callable[[str], Board]
) -> None:
    sockets = board.sockets
    for worker in psutil.Process(appliance.pid_of("app")).children():
        if any(each.status == "ESTABLISHED" for each in worker.net_connections("inet") if serves(each, appliance)):
            os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: board.page.evaluate("1") and board.sockets > sockets)
    goes_on(board)
    agrees(appliance, board, open_board)
    assert board.page.locator("#resyncs").inner_text() == "0"


def serves(connection: Any, appliance: Appliance) -> bool:
    return bool(connection.laddr.port == appliance.port)


@pytest.mark.long
def test_redis_restarts(appliance: Appliance, board: Board, open_board: Callable[[str], Board]) -> None:
    appliance.ctl("restart", "valkey")
    goes_on(board)
    agrees(appliance, board, open_board)


@pytest.mark.long
def test_the_listener_is_killed(appliance: Appliance, board: Board, open_board: Callable[[str], Board]) -> None:
    os.kill(appliance.pid_of("listener"), signal.SIGKILL)
    wait_until(lambda: board.page.locator("#resyncs").inner_text() == "1", 40, "the break is announced")
    goes_on(board)
    agrees(appliance, board, open_board)


@pytest.mark.long
def test_the_network_is_away_for_20_seconds(
    appliance: Appliance, board: Board, open_board: Callable[[str], Board]
) -> None:
    board.context.set_offline(True)
    expect(board.page.locator("body[data-link=reconnecting]")).to_be_visible()
    seen = board.count()
    board.page.wait_for_timeout(20_000)  # as long as it is away
    assert board.count() == seen
    board.context.set_offline(False)
    expect(board.page.locator("#link")).to_have_text("Live, nothing missed")
    goes_on(board)
    agrees(appliance, board, open_board)
    assert board.page.locator("#resyncs").inner_text() == "0"


@pytest.mark.long
def test_a_page_with_the_readmes_lines_shows_the_score(appliance: Appliance, chromium: Browser) -> None:
    page = chromium.new_page()
    page.route("**/own", lambda route: route.fulfill(content_type="text/html", body=block(README, "html", "connect(")))
    page.goto(f"http://127.0.0.1:{appliance.port}/own")
    expect(page.locator("#link")).to_have_text("live")
    appliance.ctl("stop", "demo")
    [score] = in_the_database(appliance, "scoreboard")
    for side in ("home", "away"):
        expect(page.locator(f"#{side}")).to_have_text(str(score[f"{side}_score"]))
    page.close()
    appliance.ctl("start", "demo")


@pytest.mark.long
def test_where_no_websocket_gets_through_the_event_stream_does(
    appliance: Appliance, chromium: Browser, open_board: Callable[[str], Board]
) -> None:
    board = open_board("about:blank")

    def refuse(route: WebSocketRoute) -> None:
        route.close(code=3999)

    board.page.route_web_socket(re.compile("/api/matches/ws/"), refuse)
    with board.page.expect_response(re.compile("/api/matches/1/events")) as response:
        board.page.goto(demo(appliance))
    assert response.value.headers["content-type"].startswith("text/event-stream")
    goes_on(board)
    agrees(appliance, board, open_board)
    appliance.ctl("start", "demo")


def test_a_page_without_a_token_says_that_it_is_refused_and_one_with_a_token_is_live(
    settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
    open_board: Callable[[str], Board],
) -> None:
    secret = "a secret that is long enough for HS256"
    start_listener(settings).aligned()
    app = start_app(settings | {"WS_JWT_SECRET": secret}).ready()
    refused = open_board(f"http://127.0.0.1:{app.port}/demo")
    expect(refused.page.locator("body[data-link=refused]")).to_be_visible()
    expect(refused.page.locator("#note")).to_contain_text("a token is needed")
    live = open_board(f"http://127.0.0.1:{app.port}/demo?token={jwt.encode({'matches': [1]}, secret)}")
    live.live()
    assert live.errors == refused.errors == []
