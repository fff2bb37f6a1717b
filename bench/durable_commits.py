"""Commits per second of writers that wait for the disk, by how each transaction announces its change.

A transaction that notifies takes one lock of the whole server before it commits, and holds it until the commit is
flushed. Commits that notify are therefore flushed one by one, where others share a flush. With `synchronous_commit=off`
that can't be seen.
"""

from collections.abc import Mapping
from contextlib import closing

import psycopg

from app.core.schema.script import install_script
from bench.environment import Environment, Place
from bench.events import CHANNEL
from bench.machine import describe_disk
from bench.pgbench import run_pgbench
from bench.report import Figure, Report

_WRITERS, _SHORT_WRITERS = (1, 8, 32), (8,)
_ROUNDS, _SHORT_ROUNDS = 5, 1
_SECONDS, _SHORT_SECONDS = 2, 1  # integers, for pgbench

# What a trigger does for each row, after it has built the payload. Its argument is the channel.
_BASE = "no message"
_NOTIFY = "PERFORM pg_notify(TG_ARGV[0], payload);"
_WAYS = {
    _BASE: "",
    "NOTIFY": _NOTIFY,
    # For this transaction only, as SET LOCAL: an attribute of the function would end with the function.
    "NOTIFY, its commit is asynchronous": f"PERFORM set_config('synchronous_commit', 'off', true); {_NOTIFY}",
    "pg_logical_emit_message": "PERFORM pg_logical_emit_message(true, 'notifymux:' || TG_ARGV[0], payload);",
    # The lock of a shard makes the order of the rows' ids that of the commits, for a reader that polls.
    "outbox row, shard lock and NOTIFY": """
        PERFORM FROM shard WHERE id = NEW.id % 8 FOR UPDATE;
        INSERT INTO outbox (shard, payload) VALUES (NEW.id % 8, payload);
        PERFORM pg_notify(TG_ARGV[0], (NEW.id % 8)::text);
    """,
}
_OUTBOX = """
CREATE TABLE shard (id int PRIMARY KEY);
INSERT INTO shard SELECT generate_series(0, 7);
CREATE TABLE outbox (id bigserial PRIMARY KEY, shard int NOT NULL, payload text NOT NULL);
"""
# Each writer has a hundred rows of its own, of one match, so that none waits for another one's row.
_TABLE = """
CREATE TABLE "{name}" (id int PRIMARY KEY, match_id int NOT NULL, home_score int NOT NULL DEFAULT 0);
INSERT INTO "{name}" SELECT id, id / 100 FROM generate_series(0, 9999) id;
"""
_ROW_TRIGGER = """
CREATE FUNCTION "{name}"() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    payload text := json_build_object('match_id', NEW.match_id, 'operation', TG_OP, 'data', row_to_json(NEW));
BEGIN
    {way}
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER UPDATE ON "{name}" FOR EACH ROW EXECUTE FUNCTION "{name}"('{channel}');
"""
_STATEMENT_TRIGGER = """
CREATE FUNCTION "{name}"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_notify(TG_ARGV[0], json_build_object('match_id', match_id, 'operation', TG_OP, 'data', NULL)::text)
    FROM changed GROUP BY match_id;
    RETURN NULL;
END $$;
CREATE TRIGGER announce AFTER UPDATE ON "{name}" REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION "{name}"('{channel}');
"""
_NO_TRIGGER, _PER_STATEMENT = "no trigger", "one NOTIFY for each match of a statement"
_TRIGGERS = (_NO_TRIGGER, "NOTIFY", _PER_STATEMENT)
_TRIGGER_WRITERS = 8

_ONE_ROW = r"""
\set id :client_id * 100 + random(0, 99)
UPDATE "{name}" SET home_score = home_score + 1 WHERE id = :id;
"""
_ALL_ROWS = r"""
\set first :client_id * 100
UPDATE "{name}" SET home_score = home_score + 1 WHERE id BETWEEN :first AND :first + 99;
"""
_STATEMENTS = {"1 row a statement": _ONE_ROW, "100 rows a statement": _ALL_ROWS}

