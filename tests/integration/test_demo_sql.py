"""The demo's SQL in a real PostgreSQL: its tables, triggers and snapshot."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

import app.appliance
from app.appliance.demo.match import Game
from app.appliance.demo.tables import MatchTables, create_tables
from app.appliance.demo.teams import FIXTURES
from app.core.config import DEFAULT_CHANNELS

SNAPSHOT = (Path(app.appliance.__file__).parent / "demo" / "snapshot.sql").read_bytes()

MATCH_ID = 1
FIXTURE = FIXTURES[MATCH_ID]

Session = psycopg.Connection[Any]


@pytest.fixture
def session(connection: Session) -> Session:
    """A session with the demo's tables that LISTENs to all their channels."""
    create_tables(connection)
    for channel in DEFAULT_CHANNELS:
        connection.execute(f"LISTEN {channel}".encode())
    return connection


def notified(session: Session) -> list[tuple[str, dict[str, Any]]]:
    """The notifications since the last call; a session receives its own before the answer to its next query."""
    session.execute("SELECT 1")
    return [(note.channel, json.loads(note.payload)) for note in session.notifies(timeout=0)]


def played(seconds: int, seed: int = 1) -> Iterator[Game]:
    game = Game(Random(seed), FIXTURE)
    for _, _ in zip(range(seconds), game.seconds(), strict=False):
        yield game


def test_making_the_tables_twice_changes_nothing(session: Session) -> None:
    session.execute("INSERT INTO match VALUES (7, 'n', 'h', 'a', 'H', 'A', 'live', 1)")
    create_tables(session)
    assert session.execute("SELECT id FROM match").fetchall() == [(7,)]
    assert len(notified(session)) == 1


def test_every_change_is_notified_with_its_row(session: Session) -> None:
    session.execute("INSERT INTO match VALUES (7, 'n', 'h', 'a', 'H', 'A', 'live', 1)")
    session.execute("INSERT INTO gameclock VALUES (3, 7, 900, false)")
    session.execute("UPDATE gameclock SET id = 4, seconds = 899")
    session.execute("DELETE FROM gameclock")
    row = {"id": 3, "match_id": 7, "seconds": 900, "running": False}
    moved = row | {"id": 4, "seconds": 899}
    notifications = notified(session)
    assert [channel for channel, _ in notifications] == ["match_change"] + ["gameclock_change"] * 3
    assert [payload for _, payload in notifications][1:] == [
        {"table": "gameclock", "operation": "INSERT", "match_id": 7, "new_id": 3, "old_id": None, "data": row},
        {"table": "gameclock", "operation": "UPDATE", "match_id": 7, "new_id": 4, "old_id": 3, "data": moved},
        {"table": "gameclock", "operation": "DELETE", "match_id": 7, "new_id": None, "old_id": 4, "data": moved},
    ]


def test_the_match_id_of_a_row_of_match_is_its_own_id(session: Session) -> None:
    session.execute("INSERT INTO match VALUES (7, 'n', 'h', 'a', 'H', 'A', 'live', 1)")
    [(_, payload)] = notified(session)
    assert (payload["match_id"], payload["new_id"], payload["data"]["id"]) == (7, 7, 7)


@pytest.mark.parametrize("letter", ["x", "é", "漢", '"'])
def test_a_row_that_is_too_large_is_written_and_announced_without_its_data(session: Session, letter: str) -> None:
    session.execute("INSERT INTO match VALUES (7, %s, 'h', 'a', 'H', 'A', 'live', 1)", [letter * 8000])
    session.execute("UPDATE match SET week = 2")
    assert session.execute("SELECT name FROM match").fetchall() == [(letter * 8000,)]
    assert [payload["data"] for _, payload in notified(session)] == [None, None]


def test_the_largest_row_that_fits_is_notified_whole_and_one_byte_more_is_not(session: Session) -> None:
    session.execute("INSERT INTO match VALUES (7, '', 'h', 'a', 'H', 'A', 'live', 1)")
    session.execute("SELECT 1")
    [note] = session.notifies(timeout=0)
    room = 7999 - len(note.payload)
    session.execute("DELETE FROM match")
    notified(session)
    for number, length in ((8, room), (9, room + 1)):
        session.execute("INSERT INTO match VALUES (%s, %s, 'h', 'a', 'H', 'A', 'live', 1)", [number, "x" * length])
    fits, exceeds = (payload for _, payload in notified(session))
    assert len(fits["data"]["name"]) == room
    assert exceeds["data"] is None


