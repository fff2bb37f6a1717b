"""The demo page, which uses notifymux.js, shows what the database has after each kind of fault."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jwt
import psutil
import psycopg
import pytest
from playwright.sync_api import Browser, WebSocketRoute, expect
from psycopg import sql
from psycopg.rows import dict_row

from app.appliance.demo.teams import FIXTURES
from tests.appliance.test_appliance import MATCH, Appliance
from tests.browser.demo_page import DemoPage
from tests.conftest import StartApp, StartListener
from tests.support.documents import README, block
from tests.support.waiting import wait_until


class Scoreboard(DemoPage):
    """The page of one match."""

    def wait_for_new_events(self) -> None:
        before = self.sequence()
        wait_until(lambda: self.sequence() > before + 3, 40, "the scoreboard receives new events")
        self.wait_until_live()

    def sequence(self) -> int:
        """The sequence number of the last event; 0 before the first."""
        text = self.page.locator("#last-id").inner_text()
        return int(text.partition("-")[2] or 0) if "-" in text else 0

    def resyncs(self) -> str:
        return self.page.locator("#resyncs").inner_text()

    def content(self) -> dict[str, str]:
        """The text of each part, by its id."""
        parts = ("home-score", "away-score", "gameclock", "playclock", "quarter", "down", "drive", "events", "players")
        return {part: self.page.locator(f"#{part}").inner_text() for part in parts}


OpenScoreboard = Callable[[str], Scoreboard]


@pytest.fixture
def open_scoreboard(chromium: Browser) -> Iterator[OpenScoreboard]:
    scoreboards: list[Scoreboard] = []

    def open_one(url: str) -> Scoreboard:
        scoreboards.append(Scoreboard(chromium, url))
        return scoreboards[-1]

    yield open_one
    for scoreboard in scoreboards:
        scoreboard.close()


@pytest.fixture
def scoreboard(appliance: Appliance, open_scoreboard: OpenScoreboard) -> Iterator[Scoreboard]:
    """A scoreboard that is live. The match continues after the test."""
    scoreboard = open_scoreboard(demo_url(appliance))
    scoreboard.wait_until_live()
    wait_until(lambda: scoreboard.sequence() > 0)
    yield scoreboard
    appliance.ctl("start", "demo")


def demo_url(appliance: Appliance) -> str:
    return f"http://127.0.0.1:{appliance.port}/demo"


def rows(appliance: Appliance, table: str) -> list[dict[str, Any]]:
    """The match's rows of a table, newest first."""
    query = sql.SQL("SELECT * FROM {} WHERE match_id = %s ORDER BY id DESC").format(sql.Identifier(table))
    with closing(psycopg.connect(appliance.database_url, row_factory=dict_row)) as connection:
        return connection.execute(query, [MATCH]).fetchall()


def assert_consistent(appliance: Appliance, scoreboard: Scoreboard, open_scoreboard: OpenScoreboard) -> None:
    """Stop the match; assert that the scoreboard shows the same as a new one, and both what the database has."""
    appliance.ctl("stop", "demo")
    fresh = open_scoreboard(demo_url(appliance))
    fresh.wait_until_live()
    wait_until(lambda: scoreboard.content() == fresh.content(), what=f"{scoreboard.content()} is {fresh.content()}")
    (score,), (clock,) = (rows(appliance, table) for table in ("scoreboard", "gameclock"))
    content = scoreboard.content()
    assert (content["home-score"], content["away-score"]) == (str(score["home_score"]), str(score["away_score"]))
    assert content["gameclock"] == f"{clock['seconds'] // 60}:{clock['seconds'] % 60:02}"
    for event in rows(appliance, "football_event")[:10]:
        assert event["text"] in content["events"]
    assert scoreboard.errors == fresh.errors == []


@pytest.mark.long
def test_a_killed_worker_costs_no_event(
    appliance: Appliance, scoreboard: Scoreboard, open_scoreboard: OpenScoreboard
) -> None:
    sockets = scoreboard.sockets
    for worker in psutil.Process(appliance.pid_of("app")).children():
        connections = worker.net_connections("inet")
        if any(each.status == "ESTABLISHED" and each.laddr.port == appliance.port for each in connections):
            os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: scoreboard.page.evaluate("1") and scoreboard.sockets > sockets)
    scoreboard.wait_for_new_events()
    assert_consistent(appliance, scoreboard, open_scoreboard)
    assert scoreboard.resyncs() == "0"


