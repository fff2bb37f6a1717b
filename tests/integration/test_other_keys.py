"""Topics by another key than the match id's, beside matches, on real servers (ROUTING_KEY)."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest

from tests.conftest import StartApp, fresh_database, fresh_redis_place, redis_mode
from tests.support.programs import App, Listener, ReceivedMessages
from tests.support.several_matches import Connection, EventStreamOfSeveral
from tests.support.waiting import wait_until

SECRET = "a secret that is long enough for HS256"
FILES = {
    "snapshot": "SELECT json_build_object('match', %(match_id)s::text)",
    "snapshot.tournament_id": "SELECT json_build_object('tournament', %(tournament_id)s::text)",
    "authorize": "SELECT %(match_id)s <> '3'",
    "authorize.tournament_id": "SELECT %(tournament_id)s <> '7'",
    "authorize.season": "SELECT %(season)s IS NOT NULL",
}


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    with fresh_database(request) as database:
        yield database


@pytest.fixture
def app(request: pytest.FixtureRequest, tmp_path: Path, database: str, start_app: StartApp) -> Iterator[App]:
    for name, text in FILES.items():
        (tmp_path / f"{name}.sql").write_text(text, encoding="utf-8")
    keys = {"ROUTING_KEY": "match_id,tournament_id,season", "WS_JWT_SECRET": SECRET, "QUERIES_DIR": str(tmp_path)}
    folder = tmp_path / "listener"
    folder.mkdir()
    with fresh_redis_place(request) as place, Listener(folder, redis_mode(database, place)) as listener:
        listener.wait_until_aligned()
        yield start_app(redis_mode(database, place) | keys).wait_until_ready()


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", **claims}, SECRET)


def notify(database: str, *events: dict[str, object]) -> None:
    """Commit events with these keys, numbered from 0, in one transaction."""
    with closing(psycopg.connect(database)) as connection, connection.transaction():
        for number, keys in enumerate(events):
            payload = json.dumps({**keys, "operation": "UPDATE", "data": {"id": 1, "n": number}})
            connection.execute("SELECT pg_notify('match_change', %s)", [payload])


def numbers(client: ReceivedMessages) -> list[int]:
    return [update["data"]["n"] for update in client.updates]


def test_a_client_of_two_keys_hears_each_event_once_with_a_snapshot_for_each_key(app: App, database: str) -> None:
    query = f"?token={token()}"
    stream_of = [("match", 1), ("tournament_id", 5), ("season", "a"), ("token", token())]
    with Connection(app.port, query=query) as client, EventStreamOfSeveral(app.port, stream_of) as stream:
        client.subscribe(1)
        client.send("subscribe", tournament_id=5)
        client.send("subscribe", season="a")
        for each in (client, stream):
            wait_until(lambda each=each: len(each.of_type("initial-load")) == 3)  # type: ignore[misc]
            assert [load["data"] for load in each.of_type("initial-load") if "match_id" in load] == [{"match": "1"}]
            [cup] = [load for load in each.of_type("initial-load") if "tournament_id" in load]
            assert (cup["tournament_id"], cup["data"], "match_id" in cup) == (5, {"tournament": "5"}, False)
            assert [load["data"] for load in each.of_type("initial-load") if "season" in load] == [None]
        notify(
            database,
            {"match_id": 1, "tournament_id": 5, "season": "a"},
            {"match_id": 2, "tournament_id": 5},
            {"match_id": 2, "tournament_id": 6},
            {"match_id": 1, "tournament_id": 6},
            {"tournament_id": 5},
            {"match_id": None, "tournament_id": True, "season": "a"},
            {"match_id": 1, "tournament_id": 5},
        )
        for each in (client, stream):
            each.wait_for_updates(6)
            assert numbers(each) == [0, 1, 3, 4, 5, 6]
            first, second, _, only_cup, only_season, _ = each.updates
            assert (first["match_id"], first["tournament_id"], first["season"]) == (1, 5, "a")
            assert (second["match_id"], second["tournament_id"], "season" in second) == (2, 5, False)
            assert (only_cup["match_id"], only_cup["tournament_id"]) == (None, 5)
            assert (only_season["season"], "tournament_id" in only_season) == ("a", False)
        client.send("unsubscribe", match_id=1)
        client.send("unsubscribe", tournament_id=5)
        client.wait_for(1, "unsubscribed", tournament_id=5)
        notify(database, {"match_id": 1, "tournament_id": 5}, {"match_id": 1, "season": "a"})
        client.wait_for_updates(7)
        assert numbers(client)[6:] == [1], "by the season alone"
    last = stream.updates[3]["id"]
    after = [("match", 1), ("after", last), ("tournament_id", 5), ("after", last), ("token", token())]
    with EventStreamOfSeveral(app.port, after) as stream, app.client(1, query=query) as single:
        stream.wait_for_updates(3)
        assert [load["recovered"] for load in stream.of_type("initial-load")] == [True, True]
        assert numbers(stream) == [6, 0, 1]
        assert single.wait_for_initial_load()["match_id"] == 1


def test_a_token_that_names_values_of_any_key_permits_only_what_it_names(app: App, database: str) -> None:
    permitted = token(matches=[1, 3], tournament_id=[5, 7])
    with Connection(app.port, query=f"?token={permitted}") as client:
        for fields in ({"match_id": 2}, {"tournament_id": 6}, {"season": "a"}, {"tournament_id": 7}, {"match_id": 3}):
            client.send("subscribe", **fields)
            client.wait_for(1, "refused", code="forbidden", **fields)
        client.send("subscribe", match_id=1, tournament_id=5)
        client.send("subscribe", tournament_id=None)
        client.wait_for(2, "refused", code="malformed")
        client.send("subscribe", tournament_id="5")
        client.wait_for(1, "initial-load", tournament_id=5)
        client.send("token", token=token(tournament_id=6))
        client.wait_for(1, "refused", code="forbidden", tournament_id=5)
        client.send("subscribe", tournament_id=6)
        client.wait_for(1, "initial-load", tournament_id=6)
        client.subscribe(1)
        client.wait_for(1, "refused", code="forbidden", match_id=1)
        notify(database, {"match_id": 1, "tournament_id": 5}, {"match_id": 1, "tournament_id": 6})
        client.wait_for_updates(1)
        assert numbers(client) == [1]
    assert app.get(f"/api/matches/1/events?token={token(tournament_id=6)}")[0] == 403
    assert app.get(f"/api/matches/events?tournament_id=5&token={token(matches=[1])}")[0] == 403
    assert app.get(f"/api/matches/events?tournament_id=&token={token()}")[0] == 400
