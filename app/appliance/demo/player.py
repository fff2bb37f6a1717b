"""Plays the demo: one match after the other, without end."""

import logging
import time
from collections.abc import Iterator
from random import Random

import psycopg

from app.appliance.demo.match import Game
from app.appliance.demo.tables import MatchTables, create_tables
from app.appliance.embedded.servers import EmbeddedServers
from app.appliance.supervision.parent_death import terminate_with_parent
from app.core.config import load_settings_or_exit
from app.core.logging_config import configure_logging
from notifymux.reconnect import ReconnectState

_SECONDS_PER_GAME_SECOND = 0.25
logger = logging.getLogger(__name__)


def main() -> None:
    """Play into the embedded PostgreSQL, and into no other server, whatever the settings say."""
    terminate_with_parent()
    settings = load_settings_or_exit()
    configure_logging("demo", settings.log_level, settings.log_format)
    url = EmbeddedServers.load(settings.data_dir).database_url
    outage = ReconnectState("the embedded PostgreSQL", logger)
    seconds = _seconds(Random())  # noqa: S311 - no secrets
    while True:
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=3, application_name="notifymux-demo") as session:
                create_tables(session)
                outage.recovered()
                _play(MatchTables(session), seconds)
        except psycopg.OperationalError as error:
            time.sleep(outage.failed(error))


def _seconds(random: Random) -> Iterator[Game]:
    while True:
        game = Game(random)
        for _ in game.seconds():
            yield game


def _play(tables: MatchTables, seconds: Iterator[Game]) -> None:
    due = time.monotonic()
    for game in seconds:
        tables.update(game)
        # A delay of up to one second of the game is made up for.
        due = max(due + _SECONDS_PER_GAME_SECOND, time.monotonic() - _SECONDS_PER_GAME_SECOND)
        time.sleep(max(0, due - time.monotonic()))
