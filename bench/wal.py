"""The two sources of events: throughput and latency of a listener that LISTENs, and of one that reads the WAL.

The transactions of both change a row and wait for the disk: what has not been flushed is in no slot.
"""

from contextlib import closing

import psycopg

from bench import latency, throughput
from bench.environment import Environment
from bench.report import Report
from bench.systems import all_measured, by_notify, by_the_wal

BASE = "notify"
_FEWER_COMMITS = 10  # than where they don't wait: the clients of the other system are read only between two runs


def measure(environment: Environment, report: Report, *, short: bool) -> None:
    """Compare both in a pod whose listener feeds the workers."""
    with closing(psycopg.connect(environment.database_url)) as connection:
        [wal_level] = connection.execute("SHOW wal_level").fetchall()[0]
    if wal_level != "logical":
        report.note(f"wal: wal_level is {wal_level} here, so nothing can read the WAL")
        return
    with all_measured(environment, (by_notify, by_the_wal)) as measured:
        throughput.compare("wal", measured, report, short=short, fewer_commits=_FEWER_COMMITS)
        latency.compare("wal", measured, report, short=short)
