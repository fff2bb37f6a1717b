"""A page whose team announces ids: what it shows comes from the team's own queries, in every mode and after a gap."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from playwright.sync_api import Browser, Page

from notifymux.event import EventId
from tests.support.chromium import launch_chromium
from tests.support.programs import App, Listener
from tests.support.servers import Servers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parent
FILES = FOLDER / "files"
SNAPSHOT = (FILES / "snapshot.sql").read_text(encoding="utf-8")
# Every operation of every table; the last scoreboard is larger than a notification may be.
CHANGES = [
    "UPDATE match SET status = 'half time'",
    "DELETE FROM match",
    "INSERT INTO match VALUES (1, 'Herons at Badgers', 'back'), (2, 'Others', 'live')",
    "UPDATE matchdata SET quarter = 2",
    "DELETE FROM matchdata",
    "INSERT INTO matchdata VALUES (11, 1, 3, 2)",
    "UPDATE scoreboard SET home = home + 7",
    "DELETE FROM scoreboard",
    "INSERT INTO scoreboard VALUES (12, 1, 7, 3, repeat('x', 20000))",
    "UPDATE gameclock SET seconds = 899, running = true",
    "DELETE FROM gameclock",
    "INSERT INTO gameclock VALUES (13, 1, 700, false)",
    "UPDATE playclock SET seconds = 39",
    "DELETE FROM playclock",
    "INSERT INTO playclock VALUES (14, 1, 25, true)",
    "INSERT INTO football_event SELECT n, 1 + n % 2, 'run', n FROM generate_series(1, 6) n",
    "UPDATE football_event SET yards = yards + 1",
    "DELETE FROM football_event WHERE id < 4",
    "INSERT INTO player_match SELECT n, 1, 'player ' || n, n, true FROM generate_series(1, 40) n",
    "UPDATE player_match SET yards = yards * 2",
    "DELETE FROM player_match WHERE id > 5",
]


class Board:
    """The page, and the database whose state it is to show."""

    def __init__(self, page: Page, port: int, database: psycopg.Connection) -> None:
        self.page, self._database = page, database
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.route("**/board", lambda route: route.fulfill(path=FOLDER / "page.html", content_type="text/html"))
        page.goto(f"http://127.0.0.1:{port}/board")
        page.wait_for_function("window.scoreboard?.connection.state.name === 'live'")

    def change(self, statement: str) -> None:
        """Commit a change and wait until the page shows the state after it."""
        self._database.execute(statement.encode())
        self.wait_until_current()

    def wait_until_current(self, within: float = 20.0) -> None:
        """Wait until the page shows what the database holds."""
        wait_until(lambda: self.shown() == self.stored(), within, lambda: f"{self.shown()}\nis not\n{self.stored()}")

    def shown(self) -> Any:
        return json.loads(self.page.evaluate("JSON.stringify(window.scoreboard.state)")) | {}

    def stored(self) -> Any:
        with psycopg.ClientCursor(self._database) as cursor:
            [(state,)] = cursor.execute(SNAPSHOT, {"match_id": "1"}).fetchall()
        return state

    def ids(self) -> list[EventId]:
        """Return the ids of all messages, in the order in which the page received them."""
        return [EventId.parse(text) for _, text in self.page.evaluate("window.scoreboard.seen")]


@pytest.fixture
def chromium() -> Iterator[Browser]:
    with launch_chromium() as browser:
        yield browser


@pytest.fixture
def database(servers: Servers) -> Iterator[psycopg.Connection]:
    with closing(psycopg.connect(servers.embedded.database_url, autocommit=True)) as connection:
        connection.execute((FOLDER / "schema.sql").read_bytes())
        yield connection


def test_the_page_shows_every_operation_of_every_table_through_a_killed_listener_and_a_wiped_redis(
    servers: Servers, database: psycopg.Connection, chromium: Browser, tmp_path: Path
) -> None:
    settings = servers.settings | {"QUERIES_DIR": str(FILES), "QUERY_TIMEOUT": "10"}
    with Listener(tmp_path, settings) as listener, App(tmp_path, settings) as app:
        listener.wait_until_aligned()
        app.wait_until_ready()
        board = Board(chromium.new_page(), app.port, database)
        for statement in CHANGES:
            board.change(statement)
        listener.kill()
        database.execute(b"UPDATE scoreboard SET away = 14; DELETE FROM football_event")
        with Listener(tmp_path, settings) as second:
            second.wait_until_aligned(within=40)
            board.wait_until_current(40)
            with redis.Redis.from_url(servers.embedded.redis_url) as client:
                client.flushall()
            board.change("INSERT INTO football_event VALUES (9, 1, 'kick', 40)")
            for statement in reversed(CHANGES[:-3]):
                if not statement.startswith("INSERT"):
                    board.change(statement)
        ids = board.ids()
        assert ids == sorted(ids)
        assert board.errors == []


def test_the_page_shows_the_same_where_workers_listen_directly(
    servers: Servers, database: psycopg.Connection, chromium: Browser, tmp_path: Path
) -> None:
    settings = servers.settings | {"QUERIES_DIR": str(FILES), "QUERY_TIMEOUT": "10", "USE_REDIS_NOTIFIER": "false"}
    with App(tmp_path, settings) as app:
        app.wait_until_ready()
        board = Board(chromium.new_page(), app.port, database)
        for statement in CHANGES:
            board.change(statement)
        assert board.errors == []
