"""The status page: it shows each state within seconds, also to those who don't see it, and nothing that isn't so."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import psycopg
import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from tests.conftest import StartApp, StartListener
from tests.support.npm import installed
from tests.support.programs import App, Listener
from tests.support.proxy import Proxy
from tests.support.servers import Servers, database_settings, through
from tests.support.waiting import wait_until
from tests.support.writer import Writer

pytestmark = pytest.mark.long

SOON = 5_000  # milliseconds within which a state has to be seen, or no longer to be seen
SECRET = "a secret that is long enough for HS256"
SIZES: dict[str, ViewportSize] = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
# What Chromium writes about a server that isn't there or refuses, by itself: no script can keep it from that.
_NETWORK = re.compile(r"net::ERR_|Failed to load resource")


class StatusPage:
    """The status page in a tab of its own."""

    def __init__(self, browser: Browser, axe: str) -> None:
        self._axe = axe
        self.context = browser.new_context(viewport=SIZES["desktop"])
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._noted(message.type, message.text))

    def _noted(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not _NETWORK.search(text):
            self.errors.append(text)

    def open(self, port: int, query: str = "") -> None:
        self.page.goto(f"http://127.0.0.1:{port}/{query}")

    def says(self, state: str, within: float = SOON) -> None:
        """Waits until the page says so."""
        expect(self.page.locator("#state")).to_have_text(state, timeout=within)

    def problem(self, text: str, within: float = SOON) -> None:
        expect(self.page.locator("#problems")).to_contain_text(text, timeout=within)

    def part(self, name: str, state: str) -> Locator:
        """What is in this state of a part of the pipe."""
        return self.page.locator(f"[data-part={name}] .box[data-state={state}]")

    def number(self, name: str) -> Locator:
        return self.page.locator(f"#{name}")

    def inspect(self, name: str, shots: Path) -> None:
        """Takes its picture by day and by night, large and small; whoever can't see it finds the same."""
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            for size, viewport in SIZES.items():
                self.page.set_viewport_size(viewport)
                assert self.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
                self.page.screenshot(path=shots / f"{name}-{size}-{scheme}.png", full_page=True)
                self.is_accessible()
        self.page.set_viewport_size(SIZES["desktop"])

    def is_accessible(self) -> None:
        self.page.evaluate(self._axe)  # as the browser's developer tools do: no script of another origin may run
        violations = self.page.evaluate("axe.run().then(({ violations }) => violations)")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = installed(Path(__file__).parent, tmp_path_factory.mktemp("axe") / "project")
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def status(chromium: Browser, axe: str) -> Iterator[StatusPage]:
    status = StatusPage(chromium, axe)
    yield status
    status.context.close()
    assert status.errors == []


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where pictures go: STATUS_SHOTS, if somebody wants to look at them."""
    folder = Path(os.environ.get("STATUS_SHOTS") or tmp_path / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class World(NamedTuple):
    """A listener, two workers whose way to Redis can be narrowed, and somebody who writes."""

    servers: Servers
    listener: Listener
    way: Proxy
    settings: Mapping[str, str]
    app: App
    writer: Writer


@pytest.fixture
def world(servers: Servers, start_listener: StartListener, start_app: StartApp, status: StatusPage) -> Iterator[World]:
    embedded = servers.embedded
    settings = database_settings(embedded.database_url) | {"USE_REDIS_NOTIFIER": "true", "POD_NAME": "here"}
    with Proxy(embedded.valkey_port) as way, Writer(embedded.database_url, per_second=200) as writer:
        settings["REDIS_URL"] = embedded.redis_url
        listener = start_listener(settings).aligned()
        app = start_app(settings | {"REDIS_URL": through(embedded.redis_url, way.port)}, workers=2).ready()
        status.open(app.port)
        status.says("Healthy", 20_000)
        yield World(servers, listener, way, settings, app, writer)


def test_a_healthy_pipe(world: World, status: StatusPage, shots: Path) -> None:
    expect(status.number("listening")).to_have_text("1")
    expect(status.number("direct")).to_have_text("2")
    expect(status.part("postgres", "up")).to_be_visible()
    expect(status.part("listeners", "alive")).to_contain_text("primary")
    expect(status.part("redis", "up")).to_be_visible()
    expect(status.part("workers", "alive")).to_have_count(2)
    expect(status.page.locator("#plot-rate .readout")).to_have_text(re.compile(r"\d"), timeout=20_000)
    expect(status.page.locator("#plot-latency svg")).to_have_attribute("aria-label", re.compile(r"p50 last .+ ms"))
    expect(status.page.locator("#problems li")).to_have_count(0)
    status.inspect("healthy", shots)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_redis_away_is_seen_and_that_it_is_back(world: World, status: StatusPage, shots: Path, fault: str) -> None:
    redis = world.servers.redis
    assert redis
    {"killed": redis.kill, "frozen": redis.freeze}[fault]()
    status.says("Degraded")
    expect(status.part("redis", "down")).to_be_visible(timeout=SOON)
    status.inspect(f"redis-{fault}", shots)
    if fault == "killed":
        world.servers.start_redis()
    else:
        redis.thaw()
    status.says("Healthy")
    expect(status.part("redis", "up")).to_be_visible()
    expect(status.number("total-gaps")).to_have_text("0")


@pytest.mark.parametrize("fault", ["killed", "stopped", "frozen"])
def test_a_dead_listener_is_seen_and_that_there_is_one_again(
    world: World, status: StatusPage, shots: Path, start_listener: StartListener, fault: str
) -> None:
    {"killed": world.listener.kill, "stopped": world.listener.stop, "frozen": world.listener.freeze}[fault]()
    status.says("Degraded")
    status.problem("no listener is alive")
    expect(status.part("listeners", "alive")).to_have_count(0)
    status.inspect(f"listener-{fault}", shots)
    if fault == "frozen":
        world.listener.thaw()
    else:
        start_listener(world.settings).aligned()
        expect(status.page.locator("#ledger tbody tr").first).to_contain_text("epoch")
    status.says("Healthy")
    expect(status.part("listeners", "alive")).to_have_count(1)


def test_a_worker_that_catches_up_is_seen_and_that_it_is_done(world: World, status: StatusPage, shots: Path) -> None:
    world.writer.per_second = 400
    world.way.throttle(50_000)
    status.says("Degraded")
    status.problem("catching up")
    status.inspect("catching-up", shots)
    world.way.resume()
    status.says("Healthy")


def test_a_server_that_is_silent_or_gone_is_no_connection_and_what_is_shown_is_old(
    world: World, status: StatusPage, shots: Path
) -> None:
    with Proxy(world.app.port) as way:
        status.open(way.port)
        status.says("Healthy")
        for fault in (way.stall, way.cut):
            fault()
            status.says("No connection", SOON + 1_000)
            expect(status.page.locator("#stale")).to_contain_text("as of")
            assert "No connection" in status.page.title()
            status.inspect(f"no-connection-{fault.__name__}", shots)
            way.resume()
            status.says("Healthy", SOON + 1_000)
            expect(status.page.locator("#stale")).to_be_hidden()


def test_a_second_listener_is_shown_beside_the_first(
    world: World, status: StatusPage, start_listener: StartListener
) -> None:
    start_listener({**world.settings, "POD_NAME": "there"}).aligned()
    rows = status.page.locator("#listeners tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="there")).to_contain_text("standby")
    expect(rows.filter(has_text="here").first).to_contain_text("primary")
    expect(status.number("listening")).to_have_text("2", timeout=10_000)


def test_the_pipe_of_direct_mode_leads_past_listener_and_redis(
    database: str, start_app: StartApp, status: StatusPage, shots: Path
) -> None:
    app = start_app(database_settings(database), workers=2).ready()
    status.open(app.port)
    status.says("Healthy", 20_000)
    expect(status.page.locator("#bypass")).to_contain_text("2 LISTEN connections", timeout=10_000)
    for part in ("listeners", "redis"):
        expect(status.part(part, "unused")).to_be_visible()
    status.inspect("direct", shots)


# The tail.


@pytest.fixture
def tail(settings: dict[str, str], start_listener: StartListener, start_app: StartApp, status: StatusPage) -> Locator:
    start_listener(settings).aligned()
    status.open(start_app(settings).ready().port)
    status.says("Healthy")
    return status.page.locator("#tail li")


def notify(connection: psycopg.Connection, channel: str, match: object, **data: object) -> None:
    payload = json.dumps({"match_id": match, "data": data})
    connection.execute("SELECT pg_notify(%s, %s)", [channel, payload])


HOSTILE = """"><img src=x onerror="document.title='caught'"><script>document.title='caught'</script><b>bold</b>"""


