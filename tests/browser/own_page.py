"""A page of a team's own that uses notifymux.js."""

from typing import Any

from playwright.sync_api import Page, Request, WebSocket

from tests.support.waiting import wait_until

# Besides `window.connection`: all states, messages and tokens so far.
_CONNECT = """
async ([module, options, token]) => {
  const { connect } = await import(module);
  Object.assign(window, { states: [], messages: [], tokens: [] });
  if (token) options.token = () => (tokens.push(token[Math.min(tokens.length, token.length - 1)]), tokens.at(-1));
  window.connection = connect(options);
  connection.onState((state) => states.push(state));
  connection.on("*", (message) => messages.push(message));
}
"""


class OwnPage:
    """A page whose document is `url`/healthz, so that it has no scripts but these, and is of the same origin.

    A page that a test answers itself would not do: Chromium blocks its WebSockets to loopback.
    """

    def __init__(self, page: Page, url: str, module: str = "", **options: Any) -> None:
        self.page = page
        self.sockets: list[str] = []
        self._frames: list[str] = []
        self._streams: list[str] = []
        page.on("websocket", self._on_socket)
        page.on("request", self._on_request)
        page.goto(f"{url}/healthz")
        self.connect(module or f"{url}/static/notifymux.js", match=7, base=f"{url}/", **options)

    def connect(self, module: str, tokens: list[str] | None = None, **options: Any) -> None:
        """Connect with the options; `tokens` are what the function that returns a token does so in turns."""
        self.page.evaluate(_CONNECT, [module, options, tokens])

    def _on_socket(self, socket: WebSocket) -> None:
        self.sockets.append(socket.url)
        socket.on("framereceived", self._on_frame)

    def _on_frame(self, frame: str | bytes) -> None:
        self._frames.append(str(frame))

    def _on_request(self, request: Request) -> None:
        if "/events" in request.url:
            self._streams.append(request.url)

    @property
    def frames(self) -> list[str]:
        """The frames that the page has received so far."""
        self.page.evaluate("true")  # or Playwright passes on no events
        return self._frames

    @property
    def attempts(self) -> int:
        """The number of connections that the page has begun so far."""
        self.page.evaluate("true")  # as above
        return len(self.sockets) + len(self._streams)

    @property
    def states(self) -> list[str]:
        """The names of the states so far."""
        return [state["name"] for state in self.page.evaluate("states")]

    @property
    def numbers(self) -> list[int]:
        """What the updates so far have in `data.n`."""
        return list(self.page.evaluate("messages.filter(({ type }) => type === 'match-update').map((m) => m.data.n)"))

    def wait_for_state(self, name: str, within: float = 20.0) -> dict[str, Any]:
        """Wait until the state has a name; return it."""
        wait_until(
            lambda: self.page.evaluate("connection.state.name") == name, within, lambda: f"{name}: {self.states}"
        )
        return dict(self.page.evaluate("connection.state"))

    def wait_for_numbers(self, numbers: list[int], within: float = 20.0) -> None:
        """Wait until the page has received exactly these."""
        wait_until(lambda: self.numbers == numbers, within, lambda: f"{numbers}: {self.numbers}, {self.states}")
