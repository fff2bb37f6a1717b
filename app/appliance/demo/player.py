"""Plays the demo: some matches at once, each followed by the next one of the same teams, without end."""

import logging
import time
from collections.abc import Iterator
from itertools import cycle
from random import Random
from typing import Any

import psycopg

from app.appliance.demo.match import Game
from app.appliance.demo.tables import MatchTables, create_tables
from app.appliance.demo.teams import FIXTURES, Fixture
from app.appliance.embedded.servers import EmbeddedServers
from app.appliance.supervision.parent_death import terminate_with_parent
from app.core.config import load_settings_or_exit
from app.core.logging_config import configure_logging
from notifymux.reconnect import ReconnectState

_FIRST = min(FIXTURES)  # the match that `/demo` shows: it is played faster than the others
_INTERVAL_SECONDS = 0.25
_LEAD_SECONDS = 3_000  # of a game: so far into theirs, at most, the other matches are when the demo starts
logger = logging.getLogger(__name__)


def main() -> None:
    """Play into the embedded PostgreSQL, and into no other server, whatever the settings say."""
    terminate_with_parent()
    settings = load_settings_or_exit()
    configure_logging("demo", settings.log_level, settings.log_format)
    url = EmbeddedServers.load(settings.data_dir).database_url
    outage = ReconnectState("the embedded PostgreSQL", logger)
    random = Random()  # noqa: S311 - no secrets
    leads = {match_id: random.randrange(_LEAD_SECONDS) for match_id in FIXTURES} | {_FIRST: 0}
    matches = {match_id: _seconds(random, fixture, leads[match_id]) for match_id, fixture in FIXTURES.items()}
    while True:
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=3, application_name="notifymux-demo") as session:
                create_tables(session)
                outage.recovered()
                _play(session, matches)
        except psycopg.OperationalError as error:
            time.sleep(outage.failed(error))


def _seconds(random: Random, fixture: Fixture, lead: int) -> Iterator[Game]:
    """Play one game after the other. The first skips `lead` seconds after its beginning, which clears the tables."""
    while True:
        game = Game(random, fixture)
        for second, _ in enumerate(game.seconds()):
            if second == 0 or second > lead:
                yield game
        lead = 0


def _play(session: psycopg.Connection[Any], matches: dict[int, Iterator[Game]]) -> None:
    """Play, in each interval, one second of the first match and one of another, in turn: so the load stays small."""
    tables = {match_id: MatchTables(session, match_id) for match_id in matches}
    due = time.monotonic()
    for other in cycle(match_id for match_id in matches if match_id != _FIRST):
        for match_id in (_FIRST, other):
            tables[match_id].update(next(matches[match_id]))
        # A delay of up to one interval is made up for.
        due = max(due + _INTERVAL_SECONDS, time.monotonic() - _INTERVAL_SECONDS)
        time.sleep(max(0, due - time.monotonic()))
