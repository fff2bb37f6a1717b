"""The status page with SOURCE=wal: who reads the replication slot, who waits for it, and that nobody does."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from notifymux.redis_keys import RedisNames
from tests.browser.status_page import TIMEOUT_MS, StatusPage
from tests.conftest import RedisPlace, StartApp, StartListener, redis_mode
from tests.support.postgres_cluster import PostgresServer

pytestmark = pytest.mark.long

MARKUP = "<img src=x onerror=alert(1)>"


def test_the_page_shows_the_slot_its_reader_who_waits_and_that_nobody_reads(
    status: StatusPage,
    redis_place: RedisPlace,
    start_listener: StartListener,
    start_app: StartApp,
    tmp_path: Path,
    screenshots: Path,
) -> None:
    with PostgresServer.initialise(tmp_path / "postgres").start(wal_level="logical") as server:
        settings = redis_mode(server.conninfo(), redis_place) | {"SOURCE": "wal", "POD_NAME": "here"}
        reading = start_listener(settings).wait_until_aligned()
        waiting = start_listener(settings | {"POD_NAME": "there"})
        app = start_app(settings).wait_until_ready()
        status.open(app.port)
        status.wait_for_state("Healthy", 20_000)
        expect(status.part("listeners", "alive").filter(has_text="waiting")).to_be_visible(timeout=TIMEOUT_MS)
        slot = status.by_id("slot")
        expect(slot).to_contain_text("Replication slot notifymux: read by here/listener; ", timeout=TIMEOUT_MS)
        expect(slot).to_contain_text(" of WAL kept (no limit), reserved, confirmed up to ")
        expect(status.by_id("listen-connections-detail")).to_contain_text("Nothing LISTENs")
        status.inspect("slot", screenshots)
        waiting.kill()
        reading.kill()
        status.wait_for_problem("no listener reads the replication slot notifymux")
        expect(slot).to_contain_text("no listener reads it; ")
        with redis_place.client() as client:
            fields = {"pod": MARKUP, "program": "listener", "role": "primary", "state": "running", "slot": "notifymux"}
            key = RedisNames(redis_place.namespace).listener("evil", "1")
            client.hset(key, mapping=fields | {"slot_wal_status": MARKUP, "slot_confirmed": MARKUP, "slot_at": "9e9"})
            client.pexpire(key, 120_000)  # it is alive for a minute: its age is counted from 60 s left
        expect(slot).to_contain_text(f"read by {MARKUP}/listener", timeout=TIMEOUT_MS)
        expect(slot).to_contain_text(f"kept, {MARKUP}, confirmed up to {MARKUP} since")
        expect(status.page.locator("img[src=x]")).to_have_count(0)
