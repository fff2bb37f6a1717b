"""Both pages of the appliance in a real browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.appliance.test_appliance import Appliance
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def pages(chromium: Browser) -> Iterator[list[Page]]:
    pages = [chromium.new_page() for _ in range(2)]
    yield pages
    for page in pages:
        page.close()


def test_the_status_page_shows_a_healthy_system_and_links_to_the_demo(appliance: Appliance, pages: list[Page]) -> None:
    page = pages[0]
    page.goto(f"http://127.0.0.1:{appliance.port}/")
    expect(page.locator("#state")).to_have_text("Healthy", timeout=20_000)
    expect(page.locator("#embedded")).to_be_visible()
    page.get_by_role("link", name="Watch the live match").click()
    expect(page.locator("body[data-connection=live]")).to_be_visible()


def shown_by(page: Page) -> list[str]:
    return [page.locator(f"#{part}").inner_text() for part in ("last-id", "home-score")]


def test_two_browsers_show_the_same_match_across_a_restart_of_the_app(appliance: Appliance, pages: list[Page]) -> None:
    errors: list[str] = []
    for page in pages:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://127.0.0.1:{appliance.port}/demo")
        expect(page.locator("body[data-connection=live]")).to_be_visible()
    appliance.ctl("restart", "app")
    for page in pages:
        expect(page.locator("body[data-connection=live]")).to_be_visible(timeout=30_000)
    appliance.ctl("stop", "demo")
    first, second = pages
    wait_until(lambda: shown_by(first) == shown_by(second), what=lambda: f"{shown_by(first)}, {shown_by(second)}")
    assert errors == []
