"""Pages that hear several matches over one connection, and what they have heard."""

import itertools
from contextlib import suppress
from typing import Any

from playwright.sync_api import BrowserContext, Error, Page, Request, WebSocket

from notifymux.event import EventId
from tests.support.waiting import wait_until

_CONNECT = """
async ([module, options]) => {
  const { connect } = await import(module);
  Object.assign(window, { states: [], messages: [], numbers: {} });
  window.connection = connect(options);
  connection.onState((state) => states.push(state.name));
  connection.on("*", (message) => {
    messages.push(message);
    if (message.data) numbers[message.match_id] = message.data.n; // in a start or an update
  });
}
"""
_STARTS = ("initial-load", "resync")


class SeveralMatchesPage:
    """A tab that connects to matches by notifymux.js."""

    def __init__(self, context: BrowserContext, url: str, matches: list[int], script: str = "", **options: Any) -> None:
        self.matches = matches
        self.sockets: list[WebSocket] = []
        self.streams: list[str] = []
        self.page: Page = context.new_page()
        if script:
            self.page.add_init_script(script)
        self.page.on("websocket", self._on_socket)
        self.page.on("request", self._on_request)
        self.page.goto(f"{url}/healthz")  # of the same origin, and without a script of its own
        options = {"matches": matches, "base": f"{url}/", **options}
        self.page.evaluate(_CONNECT, [f"{url}/static/notifymux.js", options])

    def _on_socket(self, socket: WebSocket) -> None:
        self.sockets.append(socket)

    def _on_request(self, request: Request) -> None:
        if "/events" in request.url:
            self.streams.append(request.url)

    @property
    def open_sockets(self) -> int:
        """How many WebSockets are open."""
        self.page.evaluate("true")  # or Playwright passes on no events
        return sum(not socket.is_closed() for socket in self.sockets)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.page.evaluate("messages"))

    def numbers_of(self, match: int) -> list[int | None]:
        """What the messages of a match brought so far."""
        return [number_of(each) for each in self.messages if each["match_id"] == match]

    def close(self) -> None:
        self.page.close()

    def crash(self) -> None:
        """Have the renderer of this tab crash."""
        with self.page.expect_event("crash"), suppress(Error):
            self.page.goto("chrome://crash")

    @property
    def numbers(self) -> dict[str, int]:
        """The state of each match that has started, by its last start or update."""
        return dict(self.page.evaluate("numbers"))

    def wait_until_started(self, within: float = 40.0) -> None:
        """Wait until every match has had a start."""
        expected = set(map(str, self.matches))
        wait_until(lambda: self.numbers.keys() >= expected, within, lambda: f"started: {self.numbers}")

    def wait_until_heard(self, last: int, within: float = 60.0) -> None:
        """Wait until the newest state of each match is `last`."""
        expected = dict.fromkeys(map(str, self.matches), last)
        wait_until(lambda: expected.items() <= self.numbers.items(), within, lambda: f"{last}: {self.numbers}")

    def assert_complete(self) -> None:
        """Assert that no event of a match is lost, repeated or out of order but behind an announced start."""
        for match in self.matches:
            assert_complete([each for each in self.messages if each["match_id"] == match])

    def assert_in_commit_order(self) -> None:
        """Assert that updates come in commit order over all matches, between two starts of any of them."""
        groups = itertools.groupby(self.messages, key=lambda each: each["type"] in _STARTS)
        for is_start, group in groups:
            ids = [EventId.parse(each["id"]) for each in group if not is_start]
            assert ids == sorted(set(ids)), [(str(a), str(b)) for a, b in itertools.pairwise(ids) if a >= b]


def number_of(message: dict[str, Any]) -> int | None:
    """The state that a message brings; None if it brings none."""
    return None if message["type"] == "stale" or message.get("recovered") else int(message["data"]["n"])


def assert_complete(messages: list[dict[str, Any]]) -> None:
    """Assert that the messages of one match count on, from a snapshot and by updates."""
    assert messages[0]["type"] == "initial-load"
    known, last = 0, ""
    for message in messages:
        number = number_of(message)
        if message["type"] in _STARTS:
            assert number is not None or message["id"] == last, f"recovered from another id than {last}: {message}"
            known, last = known if number is None else number, message["id"]
        elif number is not None:
            assert EventId.parse(message["id"]) > EventId.parse(last), f"repeated or out of order: {last}, {message}"
            assert number <= known + 1, f"lost after {known}: {message}"
            known, last = max(known, number), message["id"]
