"""The same measurement as `throughput`, with alternatives to notifymux.

Each is configured as its documentation shows, with four processes and one WebSocket client on each. Everything else has
its default:

- `pg-listen`: npm's pg-listen and ws in four Node processes (`cluster`), each with its own subscriber, which
  parses the payload (pg-listen's default), finds the match's clients and sends them one text.
- `broadcaster`: broadcaster on PostgreSQL (asyncpg), with Starlette on uvicorn under gunicorn; a client's WebSocket
  subscribes to the channel and receives each message unchanged, as in the README. (It has no matches.)
- `nchan`: nginx with Debian's nchan, four workers, access log off, 1,000 messages kept per channel, so that a
  slow client misses none; one psycopg LISTEN loop posts to it over one persistent connection, all notifications of one
  read in one pipelined write.

They are installed into `.bench` when they are first measured (from npm, PyPI and Debian).
"""

from contextlib import ExitStack

from bench.environment import Environment
from bench.peers.installed import NotInstalledError
from bench.peers.systems import broadcaster, nchan, pg_listen
from bench.report import Report
from bench.systems import MeasuredSystem, System, through_redis
from bench.throughput import compare

BASE = "redis"


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Compare the peers with notifymux. A peer that can't be installed is omitted with a note in the report."""
    with ExitStack() as stack:
        systems: list[System] = []
        for start in (through_redis, pg_listen, broadcaster, nchan):
            try:
                systems.append(stack.enter_context(start(environment)))
            except NotInstalledError as error:
                report.note(f"{start.__name__}: NOT measured: {error}")
        measured = [
            stack.enter_context(MeasuredSystem.with_client_on_each_worker(system, environment)) for system in systems
        ]
        compare("peers", measured, report, short=short)