def test_what_a_payload_holds_is_shown_as_text(
    tail: Locator, status: StatusPage, connection: psycopg.Connection
) -> None:
    notify(connection, "match_change", HOSTILE, note=HOSTILE)
    expect(tail.locator(".match")).to_have_text(HOSTILE)
    expect(tail.locator(".payload")).to_contain_text("<img src=x")
    assert status.page.locator("#tail :is(img, script, b)").count() == 0
    assert "caught" not in status.page.title()


def test_the_tail_shows_one_channel_and_one_match_if_asked_to(
    tail: Locator, status: StatusPage, connection: psycopg.Connection
) -> None:
    def seen(channel: str, match: str) -> Callable[[], bool]:
        def found() -> bool:
            for channel_ in ("match_change", "scoreboard_change"):
                for match_ in (1, 2):
                    notify(connection, channel_, match_)
            rows = tail.evaluate_all(
                "(rows) => rows.map((row) => [row.children[1], row.children[2]].map((cell) => cell.textContent))"
            )
            return bool(rows) and all(row == [channel, match] for row in rows)

        return found

    status.page.get_by_label("Channel").fill("scoreboard_change")
    status.page.get_by_label("Match").fill("2")
    wait_until(seen("scoreboard_change", "2"))
    status.page.get_by_label("Match").fill("1")
    wait_until(seen("scoreboard_change", "1"))


