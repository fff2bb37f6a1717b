"""The status page in a browser tab."""

import re
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

TIMEOUT_MS = 15_000  # until the page shows a new state
_VIEWPORTS: dict[str, ViewportSize] = {
    "desktop": {"width": 1280, "height": 900},
    "phone": {"width": 360, "height": 740},
}
# Chromium itself logs failed and refused requests; a script can't prevent it.
_NETWORK_ERRORS = re.compile(r"net::ERR_|Failed to load resource")


class StatusPage:
    """The status page in its own tab; collects the errors of its scripts."""

    def __init__(self, browser: Browser, axe: str) -> None:
        self._axe = axe
        self.context = browser.new_context(viewport=_VIEWPORTS["desktop"])
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._on_console(message.type, message.text))

    def _on_console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not _NETWORK_ERRORS.search(text):
            self.errors.append(text)

    def open(self, port: int, query: str = "") -> None:
        self.page.goto(f"http://127.0.0.1:{port}/{query}")

    def wait_for_state(self, state: str, timeout_ms: float = TIMEOUT_MS) -> None:
        expect(self.page.locator("#state")).to_have_text(state, timeout=timeout_ms)

    def wait_for_problem(self, text: str) -> None:
        expect(self.page.locator("#problems")).to_contain_text(text, timeout=TIMEOUT_MS)

    def part(self, name: str, state: str) -> Locator:
        """The boxes of a part of the diagram that are in a state."""
        return self.page.locator(f"[data-part={name}] .box[data-state={state}]")

    def by_id(self, name: str) -> Locator:
        return self.page.locator(f"#{name}")

    def inspect(self, name: str, screenshots: Path) -> None:
        """Take screenshots in both color schemes and sizes; assert that the page fits and is accessible in each."""
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            for size, viewport in _VIEWPORTS.items():
                self.page.set_viewport_size(viewport)
                assert self.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
                self.page.screenshot(path=screenshots / f"{name}-{size}-{scheme}.png", full_page=True)
                self._assert_accessible()
        self.page.set_viewport_size(_VIEWPORTS["desktop"])

    def _assert_accessible(self) -> None:
        # Evaluated as by developer tools: the page's Content-Security-Policy forbids to add the script to the page.
        self.page.evaluate(self._axe)
        violations = self.page.evaluate("axe.run().then(({ violations }) => violations)")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []
