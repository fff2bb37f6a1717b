"""The listener's command line and composition root."""

import argparse
import logging
import os
import signal
import sys
import uuid
from importlib.metadata import version

from app.core import metrics
from app.core.config import Settings, load_settings_or_exit, where_settings_come_from
from app.core.logs import configure_logging
from app.core.names import RedisNames
from app.core.postgres import OperatorError, database_url
from app.core.pulse import Pulse
from app.core.redis_client import describe_redis, sync_client
from listener.forwarder import Forwarder
from listener.metrics import ListenerMetrics
from listener.numbering import Bounds
from listener.registry import Registry
from listener.round_trip import RoundTrip
from listener.stream import Stream
from listener.tally import Tally

# supervisord's name for this process: `listener` or `listener-standby`.
PROGRAM = os.environ.get("SUPERVISOR_PROCESS_NAME", "listener")

logger = logging.getLogger("listener")


def main() -> int:
    """Runs the listener until SIGTERM; its exit code is 0 then, and 2 when an operator has to mend something."""
    parser = argparse.ArgumentParser(prog="python -m listener", description="Forwards PostgreSQL's NOTIFY to Redis.")
    parser.add_argument("--version", action="version", version=f"notifymux {version('notifymux')}")
    parser.parse_args()
    settings = load_settings_or_exit()
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
    registry = Registry(client, names, settings.pod_name, PROGRAM, uuid.uuid4().hex)
    _keep_metrics()
    tally, round_trip = Tally(), RoundTrip()
    return Forwarder(
        url=url,
        channels=settings.notify_channels,
        pod=settings.pod_name,
        stream=Stream(client, names, settings.stream_maxlen, registry),
        registry=registry,
        bounds=Bounds(settings.buffer_events, settings.buffer_bytes),
        canary_interval=settings.canary_interval,
        pulse=Pulse(PROGRAM),
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
