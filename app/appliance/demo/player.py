"""Plays the demo: one match after the other, for ever."""

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

_PACE = 0.25  # seconds of ours for one of the game's
logger = logging.getLogger(__name__)


def main() -> None:
    """Plays into the embedded PostgreSQL. Never into a server of the user's, whatever the settings say."""
    terminate_with_parent()
    settings = load_settings_or_exit()
    configure_logging("demo", settings)
    url = EmbeddedServers.load(settings.data_dir).database_url
    outage = ReconnectState("the embedded PostgreSQL", logger)
    seconds = _seconds(Random())  # noqa: S311 - luck, not secrets
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


def _play(board: MatchTables, seconds: Iterator[Game]) -> None:
    due = time.monotonic()
    for game in seconds:
        board.show(game)
        due = max(due + _PACE, time.monotonic() - _PACE)  # a delay is made up for, a long one isn't
        time.sleep(max(0, due - time.monotonic()))
