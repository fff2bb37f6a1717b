"""`python -m tests.chaos.redis_failover [--times 5]`: the primary of Redis is killed again and again, under load.

Its replica is promoted by three Sentinels, or in a Cluster. 300 events are committed a second. One client is in a pod
with a listener, one in a pod without; that listener is alone, or there is another pod's. For each of the four a row of
a table is printed. Its times are in seconds, the median and the most:

- to promotion: from kill -9 of the primary until the replica says that it is a primary (role:master).
- to naming: from the kill until a majority of the Sentinels answer SENTINEL get-master-addr-by-name with its address.
  Until the first of them does, no client can find it.
- promotion to events, naming to events: from then until the client in the pod without a listener hears an event that
  was committed after it.

The exit code is 1 if an event was lost, repeated or out of order, or a gap was announced.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tests.chaos.delivery_check import Deliveries, DeliveryCheck, EventKey, Received, ambiguous_ids
from tests.chaos.pods import SETTINGS
from tests.support.numbered import MATCH, Numbered
from tests.support.output import print_line
from tests.support.programs import App, Client, Listener
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_group import RedisGroup
from tests.support.redis_sentinels import RedisSentinels
from tests.support.servers import database_settings, temporary_servers
from tests.support.waiting import hold_for, wait_until

KINDS: Mapping[str, type[RedisSentinels | RedisCluster]] = {"Sentinels": RedisSentinels, "a Cluster": RedisCluster}
EVENTS_PER_SECOND = 300
_PODS = "pod-a", "pod-b", "pod-c"  # the first one or two have a listener, the first and the last have workers
_WORKERS = 2
_WITHIN_SECONDS = 30.0
_CALM_SECONDS = 1.5  # after each fail-over; within it every worker sends a heartbeat, which has its gaps
_COUNTS = ("listeners", "fail-overs", "events", "lost", "repeated", "out of order", "`resync`s", "gaps")
_TIMES = ("to promotion", "to naming", "promotion to events", "naming to events")
_COLUMNS = ("promoted by", *_COUNTS, *_TIMES)
HEADING = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"


class Run(NamedTuple):
    """What one run found."""

    listeners: int
    fail_overs: list[dict[str, float]]  # how long each part took, in seconds
    committed: int
    deliveries: Deliveries
    gaps: int  # that workers announced
    log: str

    @property
    def is_flawless(self) -> bool:
        """Whether everything was delivered once and in order, and nothing was announced."""
        found = self.deliveries
        return not (found.lost or found.repeated or found.out_of_order or found.resyncs or found.errors or self.gaps)

    def row(self, kind: str) -> str:
        """Format the figures."""
        found = self.deliveries
        counts = (self.listeners, len(self.fail_overs), self.committed, found.lost, found.repeated, found.out_of_order)
        numbers = (f"{count:,}" for count in (*counts, found.resyncs, self.gaps))
        return f"| {' | '.join([kind, *numbers, *map(self._median_and_most, _TIMES)])} |"

    def _median_and_most(self, part: str) -> str:
        seconds = [each[part] for each in self.fail_overs if part in each]
        return f"{statistics.median(seconds):.2f}, {max(seconds):.2f}" if seconds else ""


class TimedClient(Client):
    """A client that knows when it heard each event."""

    def __init__(self, app: App) -> None:
        self._heard: dict[int, float] = {}  # by number
        self._last = 0
        super().__init__(app.wait_until_ready().port, MATCH)
        self.wait_for_initial_load()

    def _on_message(self, message: dict[str, Any]) -> None:
        super()._on_message(message)
        if "operation" in message:
            self._heard.setdefault(message["data"], time.monotonic())
            self._last = message["data"]

    def heard_after(self, number: int) -> float:
        """Wait until it has heard an event with a greater number; return when it did."""
        wait_until(lambda: self._last > number, _WITHIN_SECONDS, f"an event after {number} is heard")
        return min(at for heard, at in list(self._heard.items()) if heard > number)

    @property
    def received(self) -> list[Received]:
        """The events, and each `resync`."""
        return [
            Received(EventKey(0, message["data"]) if "operation" in message else None, message["id"])
            for message in list(self.messages)
            if "operation" in message or message["type"] == "resync"
        ]


def fail_over(group: RedisGroup, events: Numbered, client: TimedClient) -> dict[str, float]:
    """Kill the primary; return how long each part took, once the killed one is back as a replica."""
    client.heard_after(events.sent + 100)

    def until(condition: Callable[[], bool], what: str) -> tuple[float, int]:
        wait_until(condition, _WITHIN_SECONDS, what)
        return time.monotonic(), events.sent

    primary, replica = group.pair
    killed = time.monotonic()
    primary.kill()
    moments = {"promotion": until(lambda: replica.is_primary, "the replica is promoted")}
    if isinstance(group, RedisSentinels):
        moments["naming"] = until(lambda: group.names(replica), "the Sentinels name it")
    parts = {f"to {name}": at - killed for name, (at, _) in moments.items()}
    parts |= {f"{name} to events": client.heard_after(sent) - at for name, (at, sent) in moments.items()}
    group.rejoin(primary)
    hold_for(_CALM_SECONDS, lambda: client.code is None)
    return parts


def run(group: RedisGroup, listeners: int, times: int, database: str, folder: Path) -> Run:
    """Start everything but the servers, let the primary fail some times, and check what both clients received."""
    redis_settings = {"REDIS_URL": group.url, "USE_REDIS_NOTIFIER": "true"}
    settings = SETTINGS | database_settings(database) | redis_settings
    for pod in _PODS:
        (folder / pod).mkdir()
    with ExitStack() as stack, closing(psycopg.connect(database, autocommit=True)) as connection:
        enter, events = stack.enter_context, Numbered(connection)
        running = [enter(Listener(folder / pod, settings | {"POD_NAME": pod})) for pod in _PODS[:listeners]]
        for listener in running:
            listener.wait_until_aligned(within=_WITHIN_SECONDS)
        apps = [enter(App(folder / pod, settings | {"POD_NAME": pod}, _WORKERS)) for pod in (_PODS[0], _PODS[-1])]
        near, far = [enter(TimedClient(app)) for app in apps]
        with events.committing(EVENTS_PER_SECOND):
            fail_overs = [fail_over(group, events, far) for _ in range(times)]
        for client in (near, far):
            client.heard_after(events.sent - 1)
        assert all(listener.running for listener in running)
        gaps = announced_gaps(apps[-1])
        log = "\n".join(program.log for program in (*running, *apps))
    return Run(listeners, fail_overs, events.sent, check(events.sent, [near, far]), gaps, log)


def announced_gaps(app: App) -> int:
    """Return how many gaps all workers have announced, of both pods that have some."""

    def workers() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = app.get("/api/status")[1]["workers"]
        return found

    wait_until(lambda: len(workers()) == 2 * _WORKERS, what=lambda: f"all workers are listed: {workers()}")
    return sum(worker["gaps"] for worker in workers())


def check(sent: int, clients: Sequence[TimedClient]) -> Deliveries:
    """Compare what each client received with the events, which were committed in the order of their numbers."""
    expected = DeliveryCheck([[EventKey(0, number) for number in range(1, sent + 1)]])
    deliveries = Deliveries()
    for client in clients:
        deliveries.add(expected.run(f"the client of worker {client.worker}", client.received))
    deliveries.errors += ambiguous_ids(client.received for client in clients)
    return deliveries


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.redis_failover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=5, help="how often the primary fails, in each of the four")
    options = parser.parse_args(arguments)
    is_flawless = True
    print_line(HEADING)
    with temporary_servers("redis") as servers:
        for kind, group_class in KINDS.items():
            for listeners in (1, 2):
                with tempfile.TemporaryDirectory() as name, group_class(Path(name)) as group:
                    found = run(group, listeners, options.times, servers.embedded.database_url, Path(name))
                print_line(found.row(kind))
                if not found.is_flawless:
                    is_flawless = False
                    print_line("\n".join([*found.deliveries.errors, found.log]))
    return int(not is_flawless)


if __name__ == "__main__":
    sys.exit(main())
