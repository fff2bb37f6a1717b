"""The rows of the demo's matches in PostgreSQL, written by ordinary SQL as any user's backend would."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from app.appliance.demo.match import Game, GameEvent
from app.core.schema.script import install_script

_SCHEMA = Path(__file__).with_name("schema.sql")

Row = Mapping[str, Any]
Key = tuple[str, int]  # a table and a row's id


def create_tables(session: psycopg.Connection[Any]) -> None:
    """Create the schema `notifymux`, the seven tables and their triggers, as far as they don't exist."""
    with session.transaction():
        session.execute(install_script("notify").encode())
    with session.transaction():
        session.execute(_SCHEMA.read_bytes())


class MatchTables:
    """A match's rows in the database.

    Args:
        session: an open session in autocommit mode.
        match_id: the match's.
    """

    def __init__(self, session: psycopg.Connection[Any], match_id: int) -> None:
        self._session = session
        self._match_id = match_id
        self._written: dict[Key, Row] = {}

    def update(self, game: Game) -> None:
        """Write what has changed since the last call, in one transaction."""
        with self._session.transaction():
            if game.status == "pregame":  # the events of one match are kept
                self._session.execute("DELETE FROM football_event WHERE match_id = %s", [self._match_id])
            for key, row in rows(self._match_id, game).items():
                if self._written.get(key) != row:
                    self._write(key, row)
                    self._written[key] = row
            for event in game.take_events():
                self._insert(event)

    def _write(self, key: Key, row: Row) -> None:
        table, row_id = key
        columns = [sql.Identifier(name) for name in row]
        query = sql.SQL(
            "INSERT INTO {table} (id, {columns}) VALUES ({values}) ON CONFLICT (id) DO UPDATE SET {changes}"
        ).format(
            table=sql.Identifier(table),
            columns=sql.SQL(", ").join(columns),
            values=sql.SQL(", ").join(sql.Placeholder() * (len(columns) + 1)),
            changes=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(column) for column in columns),
        )
        self._session.execute(query, [row_id, *row.values()])

    def _insert(self, event: GameEvent) -> None:
        self._session.execute(
            "INSERT INTO football_event (match_id, quarter, clock, kind, team, text, yards)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [self._match_id, *event],
        )


def rows(match_id: int, game: Game) -> dict[Key, Row]:
    """Return the current state of a match as rows."""
    home, away = game.fixture["home"], game.fixture["away"]
    state: dict[Key, Row] = {
        ("match", match_id): {
            "name": f"{away.name} at {home.name}",
            "home": home.name,
            "away": away.name,
            "home_abbr": home.abbreviation,
            "away_abbr": away.abbreviation,
            "status": game.status,
            "week": 7,
        },
        ("matchdata", match_id): {
            "match_id": match_id,
            "quarter": game.quarter,
            "down": game.down,
            "distance": game.distance,
            "yardline": game.yardline,
            "possession": game.possession,
            "drive_text": game.drive,
        },
        ("scoreboard", match_id): {
            "match_id": match_id,
            "home_score": game.score["home"],
            "away_score": game.score["away"],
            "home_timeouts": game.timeouts["home"],
            "away_timeouts": game.timeouts["away"],
        },
        ("gameclock", match_id): {"match_id": match_id, "seconds": game.clock, "running": game.clock_running},
        ("playclock", match_id): {"match_id": match_id, "seconds": game.play_clock, "running": game.play_clock_running},
    }
    for row_id, player in enumerate(game.players, start=1 + (match_id - 1) * len(game.players)):
        state["player_match", row_id] = {"match_id": match_id, **vars(player)}
    return state
