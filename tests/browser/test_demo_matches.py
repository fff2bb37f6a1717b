"""The demo page of several matches shows them live over one WebSocket."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from playwright.sync_api import Browser, Locator, expect

from app.appliance.demo.teams import FIXTURES
from tests.appliance.test_appliance import Appliance
from tests.browser.demo_page import DemoPage
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

SCORES = "SELECT match_id, home_score, away_score, seconds FROM scoreboard JOIN gameclock USING (match_id)"
NARROW_PX = 320
LONGEST_REST = 150  # seconds; for up to 113 of them, from one game to the next, nothing of a match changes


class MatchesPage(DemoPage):
    """The page of several matches."""

    def __init__(self, browser: Browser, appliance: Appliance) -> None:
        super().__init__(browser, f"http://127.0.0.1:{appliance.port}/demo/matches")
        self.wait_until_live()

    def card(self, match: int) -> Locator:
        return self.page.locator(".match").filter(has=self.page.get_by_role("link", name=f"Match {match}", exact=True))

    def messages(self, match: int) -> int:
        """How many messages of a match have come."""
        return int(self.card(match).locator(".messages").inner_text().split()[0].replace(",", ""))

    def toggle(self, action: str, match: int) -> None:
        self.page.get_by_role("button", name=f"{action} match {match}", exact=True).click()

    def wait_for_messages(self, *matches: int, more: int = 3) -> None:
        """Wait until the matches have had some more messages together."""
        target = sum(map(self.messages, matches)) + more
        wait_until(lambda: sum(map(self.messages, matches)) >= target, LONGEST_REST)

    def scores(self) -> dict[int, tuple[str, str, str]]:
        """Of each match the two scores and the clock."""
        return {match: self._scores_of(self.card(match)) for match in FIXTURES}

    def _scores_of(self, card: Locator) -> tuple[str, str, str]:
        home, away = card.locator(".score").all_inner_texts()
        return home, away, card.locator(".clock").inner_text()


@pytest.fixture
def matches_page(appliance: Appliance, chromium: Browser) -> Iterator[MatchesPage]:
    """The page, live; its scripts must not fail. The matches go on after the test."""
    page = MatchesPage(chromium, appliance)
    yield page
    page.close()
    appliance.ctl("start", "demo")
    assert page.errors == []


def database_scores(appliance: Appliance) -> dict[int, tuple[str, str, str]]:
    with closing(psycopg.connect(appliance.database_url)) as connection:
        rows = connection.execute(SCORES).fetchall()
    return {match: (str(home), str(away), f"{left // 60}:{left % 60:02}") for match, home, away, left in rows}


def wait_until_shown(appliance: Appliance, page: MatchesPage) -> None:
    """Stop the matches; wait until the page shows what the database has."""
    appliance.ctl("stop", "demo")
    expected = database_scores(appliance)
    wait_until(lambda: page.scores() == expected, 20, lambda: f"{page.scores()} is {expected}")


def test_all_matches_are_live_over_one_websocket(appliance: Appliance, matches_page: MatchesPage) -> None:
    assert matches_page.page.locator(".match").count() == len(FIXTURES)
    for match, fixture in FIXTURES.items():
        names = [fixture["home"].name, fixture["away"].name]
        expect(matches_page.card(match).locator(".name")).to_have_text(names)
    for match in FIXTURES:
        matches_page.wait_for_messages(match)
    wait_until_shown(appliance, matches_page)
    expect(matches_page.page.locator("#count")).to_have_text(str(len(FIXTURES)))
    assert matches_page.sockets == 1


def test_a_removed_match_stands_still_and_goes_on_when_it_is_added_again(
    appliance: Appliance, matches_page: MatchesPage
) -> None:
    removed, *others = FIXTURES
    matches_page.wait_for_messages(removed)
    matches_page.toggle("Remove", removed)
    card = matches_page.card(removed)
    expect(card).to_have_class("board match removed")
    before = card.inner_text()
    matches_page.wait_for_messages(*others)
    assert card.inner_text() == before
    matches_page.toggle("Add", removed)
    expect(card).to_have_class("board match")
    matches_page.wait_for_messages(removed)
    wait_until_shown(appliance, matches_page)
    expect(matches_page.page.locator("#resyncs")).to_have_text("0")
    assert matches_page.sockets == 1


def test_a_page_without_a_match_says_so_and_connects_again_for_one(matches_page: MatchesPage) -> None:
    for match in FIXTURES:
        matches_page.toggle("Remove", match)
    expect(matches_page.page.locator("#connection")).to_have_text("No match")
    first = next(iter(FIXTURES))
    matches_page.toggle("Add", first)
    matches_page.wait_until_live()
    matches_page.wait_for_messages(first)
    assert matches_page.sockets == 2


def test_the_page_fits_into_a_narrow_window_and_links_to_a_match_of_its_own(matches_page: MatchesPage) -> None:
    page = matches_page.page
    page.set_viewport_size({"width": NARROW_PX, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW_PX
    match, fixture = list(FIXTURES.items())[-1]
    matches_page.card(match).get_by_role("link").click()
    expect(page.locator("#match")).to_have_text(f"{fixture['away'].name} at {fixture['home'].name}")
    page.get_by_role("link", name="All live matches").click()
    expect(page.locator(".match")).to_have_count(len(FIXTURES))