# A table that the installed schema watches, and how its function `notify` sends.
_WATCHED = "watched"
_SENDING = {"watch, no message": "", "watch, NOTIFY": "notify", "watch, the WAL": "wal"}
_SENDS_NOTHING = """
CREATE OR REPLACE FUNCTION notifymux.notify(channel text, payload text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$ BEGIN END $$;
"""

_MORE = "with 1 ms more flush"
_DELAY = {"commit_delay": "1000", "commit_siblings": "0"}  # µs that whoever flushes sleeps first


def compare(environment: Environment, place: Place, report: Report, cores: set[int], *, short: bool) -> None:
    """Run writers on some cores, in turns: by the way to announce a row, by the watched table's, by kind of trigger."""
    flushes = _prepare(environment, place, report)
    seconds = _SHORT_SECONDS if short else _SECONDS

    def run(case: str, name: str, script: str, writers: int, settings: Mapping[str, str]) -> None:
        settings = {"synchronous_commit": "on", **settings}
        script = script.format(name=name)
        commits = run_pgbench(place, script, writers=writers, seconds=seconds, settings=settings, cores=cores)
        report.run("writers", case, name, Figure("commits_per_s", "/s", commits.per_second))

    for _ in range(_SHORT_ROUNDS if short else _ROUNDS):
        for flush, settings in flushes.items():
            for writers in _SHORT_WRITERS if short else _WRITERS:
                for way in _WAYS:
                    run(f"{flush}, {writers} writers", way, _ONE_ROW, writers, settings)
                for sending, source in _SENDING.items():
                    _install(place, source)
                    script = _ONE_ROW.replace("{name}", _WATCHED)
                    run(f"{flush}, {writers} writers, watch", sending, script, writers, settings)
            for statement, script in _STATEMENTS.items():
                for trigger in _TRIGGERS:
                    run(f"{flush}, {statement}", trigger, script, _TRIGGER_WRITERS, settings)


def _prepare(environment: Environment, place: Place, report: Report) -> dict[str, dict[str, str]]:
    """Create the tables, note what a flush is here, and return the settings of the flushes that can be measured."""
    with closing(psycopg.connect(place.database, autocommit=True)) as connection:
        [fsync, method, may_delay] = connection.execute(
            "SELECT current_setting('fsync'), current_setting('wal_sync_method'),"
            " has_parameter_privilege('commit_delay', 'SET')"
        ).fetchall()[0]
        if fsync != "on":
            report.note("writers: fsync is off here, so no commit waits for a disk, and none was measured that does")
            return {}
        tables = (*_WAYS, _NO_TRIGGER, _PER_STATEMENT, _WATCHED)
        statements = [_OUTBOX, *(_TABLE.format(name=name) for name in tables)]
        statements += [_ROW_TRIGGER.format(name=name, way=way, channel=CHANNEL) for name, way in _WAYS.items()]
        statements.append(_STATEMENT_TRIGGER.format(name=_PER_STATEMENT, channel=CHANNEL))
        statements += [install_script("notify"), f"SELECT notifymux.watch('public.{_WATCHED}', '{CHANNEL}')"]
        connection.execute("".join(statements).encode())
    disk = describe_disk(environment.folder) if environment.parts else "the given server's disk"
    report.note(f"writers with synchronous_commit=on: fsync=on, wal_sync_method={method}, WAL on {disk}")
    if not may_delay:
        report.note("writers: this role may set no commit_delay, so a flush that takes longer was left out")
        return {"synchronous_commit=on": {}}
    return {"synchronous_commit=on": {}, f"synchronous_commit=on, {_MORE}": _DELAY}


def _install(place: Place, source: str) -> None:
    """Have the watched table's trigger send by a source; where that is empty, it builds the payload for nothing."""
    with closing(psycopg.connect(place.database)) as connection:
        connection.execute(install_script(source or "notify").encode() + (b"" if source else _SENDS_NOTHING.encode()))
        connection.commit()
