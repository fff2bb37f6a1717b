"""Pages behind a real nginx, with the configuration that docs/deployment.md shows."""

import ssl
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.own_page import OwnPage
from tests.conftest import StartApp, StartListener
from tests.support.nginx import Nginx
from tests.support.programs import App

pytestmark = pytest.mark.long


class Site(NamedTuple):
    """notifymux behind nginx."""

    app: App
    nginx: Nginx
    url: str
    tls: bool


@pytest.fixture(params=["http", "https"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "https")


@pytest.fixture(params=["", "/live"], ids=["no prefix", "prefix"])
def site(
    request: pytest.FixtureRequest,
    settings: dict[str, str],
    start_listener: StartListener,
    start_app: StartApp,
    tmp_path: Path,
    tls: bool,
) -> Iterator[Site]:
    start_listener(settings).wait_until_aligned()
    root = {"ROOT_PATH": request.param} if request.param else {}
    app = start_app(settings | root).wait_until_ready()
    with Nginx(tmp_path / "nginx", app.port, request.param, tls=tls) as nginx:
        yield Site(app, nginx, f"{nginx.origin}{request.param}", tls)


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(ignore_https_errors=True)
    yield context.new_page()
    context.close()


def request(site: Site, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Request a path of the site; return the status and where a redirect leads."""
    unverified = ssl._create_unverified_context()
    address = "127.0.0.1", site.nginx.port
    with closing(
        HTTPSConnection(*address, timeout=10, context=unverified) if site.tls else HTTPConnection(*address, timeout=10)
    ) as connection:
        connection.request("GET", f"{site.url.removeprefix(site.nginx.origin)}{path}", headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("location", "")


def test_own_pages_on_a_port_of_their_own_are_live_through_nginx(
    site: Site, page: Page, connection: psycopg.Connection
) -> None:
    own = OwnPage(page, site.url)
    own.wait_for_state("live")
    connection.execute("""SELECT pg_notify('match_change', '{"match_id": 7, "data": {"n": 14}}')""")
    own.wait_for_numbers([14])
    assert [url.partition("/api/")[0] for url in own.sockets] == [site.url.replace("http", "ws", 1)], (
        "one, and no retry"
    )
    page.goto(f"{site.url}/")
    expect(page.locator("#state")).to_have_text("Healthy", timeout=15_000)


def test_default_ports_are_known_and_another_sites_pages_are_refused(site: Site) -> None:
    scheme, port, other = ("https", 443, 80) if site.tls else ("http", 80, 443)
    events = "/api/matches/7/events"
    own = {"Origin": f"{scheme}://live.example.com"}
    for host in ("live.example.com", f"live.example.com:{port}", f"LIVE.example.com:{port}"):
        assert request(site, events, {**own, "Host": host})[0] == 200, host
    for host in (f"live.example.com:{other}", "live.example.com:8080", "example.com"):
        assert request(site, events, {**own, "Host": host})[0] == 403, host


def test_redirects_do_not_take_their_host_from_the_request(site: Site) -> None:
    paths = ("", "/", "/static", "/readyz/", "/api/matches/7/events/", "/api/status/", "//evil.example/", "/nowhere")
    for path in paths:
        status, location = request(site, path, {"Host": "evil.example"})
        assert status in {200, 301, 404}, path
        assert location in {"", "/live/"}, path