def test_the_tables_have_the_state_of_the_match(session: Session) -> None:
    tables = MatchTables(session, MATCH_ID)
    for game in played(600):
        tables.update(game)
    assert session.execute("SELECT home_score, away_score FROM scoreboard").fetchall() == [tuple(game.score.values())]
    assert session.execute("SELECT seconds, running FROM gameclock").fetchall() == [(game.clock, game.clock_running)]
    assert session.execute("SELECT count(*) FROM player_match").fetchone() == (10,)


def test_only_what_changed_is_written(session: Session) -> None:
    tables = MatchTables(session, MATCH_ID)
    [game] = played(1)
    tables.update(game)
    assert len(notified(session)) == 15  # five rows and ten players
    tables.update(game)
    assert notified(session) == []


def test_several_changes_a_second_reach_every_channel_but_the_match_itself(session: Session) -> None:
    tables = MatchTables(session, MATCH_ID)
    for game in played(600):
        tables.update(game)
    channels = [channel for channel, _ in notified(session)]
    assert set(channels) == set(DEFAULT_CHANNELS)
    assert len(channels) > 600


def test_a_new_match_replaces_the_events_of_the_last_one(session: Session) -> None:
    for seed in (1, 2):
        tables = MatchTables(session, MATCH_ID)
        for game in played(60, seed):
            tables.update(game)
    kinds = session.execute("SELECT kind FROM football_event ORDER BY id").fetchall()
    assert kinds[0] == ("kickoff",)
    assert kinds.count(("kickoff",)) == 1


def test_the_snapshot_is_one_object_with_the_newest_events_first(session: Session) -> None:
    tables = MatchTables(session, MATCH_ID)
    for game in played(1500):
        tables.update(game)
    [(snapshot,)] = session.execute(SNAPSHOT, {"match_id": str(MATCH_ID)}).fetchall()
    ids = [event["id"] for event in snapshot["events"]]
    assert snapshot["match"]["home_abbr"] == "SBH"
    assert snapshot["gameclock"]["seconds"] == game.clock
    assert snapshot["matchdata"]["yardline"] == game.yardline
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 10
    assert len(snapshot["players"]) == 10


def test_matches_keep_to_their_own_rows(session: Session) -> None:
    for match_id, fixture in FIXTURES.items():
        tables, game = MatchTables(session, match_id), Game(Random(match_id), fixture)
        for _, _ in zip(range(60), game.seconds(), strict=False):
            tables.update(game)
    for match_id, fixture in FIXTURES.items():
        [(snapshot,)] = session.execute(SNAPSHOT, {"match_id": str(match_id)}).fetchall()
        assert (snapshot["match"]["home"], snapshot["match"]["away"]) == (fixture["home"].name, fixture["away"].name)
        assert {player["name"] for player in snapshot["players"]} == {
            name for team in fixture.values() for name in team.offense
        }
        assert [event["kind"] for event in snapshot["events"]].count("kickoff") == 1


def test_the_snapshot_of_an_unknown_match_is_empty(session: Session) -> None:
    [(snapshot,)] = session.execute(SNAPSHOT, {"match_id": "99"}).fetchall()
    assert snapshot == {
        "match": None, "matchdata": None, "scoreboard": None, "gameclock": None, "playclock": None,
        "events": [], "players": [],
    }  # fmt: skip


def test_the_triggers_of_an_earlier_demo_are_replaced(session: Session) -> None:
    session.execute("CREATE FUNCTION notify_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    session.execute("CREATE TRIGGER notify_change AFTER INSERT ON match FOR EACH ROW EXECUTE FUNCTION notify_change()")
    create_tables(session)
    triggers = session.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'match'::regclass AND NOT tgisinternal")
    assert {name for (name,) in triggers} == {"notifymux_insert", "notifymux_update", "notifymux_delete"}
