"""The listener's command line and composition root."""

import argparse
import json
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib.metadata import version
from random import SystemRandom

from redis import Redis

from app.core import metrics, setting_names
from app.core.claims import NO_CLAIMS, claims_json
from app.core.config import Settings, load_settings_or_exit, where_settings_come_from
from app.core.feed_path import feed_path
from app.core.home import enter_home
from app.core.liveness_file import LivenessFile
from app.core.logging_config import configure_logging
from app.core.operator_errors import OperatorError
from app.core.postgres import database_url, describe, listening_conninfo
from app.core.redis_address import redis_address
from app.core.schema.script import install_script, uninstall_script
from listener.environment import Environment
from listener.feed import FeedServer
from listener.forwarder import Forwarder
from listener.main_loop import run as run_forwarder
from listener.metrics import ListenerMetrics
from listener.postgres_session import PostgresConnector
from listener.redis_connection import RedisConnection
from listener.redis_stream import RedisStream, StreamBounds
from listener.registry import ListenerRegistry
from listener.reserves import Reserves
from listener.schema_install import apply, in_transaction
from listener.sequencer.process_state import BufferSize, ProcessState, fingerprint
from listener.stats import ListenerStats, RoundTripTimer
from listener.verify.output import as_json, as_table, is_ok
from listener.verify.query_checks import Sample
from listener.verify.runner import Options, run
from listener.wal.connector import WalConnector
from listener.wal.drop_slot import drop_slot
from listener.wal.slot import SlotSettings
from notifymux.background_call import BackgroundCall
from notifymux.reconnect import one_line
from notifymux.redis_client import describe_redis, sync_client
from notifymux.redis_keys import RedisNames

# supervisord's name for this process: `listener` or `listener-standby`.
PROGRAM = os.environ.get("SUPERVISOR_PROCESS_NAME", "listener")

logger = logging.getLogger("listener")


def main() -> int:
    """Run the command that the arguments name; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m listener", description="Forwards PostgreSQL's NOTIFY to Redis.")
    parser.add_argument("--version", action="version", version=f"notifymux {version('notifymux')}")
    commands = parser.add_subparsers(dest="command", title="instead of that")
    verifying = commands.add_parser("verify", help="check the whole path, and say what to do about each failure")
    verifying.add_argument("--json", action="store_true", help="for programs")
    verifying.add_argument("--match", metavar="ID", help="the match for which the queries are tried")
    verifying.add_argument(
        "--claims", metavar="JSON", type=_claims, default=NO_CLAIMS, help="a token's claims for which they are tried"
    )
    verifying.add_argument(
        "--send",
        action="store_true",
        help='notify {"verify": …} on your channels too; every program that LISTENs there hears it',
    )
    commands.add_parser("sql", help="print the SQL of the schema notifymux, for psql")
    changing = {
        "install": commands.add_parser("install", help="install the schema notifymux in the database, or renew it"),
        "uninstall": commands.add_parser("uninstall", help="remove the schema notifymux from the database"),
    }
    for command in changing.values():
        command.add_argument("--dry-run", action="store_true", help="try it, and change nothing")
    commands.add_parser("drop-slot", help="drop the replication slot of SOURCE=wal, and its publication")
    arguments = parser.parse_args()
    enter_home()
    settings = load_settings_or_exit()
    match arguments.command:
        case "verify":
            options = Options(Sample(arguments.match, arguments.claims), arguments.send)
            return verify(settings, options, in_json=arguments.json)
        case "sql":
            sys.stdout.write(in_transaction(install_script(settings.source)))
            return 0
        case "install":
            return change_schema(settings, install_script(settings.source), dry_run=arguments.dry_run)
        case "uninstall":
            return change_schema(settings, uninstall_script(), dry_run=arguments.dry_run)
        case "drop-slot":
            return drop(settings)
        case _:
            return listen(settings)


def _claims(text: str) -> str:
    try:
        return claims_json(dict(json.loads(text)))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError("it takes a JSON object") from None


def listen(settings: Settings) -> int:
    """Run the listener until SIGTERM; return the exit code: 0, or 2 if the settings name no database."""
    configure_logging(PROGRAM, settings.log_level, settings.log_format)
    logger.info("settings %s", where_settings_come_from())
    for line in setting_names.warnings():
        logger.warning("%s", line)
    try:
        run = compose(settings)
        run()
    except OperatorError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says all; a traceback adds nothing
        return 2
    logger.info("stopped")
    return 0


def verify(settings: Settings, options: Options, *, in_json: bool) -> int:
    """Print every check's result; return the exit code: 0, 1 if a check failed, or 2 for wrong settings."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    try:
        url = database_url(settings)
    except OperatorError as error:
        sys.stderr.write(f"notifymux: {error}\n")
        return 2
    with closing(sync_client(redis_address(settings))) as client:
        checks = list(run(settings, options, url, client))
    sys.stdout.write((as_json(checks) if in_json else as_table(checks)) + "\n")
    return 0 if is_ok(checks) else 1


