"""The listener's command line and composition root."""

import argparse
import logging
import os
import signal
import sys
import uuid
from contextlib import closing
from importlib.metadata import version

from app.core import metrics
from app.core.config import Settings, load_settings_or_exit, where_settings_come_from
from app.core.liveness_file import LivenessFile
from app.core.logging_config import configure_logging
from app.core.operator_errors import OperatorError
from app.core.postgres import database_url
from app.core.redis_keys import RedisNames
from listener.forwarder import Forwarder
from listener.metrics import ListenerMetrics
from listener.redis_stream import RedisStream
from listener.registry import ListenerRegistry
from listener.round_trip import RoundTripTimer
from listener.sequencer.sequencer import BufferLimits
from listener.stats import ListenerStats
from listener.verify.output import as_json, as_table, is_ok
from listener.verify.runner import run_checks
from notifymux.redis_client import describe_redis, sync_client

# supervisord's name for this process: `listener` or `listener-standby`.
PROGRAM = os.environ.get("SUPERVISOR_PROCESS_NAME", "listener")

logger = logging.getLogger("listener")


def main() -> int:
    """Runs the command that the arguments name; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m listener", description="Forwards PostgreSQL's NOTIFY to Redis.")
    parser.add_argument("--version", action="version", version=f"notifymux {version('notifymux')}")
    commands = parser.add_subparsers(dest="command", title="instead of that")
    verifying = commands.add_parser("verify", help="look whether everything works, and say what to do if it doesn't")
    verifying.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    settings = load_settings_or_exit()
    return verify(settings, in_json=arguments.json) if arguments.command == "verify" else listen(settings)


def listen(settings: Settings) -> int:
    """Runs the listener until SIGTERM; its exit code is 0 then, and 2 when an operator has to mend something."""
    configure_logging(PROGRAM, settings)
    logger.info("settings %s", where_settings_come_from())
    try:
        forwarder = compose(settings)
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda *_: forwarder.stop())
        forwarder.run()
    except OperatorError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message is all there is to say
        return 2
    logger.info("stopped")
    return 0


def verify(settings: Settings, *, in_json: bool) -> int:
    """Prints every check's result; the exit code is 0 if none failed, 1 if one did, and 2 for wrong settings."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # stopping is no error to tell of
    try:
        url = database_url(settings)
    except OperatorError as error:
        sys.stderr.write(f"notifymux: {error}\n")
        return 2
    with closing(sync_client(settings.redis_url.get_secret_value())) as client:
        checks = list(run_checks(settings, url, client))
    sys.stdout.write((as_json(checks) if in_json else as_table(checks)) + "\n")
    return 0 if is_ok(checks) else 1


def compose(settings: Settings) -> Forwarder:
    """The listener that the settings describe.

    Raises:
        OperatorError: they describe none.
    """
    url = database_url(settings)
    redis_url = settings.redis_url.get_secret_value()
    logger.info("forwarding to %s under %s", describe_redis(redis_url), settings.redis_namespace)
    client = sync_client(redis_url)
    names = RedisNames(settings.redis_namespace)
    registry = ListenerRegistry(client, names, settings.pod_name, PROGRAM, uuid.uuid4().hex)
    _keep_metrics()
    tally, round_trip = ListenerStats(), RoundTripTimer()
    return Forwarder(
        url=url,
        channels=settings.notify_channels,
        pod=settings.pod_name,
        stream=RedisStream(client, names, settings.stream_maxlen, registry),
        registry=registry,
        bounds=BufferLimits(settings.buffer_events, settings.buffer_bytes),
        canary_interval=settings.canary_interval,
        pulse=LivenessFile(PROGRAM),
        tally=tally,
        round_trip=round_trip,
        metrics=ListenerMetrics(tally, round_trip.fresh),
    )


def _keep_metrics() -> None:
    try:
        metrics.begin(PROGRAM)
        metrics.keep(PROGRAM)
    except OSError as error:
        logger.warning("/metrics will not show this listener: %s", error)


if __name__ == "__main__":
    sys.exit(main())
