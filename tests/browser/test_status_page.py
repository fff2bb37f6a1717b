"""The status page shows each state within seconds, to users of screen readers as well, and nothing that is not true."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jwt
import psycopg
import pytest
from playwright.sync_api import expect

from tests.browser.status_page import TIMEOUT_MS, StatusPage
from tests.conftest import StartApp, StartListener
from tests.support.programs import App, Listener
from tests.support.proxy import Proxy
from tests.support.servers import Servers, database_settings, redis_url_with_port
from tests.support.waiting import wait_until
from tests.support.writer import Writer

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

SECRET = "a secret that is long enough for HS256"


class Environment(NamedTuple):
    """A listener, two workers that reach Redis through a proxy, and a writer."""

    servers: Servers
    listener: Listener
    redis_proxy: Proxy
    settings: Mapping[str, str]
    app: App
    writer: Writer


@pytest.fixture
def environment(
    servers: Servers, start_listener: StartListener, start_app: StartApp, status: StatusPage
) -> Iterator[Environment]:
    """The environment is healthy, and the page shows it."""
    embedded = servers.embedded
    settings = servers.settings | {"POD_NAME": "here"}
    with Proxy(embedded.valkey_port) as redis_proxy, Writer(embedded.database_url, per_second=200) as writer:
        listener = start_listener(settings).wait_until_aligned()
        app = start_app(
            settings | {"REDIS_URL": redis_url_with_port(embedded.redis_url, redis_proxy.port)}, workers=2
        ).wait_until_ready()
        status.open(app.port)
        status.wait_for_state("Healthy", 20_000)
        yield Environment(servers, listener, redis_proxy, settings, app, writer)


def test_a_healthy_system(environment: Environment, status: StatusPage, screenshots: Path) -> None:
    expect(status.by_id("listening")).to_have_text("1")
    expect(status.by_id("direct")).to_have_text("2")
    expect(status.part("postgres", "up")).to_be_visible()
    expect(status.part("listeners", "alive")).to_contain_text("primary")
    expect(status.part("redis", "up")).to_be_visible()
    expect(status.part("workers", "alive")).to_have_count(2)
    expect(status.page.locator("#plot-rate .readout")).to_have_text(re.compile(r"\d"), timeout=20_000)
    latency = status.page.locator("#plot-latency svg")
    expect(latency).to_have_attribute("aria-label", re.compile(r"p50 last .+ ms"), timeout=20_000)
    expect(status.page.locator("#problems li")).to_have_count(0)
    status.inspect("healthy", screenshots)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_an_outage_of_redis_is_shown_until_it_ends(
    environment: Environment, status: StatusPage, screenshots: Path, fault: str
) -> None:
    redis = environment.servers.redis
    assert redis
    {"killed": redis.kill, "frozen": redis.freeze}[fault]()
    status.wait_for_state("Degraded")
    expect(status.part("redis", "down")).to_be_visible(timeout=TIMEOUT_MS)
    status.inspect(f"redis-{fault}", screenshots)
    if fault == "killed":
        environment.servers.start_redis()
    else:
        redis.thaw()
    status.wait_for_state("Healthy")
    expect(status.part("redis", "up")).to_be_visible()
    expect(status.by_id("total-gaps")).to_have_text("0")


@pytest.mark.parametrize("fault", ["killed", "stopped", "frozen"])
def test_a_missing_listener_is_shown_until_one_runs_again(
    environment: Environment, status: StatusPage, screenshots: Path, start_listener: StartListener, fault: str
) -> None:
    listener = environment.listener
    {"killed": listener.kill, "stopped": listener.stop, "frozen": listener.freeze}[fault]()
    status.wait_for_state("Degraded")
    status.wait_for_problem("no listener is alive")
    expect(status.part("listeners", "alive")).to_have_count(0)
    status.inspect(f"listener-{fault}", screenshots)
    if fault == "frozen":
        listener.thaw()
    else:
        start_listener(environment.settings).wait_until_aligned()
        expect(status.page.locator("#incidents tbody tr").first).to_contain_text("epoch", timeout=TIMEOUT_MS)
    status.wait_for_state("Healthy")
    expect(status.part("listeners", "alive")).to_have_count(1)


def test_a_worker_that_lags_behind_is_shown_until_it_has_caught_up(
    environment: Environment, status: StatusPage, screenshots: Path, start_remote_app: StartApp
) -> None:
    """In a pod without a listener, so that no feed brings what Redis is slow with."""
    redis_url = redis_url_with_port(environment.servers.embedded.redis_url, environment.redis_proxy.port)
    app = start_remote_app({**environment.settings, "REDIS_URL": redis_url}).wait_until_ready()
    status.open(app.port)
    status.wait_for_state("Healthy", 20_000)
    environment.writer.per_second = 400
    environment.redis_proxy.throttle(50_000)
    status.wait_for_state("Degraded")
    status.wait_for_problem("catching up")
    status.inspect("catching-up", screenshots)
    environment.redis_proxy.resume()
    status.wait_for_state("Healthy")


def test_without_a_connection_to_the_server_the_status_is_marked_as_out_of_date(
    environment: Environment, status: StatusPage, screenshots: Path
) -> None:
    with Proxy(environment.app.port) as proxy:
        status.open(proxy.port)
        status.wait_for_state("Healthy")
        for fault in (proxy.stall, proxy.cut):
            fault()
            status.wait_for_state("No connection", TIMEOUT_MS + 1_000)
            expect(status.page.locator("#stale")).to_contain_text("as of")
            assert "No connection" in status.page.title()
            status.inspect(f"no-connection-{fault.__name__}", screenshots)
            proxy.resume()
            status.wait_for_state("Healthy", TIMEOUT_MS + 1_000)
            expect(status.page.locator("#stale")).to_be_hidden()


def test_a_second_listener_is_shown_beside_the_first(
    environment: Environment, status: StatusPage, start_listener: StartListener
) -> None:
    start_listener({**environment.settings, "POD_NAME": "there"}).wait_until_aligned()
    rows = status.page.locator("#listeners tbody tr")
    expect(rows).to_have_count(2, timeout=TIMEOUT_MS)
    expect(rows.filter(has_text="there")).to_contain_text("standby", timeout=TIMEOUT_MS)
    expect(rows.filter(has_text="here").first).to_contain_text("primary", timeout=TIMEOUT_MS)
    expect(status.by_id("listening")).to_have_text("2", timeout=10_000)


def test_in_direct_mode_the_diagram_bypasses_the_listeners_and_redis(
    database: str, start_app: StartApp, status: StatusPage, screenshots: Path
) -> None:
    app = start_app(database_settings(database), workers=2).wait_until_ready()
    status.open(app.port)
    status.wait_for_state("Healthy", 20_000)
    expect(status.page.locator("#bypass")).to_contain_text("2 LISTEN connections", timeout=10_000)
    for part in ("listeners", "redis"):
        expect(status.part(part, "unused")).to_be_visible()
    status.inspect("direct", screenshots)


# ---- access


def token(**claims: Any) -> str:
    return jwt.encode(claims, SECRET)


@pytest.fixture
def app_with_tokens(settings: dict[str, str], start_listener: StartListener, start_app: StartApp) -> App:
    start_listener(settings).wait_until_aligned()
    return start_app(settings | {"WS_JWT_SECRET": SECRET}).wait_until_ready()


def test_without_an_operators_token_the_page_asks_for_one_and_shows_nothing(
    app_with_tokens: App, status: StatusPage, screenshots: Path
) -> None:
    status.open(app_with_tokens.port)
    status.wait_for_state("An operator\N{RIGHT SINGLE QUOTATION MARK}s token is needed")
    status.inspect("refused", screenshots)
    field = status.page.get_by_label("token", exact=False).and_(status.page.locator("input"))
    assert field.get_attribute("type") == "password"
    for wrong, reason in [("nonsense", "the token is not valid"), (token(matches=[1]), "operator")]:
        field.fill(wrong)
        status.page.keyboard.press("Enter")
        expect(status.by_id("state-detail")).to_contain_text(reason)
        expect(status.by_id("parts")).to_be_hidden()
    field.fill(token(operator=True))
    status.page.keyboard.press("Enter")
    status.wait_for_state("Healthy")
    expect(field).to_be_hidden()
    status.page.reload()
    status.wait_for_state("Healthy")


def test_a_token_in_the_url_works_and_is_removed_from_the_url(app_with_tokens: App, status: StatusPage) -> None:
    status.open(app_with_tokens.port, f"?token={token(operator=True)}")
    status.wait_for_state("Healthy")
    assert status.page.url == f"http://127.0.0.1:{app_with_tokens.port}/"
    assert status.page.evaluate("localStorage.length") == 0


def test_with_status_page_false_there_is_no_status_page(settings: dict[str, str], start_app: StartApp) -> None:
    app = start_app(settings | {"STATUS_PAGE": "false"})
    wait_until(lambda: app.get("/healthz")[0] == 200)
    assert [app.get(path)[0] for path in ("/", "/api/status", "/api/status/events")] == [404] * 3


# ---- accessibility


def test_flowing_events_are_animated_unless_the_user_prefers_reduced_motion(
    environment: Environment, status: StatusPage
) -> None:
    animations = "document.getAnimations().length"
    wait_until(lambda: status.page.evaluate(animations) > 0)
    status.page.emulate_media(reduced_motion="reduce")
    assert status.page.evaluate(animations) == 0


def test_screen_readers_announce_only_changes_of_the_state(environment: Environment, status: StatusPage) -> None:
    live_region = status.page.locator("[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log]")
    expect(live_region).to_have_count(1)
    expect(live_region).to_have_text(re.compile("^Healthy"))
    assert environment.servers.redis
    environment.servers.redis.kill()
    expect(live_region).to_have_text(re.compile("^Degraded"), timeout=TIMEOUT_MS)


def test_events_that_no_client_hears_are_shown_with_the_cause(
    environment: Environment, status: StatusPage, screenshots: Path
) -> None:
    expect(status.by_id("unroutable")).to_be_hidden()
    with psycopg.connect(environment.servers.embedded.database_url, autocommit=True) as connection:
        connection.execute("NOTIFY match_change, 'no JSON'")
        connection.execute("NOTIFY match_change, '<b>no JSON</b>'")
    listed = status.page.locator("#unroutable li")
    expect(listed).to_have_text(
        "No client heard 2 events on match_change: the payload is text and not a JSON object.", timeout=TIMEOUT_MS
    )
    status.inspect("unroutable", screenshots)