@pytest.mark.long
def test_the_scoreboard_recovers_from_a_restart_of_redis(
    appliance: Appliance, scoreboard: Scoreboard, open_scoreboard: OpenScoreboard
) -> None:
    appliance.ctl("restart", "valkey")
    scoreboard.wait_for_new_events()
    assert_consistent(appliance, scoreboard, open_scoreboard)


@pytest.mark.long
def test_a_killed_listener_is_one_announced_gap(
    appliance: Appliance, scoreboard: Scoreboard, open_scoreboard: OpenScoreboard
) -> None:
    os.kill(appliance.pid_of("listener"), signal.SIGKILL)
    wait_until(lambda: scoreboard.resyncs() == "1", 40, "the gap is announced")
    scoreboard.wait_for_new_events()
    assert_consistent(appliance, scoreboard, open_scoreboard)


@pytest.mark.long
def test_20_seconds_without_network_cost_no_event(
    appliance: Appliance, scoreboard: Scoreboard, open_scoreboard: OpenScoreboard
) -> None:
    scoreboard.context.set_offline(True)
    expect(scoreboard.page.locator("body[data-connection=reconnecting]")).to_be_visible()
    # What came before the fault is rendered with the next frame.
    scoreboard.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    sequence = scoreboard.sequence()
    scoreboard.page.wait_for_timeout(20_000)  # the duration of the fault
    assert scoreboard.sequence() == sequence
    scoreboard.context.set_offline(False)
    expect(scoreboard.page.locator("#connection")).to_have_text("Live, nothing missed")
    scoreboard.wait_for_new_events()
    assert_consistent(appliance, scoreboard, open_scoreboard)
    assert scoreboard.resyncs() == "0"


@pytest.mark.long
def test_a_page_with_the_code_from_the_readme_shows_the_score(appliance: Appliance, chromium: Browser) -> None:
    page = chromium.new_page()
    page.route("**/own", lambda route: route.fulfill(content_type="text/html", body=block(README, "html", "connect(")))
    page.goto(f"http://127.0.0.1:{appliance.port}/own")
    expect(page.locator("#link")).to_have_text("live")
    appliance.ctl("stop", "demo")
    [score] = rows(appliance, "scoreboard")
    for side in ("home", "away"):
        expect(page.locator(f"#{side}")).to_have_text(str(score[f"{side}_score"]))
    page.close()
    appliance.ctl("start", "demo")


@pytest.mark.long
def test_where_websockets_are_blocked_the_event_stream_is_used(
    appliance: Appliance, open_scoreboard: OpenScoreboard
) -> None:
    scoreboard = open_scoreboard("about:blank")

    def refuse(route: WebSocketRoute) -> None:
        route.close(code=3999)

    scoreboard.page.route_web_socket(re.compile("/api/matches/ws/"), refuse)
    with scoreboard.page.expect_response(re.compile("/api/matches/1/events")) as response:
        scoreboard.page.goto(demo_url(appliance))
    assert response.value.headers["content-type"].startswith("text/event-stream")
    scoreboard.wait_for_new_events()
    assert_consistent(appliance, scoreboard, open_scoreboard)
    appliance.ctl("start", "demo")


def test_the_pages_are_live_with_a_token_for_its_matches_and_show_a_refusal_without(
    settings: dict[str, str],
    tmp_path: Path,
    start_listener: StartListener,
    start_app: StartApp,
    open_scoreboard: OpenScoreboard,
) -> None:
    secret = "a secret that is long enough for HS256"
    start_listener(settings).wait_until_aligned()
    # The page is served with the embedded servers only: the settings are where those of the embedded servers are.
    (tmp_path / ".run").mkdir(exist_ok=True)
    (tmp_path / ".run" / "embedded.env").write_text("".join(f"{name}='{text}'\n" for name, text in settings.items()))
    app = start_app({"WS_JWT_SECRET": secret}).wait_until_ready()
    refused = open_scoreboard(f"http://127.0.0.1:{app.port}/demo")
    expect(refused.page.locator("body[data-connection=refused]")).to_be_visible()
    expect(refused.page.locator("#note")).to_contain_text("a token is needed")
    query = f"?token={jwt.encode({'matches': [1]}, secret)}"
    live = open_scoreboard(f"http://127.0.0.1:{app.port}/demo{query}")
    live.wait_until_live()
    live.page.get_by_role("link", name="All live matches").click()
    cards = live.page.locator(".match")
    expect(cards).to_have_count(len(FIXTURES))
    for number, card in enumerate(cards.all(), start=1):
        expect(card).to_have_class("board match" if number == 1 else "board match removed")
        expect(card.locator(".match-note")).to_contain_text("no snapshot" if number == 1 else "Refused")
    assert live.errors == refused.errors == []