def test_by_keyboard_the_tail_is_filtered_and_paused(
    tail: Locator, status: StatusPage, connection: psycopg.Connection
) -> None:
    keyboard = status.page.keyboard
    expect(status.page.get_by_role("link", name="Watch the live match")).to_be_visible()
    status.page.get_by_label("Channel").focus()
    keyboard.type("match_change")
    keyboard.press("Enter")
    keyboard.press("Tab")
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(status.page.get_by_role("button", name="Go on")).to_be_focused()

    def passed_by() -> bool:
        notify(connection, "match_change", 7)
        return re.search("[1-9]", status.number("tail-note").inner_text()) is not None

    wait_until(passed_by)
    expect(tail).to_have_count(0)
    keyboard.press("Enter")
    notify(connection, "match_change", 8)
    expect(tail.locator(".match").first).to_have_text("8")


# Who may see it.


def token(**claims: Any) -> str:
    return jwt.encode(claims, SECRET)


@pytest.fixture
def guarded(settings: dict[str, str], start_listener: StartListener, start_app: StartApp) -> App:
    start_listener(settings).aligned()
    return start_app(settings | {"WS_JWT_SECRET": SECRET}).ready()


def test_without_an_operators_token_the_page_asks_for_one_and_shows_nothing(
    guarded: App, status: StatusPage, shots: Path
) -> None:
    status.open(guarded.port)
    status.says("An operator\N{RIGHT SINGLE QUOTATION MARK}s token is needed")
    status.inspect("refused", shots)
    field = status.page.get_by_label("token", exact=False).and_(status.page.locator("input"))
    assert field.get_attribute("type") == "password"
    for wrong, why in [("nonsense", "the token is not valid"), (token(matches=[1]), "operator")]:
        field.fill(wrong)
        status.page.keyboard.press("Enter")
        expect(status.number("state-detail")).to_contain_text(why)
        expect(status.number("parts")).to_be_hidden()
    field.fill(token(operator=True))
    status.page.keyboard.press("Enter")
    status.says("Healthy")
    expect(field).to_be_hidden()
    status.page.reload()
    status.says("Healthy")


def test_a_token_in_the_address_works_and_is_taken_from_it(guarded: App, status: StatusPage) -> None:
    status.open(guarded.port, f"?token={token(operator=True)}")
    status.says("Healthy")
    assert status.page.url == f"http://127.0.0.1:{guarded.port}/"
    assert status.page.evaluate("localStorage.length") == 0


def test_without_a_status_page_there_is_none(settings: dict[str, str], start_app: StartApp) -> None:
    app = start_app(settings | {"STATUS_PAGE": "false"})
    wait_until(lambda: app.get("/healthz")[0] == 200)
    assert [app.get(path)[0] for path in ("/", "/api/status", "/api/status/events")] == [404] * 3


# How it behaves.


def test_what_flows_moves_but_not_for_who_wants_less_motion(world: World, status: StatusPage) -> None:
    animations = "document.getAnimations().length"
    wait_until(lambda: status.page.evaluate(animations) > 0)
    status.page.emulate_media(reduced_motion="reduce")
    assert status.page.evaluate(animations) == 0


def test_only_a_change_of_state_is_spoken(world: World, status: StatusPage) -> None:
    live = status.page.locator("[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log]")
    expect(live).to_have_count(1)
    expect(live).to_have_text(re.compile("^Healthy"))
    assert world.servers.redis
    world.servers.redis.kill()
    expect(live).to_have_text(re.compile("^Degraded"), timeout=SOON)
