"""`python -m tests.chaos.pod_update [--clients N] [--drain SECONDS]`: replace three whole pods under load.

Each pod has a listener, and two workers behind one load balancer. As in Kubernetes a new pod is started, and when it
is ready an old one ends. It gets newcomers for a second longer. The exit code is 1 if an event was lost, repeated or
out of order, or a client had to start again from a snapshot.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from tests.chaos.delivery_check import Deliveries, DeliveryCheck, EventKey, ambiguous_ids
from tests.chaos.load import MATCHES, CommitOrder, Writer, create_table, match_of
from tests.chaos.pods import SETTINGS
from tests.chaos.returning_clients import ReturningClients
from tests.support.output import print_line
from tests.support.programs import App, Listener
from tests.support.servers import Servers, database_settings, temporary_servers
from tests.support.waiting import hold_for, wait_until

PODS, WORKERS, EVENTS_PER_SECOND = 3, 2, 20
ENDPOINT_SECONDS = 1.0  # until the load balancer knows that a pod ends


class Replaced(NamedTuple):
    """What became of one pod's clients."""

    clients: int
    share_closed: float  # of them, in the busiest second
    share_back: float  # of them, in the busiest second
    seconds: float  # from SIGTERM until the workers had ended


class UpdateReport(NamedTuple):
    """What all clients received, and the pods that were replaced."""

    deliveries: Deliveries
    pods: list[Replaced]
    committed: int
    refused: int  # connections, by pods that ended
    longest_pause: float  # of the clients' own process, seconds
    codes: dict[int, int]  # of closed connections
    log: str


class WholePod:
    """A listener and workers in one folder. Runs while the block runs."""

    def __init__(self, name: str, folder: Path, settings: dict[str, str]) -> None:
        folder.mkdir()
        own = settings | {"POD_NAME": name}
        self.listener, self.app = Listener(folder, own), App(folder, own, WORKERS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.app.end()
        self.listener.end()

    def wait_until_ready(self) -> Self:
        """Wait until the listener is aligned, or a reserve, and the workers serve."""
        self.app.wait_until_ready(30)
        wait_until(lambda: self._role() in {"primary", "standby", "reserve"}, 30, lambda: self.log)
        return self

    def _role(self) -> str:
        rows = self.app.get("/api/status")[1]["listeners"]
        return next((row["role"] for row in rows if row["pid"] == self.listener.pid), "")

    @property
    def log(self) -> str:
        return f"{self.listener.log}\n{self.app.log}"


class SteadyWriter(Writer):
    """Commits a few events at a time: hundreds to each client would keep them all busy, and not only their pods."""

    def _transaction_size(self) -> int:
        return self._rng.randint(1, 5)


class PodUpdate:
    """Three pods, clients and a writer, while the block runs.

    Args:
        servers: both running, with an empty database.
        folder: of the pods.
        clients: of all pods together.
        seed: of the load.
        settings: in addition to the usual ones.
    """

    def __init__(
        self, servers: Servers, folder: Path, clients: int, seed: int, settings: dict[str, str] | None = None
    ) -> None:
        self._folder, self._number, self._rng = folder, clients, random.Random(seed)
        self._url = servers.embedded.database_url
        redis_settings = {"REDIS_URL": servers.embedded.redis_url, "USE_REDIS_NOTIFIER": "true"}
        self._settings = SETTINGS | database_settings(self._url) | redis_settings | (settings or {})
        self._stack = ExitStack()
        self._started = 0
        self._ports: list[int] = []
        self._pods: list[WholePod] = []
        self._replaced: list[Replaced] = []
        self._logs: list[str] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._stack = stack
            create_table(self._url)
            self._order = stack.enter_context(CommitOrder(self._url))
            self._pods = [self._start_pod() for _ in range(PODS)]
            self._ports += [pod.wait_until_ready().app.port for pod in self._pods]
            self._clients = stack.enter_context(ReturningClients(self._number, self._ports))
            wait_until(self._order.listening.is_set)
            rng = random.Random(self._rng.random())
            self._writer = stack.enter_context(SteadyWriter(1, self._url, self._order, EVENTS_PER_SECOND, rng))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> UpdateReport:
        """Replace all pods, one after another; then stop the load and check what the clients received."""
        for old in self._pods:
            self._ports.append(self._start_pod().wait_until_ready().app.port)
            began, clients = time.monotonic(), self._clients.of_pod(old.app.port)
            old.app.signal(15)
            hold_for(ENDPOINT_SECONDS, lambda: self._writer.failure is None)
            self._ports.remove(old.app.port)
            assert old.app.exit_code(30) == 0, old.log
            seconds = time.monotonic() - began
            assert old.listener.stop() == 0, old.log
            wait_until(lambda: sum(map(self._clients.of_pod, self._ports)) == self._number, 20, "all are back")
            self._logs.append(old.log)
            closed, back = [each.busiest_second(old.app.port) for each in (self._clients.closed, self._clients.back)]
            self._replaced.append(Replaced(clients, closed / max(clients, 1), back / max(clients, 1), seconds))
        return self._finish()

    def _start_pod(self) -> WholePod:
        self._started += 1
        name = f"pod-{self._started}"
        return self._stack.enter_context(WholePod(name, self._folder / name, self._settings))

    def _finish(self) -> UpdateReport:
        self._writer.stop()
        committed = self._writer.committed.keys()
        wait_until(lambda: self._order.indexes.keys() >= committed, 20, "the commit order is known")
        [session] = self._order.sessions
        of_match = {match: [event for event in session if match_of(event) == match] for match in MATCHES}
        self._wait_for_last({match: events[-1] for match, events in of_match.items()})
        self._clients.close()  # or each pod that ends now would drain
        deliveries = Deliveries()
        for client in self._clients.clients:
            deliveries.add(DeliveryCheck([of_match[client.match]]).run(client.name, client.received))
        deliveries.errors += ambiguous_ids(client.received for client in self._clients.clients)
        codes = dict(self._clients.codes)
        return UpdateReport(
            deliveries,
            self._replaced,
            len(session),
            self._clients.refused,
            self._clients.longest_pause,
            codes,
            "\n".join(self._logs),
        )

    def _wait_for_last(self, last: dict[int, EventKey]) -> None:
        clients = self._clients.clients
        wait_until(lambda: all(client.last == last[client.match] for client in clients), 20, "all have the last event")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.pod_update", description=__doc__)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--drain", type=int, default=5, metavar="SECONDS", help="DRAIN_SECONDS")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="of the load")
    options = parser.parse_args(arguments)
    settings = {"DRAIN_SECONDS": str(options.drain)}
    with (
        temporary_servers("update") as servers,
        tempfile.TemporaryDirectory() as folder,
        PodUpdate(servers, Path(folder), options.clients, options.seed, settings) as update,
    ):
        report = update.run()
    found = report.deliveries
    for each in report.pods:
        print_line(
            f"{each.clients} clients, in the busiest second {each.share_closed:.0%} closed, {each.share_back:.0%} back;"
            f" ended after {each.seconds:.1f} s"
        )
    print_line(
        f"{report.committed} events committed, {found.received} delivered, {found.lost} lost, {found.repeated} twice,"
        f" {found.out_of_order} out of order, {found.resyncs} resyncs, {report.refused} refused, closed: {report.codes}"
        f"; the clients paused for {report.longest_pause:.2f} s at most"
    )
    return int(bool(found.lost or found.repeated or found.out_of_order or found.resyncs or found.errors))


if __name__ == "__main__":
    sys.exit(main())
