"""The list of recent events on the status page: escaping, filters and pausing."""

import json
import re
from collections.abc import Callable

import psycopg
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.status_page import StatusPage
from tests.conftest import StartApp, StartListener
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

HOSTILE = """"><img src=x onerror="document.title='caught'"><script>document.title='caught'</script><b>bold</b>"""


@pytest.fixture
def rows(settings: dict[str, str], start_listener: StartListener, start_app: StartApp, status: StatusPage) -> Locator:
    start_listener(settings).wait_until_aligned()
    status.open(start_app(settings).wait_until_ready().port)
    status.wait_for_state("Healthy", 20_000)
    return status.page.locator("#recent-events li")


def notify(connection: psycopg.Connection, channel: str, match: object, **data: object) -> None:
    payload = json.dumps({"match_id": match, "data": data})
    connection.execute("SELECT pg_notify(%s, %s)", [channel, payload])


def test_the_content_of_a_payload_is_shown_as_text(
    rows: Locator, status: StatusPage, connection: psycopg.Connection
) -> None:
    notify(connection, "match_change", HOSTILE, note=HOSTILE)
    expect(rows.locator(".match")).to_have_text(HOSTILE)
    expect(rows.locator(".payload")).to_contain_text("<img src=x")
    assert status.page.locator("#recent-events :is(img, script, b)").count() == 0
    assert "caught" not in status.page.title()


def test_the_list_can_be_filtered_by_channel_and_match(
    rows: Locator, status: StatusPage, connection: psycopg.Connection
) -> None:
    def shows_only(channel: str, match: str) -> Callable[[], bool]:
        def condition() -> bool:
            for each_channel in ("match_change", "scoreboard_change"):
                for each_match in (1, 2):
                    notify(connection, each_channel, each_match)
            shown = rows.evaluate_all(
                "(rows) => rows.map((row) => [row.children[1], row.children[2]].map((cell) => cell.textContent))"
            )
            return bool(shown) and all(cells == [channel, match] for cells in shown)

        return condition

    status.page.get_by_label("Channel").fill("scoreboard_change")
    status.page.get_by_label("Match").fill("2")
    wait_until(shows_only("scoreboard_change", "2"))
    status.page.get_by_label("Match").fill("1")
    wait_until(shows_only("scoreboard_change", "1"))


def test_the_list_can_be_filtered_and_paused_by_keyboard(
    rows: Locator, status: StatusPage, connection: psycopg.Connection
) -> None:
    keyboard = status.page.keyboard
    expect(status.page.locator("#demo")).to_be_hidden()  # without the embedded servers there is no demo
    status.page.get_by_label("Channel").focus()
    keyboard.type("match_change")
    keyboard.press("Enter")
    keyboard.press("Tab")
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(status.page.get_by_role("button", name="Resume")).to_be_focused()

    def skips_events() -> bool:
        notify(connection, "match_change", 7)
        return re.search("[1-9]", status.by_id("recent-events-note").inner_text()) is not None

    wait_until(skips_events)
    expect(rows).to_have_count(0)
    keyboard.press("Enter")
    notify(connection, "match_change", 8)
    expect(rows.locator(".match").first).to_have_text("8")
