"""The same work as `throughput` on what people would pick instead.

Each as its own documentation has it, four processes, one WebSocket client on each; what is not said is the default:

- `pg-listen`: npm's pg-listen and ws in four Node processes (`cluster`), each with a subscriber of its own, which
  parses the payload (pg-listen's default), finds the match's clients and sends them one text.
- `broadcaster`: broadcaster on PostgreSQL (asyncpg), with Starlette on uvicorn under gunicorn; a client's WebSocket
  subscribes to the channel and is sent each message as it is, as in the README. (It knows no matches.)
- `nchan`: nginx with Debian's nchan, four workers, access log off, 1,000 messages kept per channel, so that who is
  behind misses none; one psycopg LISTEN loop posts to it, all that one wake-up brought in one pipelined write over one
  connection that is kept.

They are installed when they are first measured, into `.bench` (npm, PyPI, Debian's packages).
"""

from contextlib import ExitStack

from bench.environment import Environment
from bench.peers.installed import NotInstalledError
from bench.peers.systems import broadcaster, nchan, pg_listen
from bench.report import Report
from bench.systems import System, through_redis
from bench.throughput import compare

BASE = "redis"


def measure(arena: Environment, report: Report, *, short: bool) -> None:
    """The peers beside notifymux; one that can't be installed is left out, and the report says so."""
    with ExitStack() as stack:
        systems: list[System] = []
        for start in (through_redis, pg_listen, broadcaster, nchan):
            try:
                systems.append(stack.enter_context(start(arena)))
            except NotInstalledError as error:
                report.note(f"{start.__name__}: NOT measured: {error}")
        compare("peers", systems, arena, report, short=short)
