"""Rights by the team's own SQL on real servers: who is let in, who is shown what, and what ends a client."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
from websockets.exceptions import InvalidStatus

from notifymux.event import EventId
from tests.queries.test_row_queries import metric
from tests.support.documents import DOCS, blocks
from tests.support.process import Process
from tests.support.programs import App, Client, Listener
from tests.support.servers import Servers
from tests.support.waiting import wait_until

FOLDER = Path(__file__).parent
SECRET = "a secret that is long enough for HS256"
BOUND_SECONDS = 60
REFUSED = (403, {"error": "the token is not good for this match", "server": "notifymux"})


class Setup:
    """A database with members of matches and players of tenants, and an application with one worker."""

    def __init__(self, servers: Servers, app: App, database: psycopg.Connection) -> None:
        self.servers, self.app, self.database = servers, app, database

    def client(self, member: str, match: int = 1, tenant: str = "north", **claims: Any) -> Client:
        return self.app.client(match, f"{member}-{tenant}", f"?token={token(member, tenant, **claims)}")

    def stream_status(self, member: str, match: object = 1) -> tuple[int, Any]:
        return self.app.get(f"/api/matches/{match}/events?token={token(member)}")

    def queries(self) -> float:
        return metric(self.app, "authorize_queries_total", f"?token={token('operator', operator=True)}")


def token(member: str, tenant: str = "north", **claims: Any) -> str:
    return jwt.encode({"sub": member, "tenant": tenant, **claims}, SECRET)


@pytest.fixture(params=["redis", "postgres"])
def setup(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Setup]:
    settings = servers.settings | {
        "QUERIES_DIR": str(FOLDER / "rights_files"),
        "QUERY_TIMEOUT": "3",
        "WS_JWT_SECRET": SECRET,
        "NOTIFY_CHANNELS": "player_change",
        "USE_REDIS_NOTIFIER": str(request.param == "redis").lower(),
    }
    with ExitStack() as stack:
        database = stack.enter_context(closing(psycopg.connect(servers.embedded.database_url, autocommit=True)))
        database.execute((FOLDER / "rights.sql").read_bytes())
        if request.param == "redis":
            stack.enter_context(Listener(tmp_path, settings)).wait_until_aligned()
        app = stack.enter_context(App(tmp_path, settings)).wait_until_ready()
        yield Setup(servers, app, database)


def players(message: dict[str, Any]) -> list[str]:
    data = message["data"]
    assert set(data) == {"players"}, message
    names: list[str] = data["players"]
    return names


def shows(client: Client, names: list[str]) -> bool:
    return client.messages[-1].get("data") == {"players": names}


def test_each_client_is_let_into_its_matches_and_shown_the_rows_of_its_tenant(setup: Setup) -> None:
    with setup.client("ann") as ann, setup.client("ben", tenant="south") as ben, setup.client("ben") as same:
        assert players(ann.wait_for_initial_load()) == players(same.wait_for_initial_load()) == ["Ann"]
        assert players(ben.wait_for_initial_load()) == ["Ben"]
        setup.database.execute("INSERT INTO player VALUES (3, 1, 'south', 'Cid'), (4, 1, 'north', 'Dan')")
        setup.database.execute("DELETE FROM player WHERE name = 'Ann'")
        for client, expected in ((ann, ["Dan"]), (same, ["Dan"]), (ben, ["Ben", "Cid"])):
            wait_until(partial(shows, client, expected))
            shown = [players(message) for message in client.messages if message["type"] != "ping"]
            assert all(set(names) <= ({"Ben", "Cid"} if client is ben else {"Ann", "Dan"}) for names in shown)
            ids = [EventId.parse(message["id"]) for message in client.updates if message["id"]]
            assert ids == sorted(ids)
    with pytest.raises(InvalidStatus) as refused:
        setup.client("ann", match=2)
    assert refused.value.response.status_code == 403
    assert setup.stream_status("ann", 2) == setup.stream_status("ann", 99) == setup.stream_status("ann", "x") == REFUSED


def test_a_hundred_clients_of_one_member_cost_one_query(setup: Setup) -> None:
    with ExitStack() as stack:
        for number in range(100):
            query = f"?token={token('ann', nonce=number)}"
            stack.enter_context(setup.app.client(1, f"{number}", query)).wait_for_initial_load()
        wait_until(setup.queries)
        assert setup.queries() == 1


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_right_that_is_revoked_closes_the_client_within_the_bound_and_nobody_else(setup: Setup) -> None:
    with setup.client("ann") as ann, setup.client("ben") as ben:
        ann.wait_for_initial_load()
        ben.wait_for_initial_load()
        setup.database.execute("DELETE FROM membership WHERE member = 'ann'")
        assert ann.wait_until_closed(within=BOUND_SECONDS + 5) == 3003
        assert setup.stream_status("ann") == REFUSED
        assert ben.code is None
        setup.database.execute("INSERT INTO player VALUES (5, 1, 'north', 'Eve')")
        wait_until(partial(shows, ben, ["Ann", "Eve"]))


@pytest.mark.long
@pytest.mark.timeout(300)
def test_without_the_database_newcomers_come_later_and_the_others_stay_one_bound_more(setup: Setup) -> None:
    before = time.monotonic()
    with setup.client("ann") as ann:
        ann.wait_for_initial_load()
        setup.servers.stop_postgres()
        status, body = setup.stream_status("ben")
        assert (status, body["error"]) == (503, "whether the token is good for this match can't be found out now")
        assert ann.wait_until_closed(within=2 * BOUND_SECONDS + 10) == 1013
        assert time.monotonic() - before >= 2 * BOUND_SECONDS
        setup.servers.start_postgres()
        with setup.client("ben") as ben:
            assert players(ben.wait_for_initial_load()) == ["Ann"]


@pytest.mark.parametrize("name", ["authorize", "snapshot"])
def test_the_documentation_shows_the_files_that_these_tests_run(name: str) -> None:
    assert (FOLDER / "rights_files" / f"{name}.sql").read_text(encoding="utf-8") in blocks(DOCS / "queries.md", "sql")


@pytest.mark.parametrize("name", ["authorize", "snapshot", "player_change"])
def test_without_tokens_a_file_that_needs_claims_ends_the_start(tmp_path: Path, name: str) -> None:
    text = (FOLDER / "rights_files" / f"{name}.sql").read_text(encoding="utf-8")
    (tmp_path / f"{name}.sql").write_text(text, encoding="utf-8")
    settings = {"DB_HOST": "127.0.0.1", "QUERIES_DIR": str(tmp_path), "NOTIFY_CHANNELS": "player_change"}
    with Process([sys.executable, "-m", "app.appliance", "prepare"], tmp_path, settings) as process:
        assert process.exit_code() == 2
        assert process.lines == [
            f"notifymux: {tmp_path / name}.sql needs clients' tokens: give WS_JWT_SECRET or WS_JWT_PUBLIC_KEY"
        ]
