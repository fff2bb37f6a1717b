"""A page of the demo in its own tab."""

import re

from playwright.sync_api import Browser, Page, expect

# Chromium itself logs that the network is unreachable; a script can't prevent it.
_NETWORK_ERRORS = re.compile(r"WebSocket connection to|net::ERR_|Failed to load resource")


class DemoPage:
    """A tab; collects the errors of its scripts and counts its WebSockets."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.context = browser.new_context()
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.sockets = 0
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._on_console(message.type, message.text))
        self.page.on("websocket", lambda _: self._on_websocket())
        self.page.goto(url)

    def _on_console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not _NETWORK_ERRORS.search(text):
            self.errors.append(text)

    def _on_websocket(self) -> None:
        self.sockets += 1

    def wait_until_live(self) -> None:
        expect(self.page.locator("body[data-connection=live]")).to_be_visible(timeout=40_000)

    def close(self) -> None:
        self.context.close()
