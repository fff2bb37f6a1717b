"""When notifymux.js gives up: only if notifymux itself refuses it, and no other token helps."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.own_page import OwnPage
from tests.conftest import StartApp, StartListener
from tests.support.programs import App
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

SECRET = "a secret that is long enough for HS256"
BODIES = {"text/html": "<h1>nothing here</h1>", "application/json": '{"error": "no Route matched"}', "text/plain": ""}


@contextmanager
def ingress(status: int, kind: str) -> Iterator[tuple[int, list[str]]]:
    """Run what stands in for notifymux during a deploy; yield its port, and the paths that were requested from it."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(BODIES[kind])))
            self.end_headers()
            self.wfile.write(BODIES[kind].encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1], paths
        server.shutdown()
        thread.join()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    yield context.new_page()
    context.close()


@pytest.fixture
def app(settings: dict[str, str], start_listener: StartListener, start_app: StartApp) -> App:
    start_listener(settings).wait_until_aligned()
    return start_app(settings).wait_until_ready()


@pytest.fixture
def app_with_tokens(settings: dict[str, str], start_app: StartApp) -> App:
    return start_app(settings | {"USE_REDIS_NOTIFIER": "false", "WS_JWT_SECRET": SECRET}).wait_until_ready()


def token(**claims: object) -> str:
    return jwt.encode(claims, SECRET)


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "text/html"), (404, "application/json"), (403, "text/html"), (401, "text/plain")]
)
def test_what_an_ingress_says_during_a_deploy_is_not_final(
    app: App, page: Page, connection: psycopg.Connection, status: int, kind: str
) -> None:
    with Proxy(app.port) as proxy, ingress(status, kind) as (port, paths):
        own = OwnPage(page, url(proxy.port))
        own.wait_for_state("live")
        proxy.redirect_to(port)
        wait_until(lambda: own.attempts and any("/events" in path for path in paths), 30, lambda: f"asked: {paths}")
        own.wait_for_state("reconnecting")
        connection.execute("""SELECT pg_notify('match_change', '{"match_id": 7, "data": {"n": 1}}')""")
        proxy.redirect_to(app.port)
        own.wait_for_numbers([1], 30)
        assert "refused" not in own.states


def test_what_an_ingress_says_during_a_deploy_is_not_final_for_the_status_page(app: App, page: Page) -> None:
    with Proxy(app.port) as proxy, ingress(404, "text/html") as (port, paths):
        page.goto(url(proxy.port))
        expect(page.locator("#state")).to_have_text("Healthy", timeout=20_000)
        proxy.redirect_to(port)
        wait_until(lambda: page.evaluate("true") and len(paths) > 1, what="the page is refused and tries again")
        proxy.redirect_to(app.port)
        expect(page.locator("#state")).to_have_text("Healthy", timeout=20_000)


def test_a_function_is_asked_for_another_token_before_a_refusal_is_final(app_with_tokens: App, page: Page) -> None:
    expired, good = token(exp=int(time.time()) - 60), token(exp=int(time.time()) + 600, matches=[7])
    own = OwnPage(page, url(app_with_tokens.port), tokens=[expired, expired, expired, good])  # two sockets, one stream
    own.wait_for_state("live")
    assert "refused" not in own.states


def test_a_refusal_is_final_if_another_token_of_the_function_is_refused_too(app_with_tokens: App, page: Page) -> None:
    own = OwnPage(page, url(app_with_tokens.port), tokens=[token(matches=[1])])
    state = own.wait_for_state("refused")
    assert state["reason"] == "the token is not good for this match"
    assert own.attempts == len(page.evaluate("tokens")) == 5, "a socket and a stream more than for a token"


def test_a_refusal_of_a_token_is_final(app_with_tokens: App, page: Page) -> None:
    own = OwnPage(page, url(app_with_tokens.port), token="wrong")
    assert "the token is not valid" in own.wait_for_state("refused")["reason"]
    assert own.attempts == 3, "two sockets, whose refusal a script can't see, and a stream"