def change_schema(settings: Settings, script: str, *, dry_run: bool) -> int:
    """Run a script of `app.core.schema`; return the exit code: 0, 1 if it failed, or 2 for wrong settings."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        url = database_url(settings)
    except OperatorError as error:
        sys.stderr.write(f"notifymux: {error}\n")
        return 2
    try:
        applied = apply(url, script, dry_run=dry_run)
    except OperatorError as error:
        sys.stderr.write(f"notifymux: {error}\n")
        return 1
    sys.stdout.write(f"{applied}{' (dry run: nothing is changed)' if dry_run else ''}\n")
    return 0


def drop(settings: Settings) -> int:
    """Drop the slot, and print what was done.

    Returns:
        The exit code: 0, 1 if the slot is left as it is, or 2 for wrong settings.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = 2
    try:
        conninfo = listening_conninfo(database_url(settings), f"notifymux-drop-slot/{settings.pod_name}")
        code = 1
        done = drop_slot(conninfo, settings.wal_slot)
    except OperatorError as error:
        sys.stderr.write(f"notifymux: {one_line(error)}\n")
        return code
    sys.stdout.write(f"notifymux: {done}\n")
    return 0


def compose(settings: Settings) -> Callable[[], None]:
    """Build the listener that the settings describe; return the call that runs it until SIGTERM.

    Raises:
        OperatorError: DB_HOST is not set.
    """
    url = database_url(settings)
    redis_url = settings.redis_url.get_secret_value()
    logger.info("forwarding to %s under %s", describe_redis(redis_url), settings.redis_namespace)
    connection = RedisConnection(redis_address(settings))
    client = Redis(connection_pool=connection)
    names = RedisNames(settings.redis_namespace)
    registry = ListenerRegistry(
        client,
        names,
        settings.pod_name,
        PROGRAM,
        uuid.uuid4().hex,
        channels=settings.notify_channels,
        slot=settings.wal_slot if settings.source == "wal" else "",
        database=settings.db_name,
    )
    reserves = Reserves(settings.listeners_max, registry.own)
    _enable_metrics()
    stats, round_trip = ListenerStats(), RoundTripTimer()
    connector = _connector(settings, registry, reserves)
    process = ProcessState(
        fingerprint(settings.db_name, settings.notify_channels),
        BufferSize(settings.buffer_events, settings.buffer_bytes),
        settings.canary_interval,
        stats,
        SystemRandom(),
        time.time,
    )
    environment = Environment(
        connect=connector.connect,
        waits_for=lambda: connector.waits_for,
        start_call=BackgroundCall,
        stream=RedisStream(client, names, StreamBounds(settings.stream_maxlen, settings.stream_maxbytes), registry),
        registry=registry,
        reserves=reserves,
        feed=FeedServer(feed_path(PROGRAM), names.log),
        monotonic=time.monotonic,
        wall=time.time,
        new_session_id=lambda: uuid.uuid4().hex,
    )
    how = f"reading the slot {settings.wal_slot} for" if settings.source == "wal" else "listening on"
    description = f"{describe(url)}, {how} {', '.join(settings.notify_channels)}"
    forwarder = Forwarder(environment, process, round_trip, description)
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: forwarder.stop())
    connection.start(lambda: registry.last_beat)  # it looks Redis up; SIGTERM ends the listener in order from here on
    return partial(
        run_forwarder,
        forwarder,
        LivenessFile(PROGRAM),
        ListenerMetrics(stats, round_trip, reads_slot=settings.source == "wal"),
    )


def _connector(settings: Settings, registry: ListenerRegistry, reserves: Reserves) -> PostgresConnector | WalConnector:
    conninfo = partial(_conninfo, settings)
    if settings.source == "wal":
        slot = SlotSettings(
            settings.wal_slot,
            settings.notify_channels,
            settings.wal_trail,
            max_held_bytes=settings.buffer_bytes,
            max_behind_bytes=settings.wal_limit,
        )
        return WalConnector(conninfo, slot, registry.is_answered, lambda: not reserves.has_to_leave)
    return PostgresConnector(conninfo, settings.notify_channels)


def _conninfo(settings: Settings) -> str:
    return listening_conninfo(database_url(settings), f"notifymux-listener/{settings.pod_name}")


def _enable_metrics() -> None:
    try:
        metrics.remove_stale_files(PROGRAM)
        metrics.enable_multiprocess(PROGRAM)
    except OSError as error:
        logger.warning("/metrics will not show this listener: %s", error)


if __name__ == "__main__":
    sys.exit(main())
