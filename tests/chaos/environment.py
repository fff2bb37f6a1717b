"""Listeners, workers with clients, writers, and faults one after another."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from typing import Self

import psutil
import psycopg

from tests.chaos.delivery_check import DeliveryCheck, EventKey, ambiguous_ids
from tests.chaos.faults import Target
from tests.chaos.load import MATCHES, ListenSampler, RecordingClient, Writer, create_table, match_of
from tests.chaos.pods import SETTINGS, Pod
from tests.chaos.report import NO_FAULT, Report
from tests.chaos.source import NOTIFY, Fault, Source
from tests.support.output import print_line
from tests.support.programs import App
from tests.support.servers import Servers
from tests.support.waiting import hold_for, wait_until

EVENTS_PER_SECOND, WRITERS = 400, 4
WORKERS, CLIENTS = 2, 5  # in each of two pods: the first one has a listener, which feeds its workers
PAUSE_SECONDS = (0.5, 2.0)  # between two faults
HEARTBEAT_SECONDS = 1.6  # until a process has sent a heartbeat after a fault


class Environment:
    """The processes and the load, which run while the block runs.

    Args:
        servers: both running, with an empty database, and used by nothing else.
        folder: the programs' working directory.
        listeners: the number of pods.
        seed: of faults and load.
        source: of the events.
        settings: of the listeners and the workers, in addition to the usual ones.
        app_settings: of the workers instead of `settings`.
        clients: the number of clients of each of the two pods with workers.
        verbose: print a line for each fault.
    """

    def __init__(
        self,
        servers: Servers,
        folder: Path,
        listeners: int,
        seed: int,
        *,
        source: Source = NOTIFY,
        settings: Mapping[str, str] | None = None,
        app_settings: Mapping[str, str] | None = None,
        clients: int = CLIENTS,
        verbose: bool = False,
    ) -> None:
        self.servers, self.folder = servers, folder
        self.report, self._source = Report(source, listeners, seed), source
        self._clients_per_app = clients
        self._rng = Random(f"{seed}, {listeners}")
        self._settings = source.settings | dict(settings or {})
        self._app_settings = self._settings if app_settings is None else source.settings | dict(app_settings)
        self._verbose = verbose
        self._stack = ExitStack()
        self._pods_started = 0
        self._probes_committed = 0
        self._remaining_faults: list[str] = []
        self._began = time.monotonic()
        self.pods: list[Pod] = []
        self.apps: list[App] = []
        self.stopped_pods: list[Pod] = []
        self.clients: list[RecordingClient] = []
        self._probes: dict[EventKey, int] = {}  # by session of the commit order

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    # ---- start

    def _start(self) -> None:
        enter = self._stack.enter_context
        url = self.servers.embedded.database_url
        create_table(url, self._source.name)
        self.order = enter(self._source.order(url))
        self.sampler = enter(ListenSampler(url))
        for _ in range(self.report.listeners):
            self.start_pod()
        redis_settings = {"REDIS_URL": self.servers.embedded.redis_url}
        remote = self.folder / "remote"
        remote.mkdir()
        for folder in (self.pods[0].folder, remote):
            self.apps.append(enter(App(folder, SETTINGS | redis_settings | self._app_settings, WORKERS)))
        for pod in self.pods:
            pod.wait_until_aligned()
        for app in self.apps:
            self._connect_clients(app.wait_until_ready())
        self.report.clients = len(self.clients)
        self._warm_up()
        rng, rate = Random(self._rng.random()), EVENTS_PER_SECOND / WRITERS
        self.writers = [enter(Writer(n, url, self.order, rate, Random(rng.random()))) for n in range(1, WRITERS + 1)]
        self._began = time.monotonic()

    def start_pod(self, settings: Mapping[str, str] | None = None, folder: Path | None = None) -> Pod:
        """Start one more listener, under a new name, in a new folder or in that of another one that has ended."""
        self._pods_started += 1
        name = f"pod-{self._pods_started}"
        pod = Pod(name, folder or self.folder / name, self.servers, self._settings | dict(settings or {}))
        self.pods.append(self._stack.enter_context(pod))
        return pod

    def add_pod(self, settings: Mapping[str, str]) -> None:
        """Start one more listener, and wait until it is aligned."""
        self.start_pod(settings)
        self.wait_until_caught_up()

    def _connect_clients(self, app: App) -> None:
        """Connect the clients of one pod, at least one to each worker."""
        for client in app.client_of_each_worker(MATCHES[0], WORKERS).values():
            client.close()  # now all workers serve
        clients: list[RecordingClient] = []
        for number in range(200):
            client = RecordingClient(app.port, MATCHES[number % len(MATCHES)], f"client-{app.port}-{number}")
            self._stack.callback(client.close)
            workers = {each.worker for each in clients}
            if client.worker in workers and len(clients) - len(workers) >= self._clients_per_app - WORKERS:
                client.close()
                continue
            clients.append(client)
            if len(clients) == self._clients_per_app:
                break
        workers = {each.worker for each in clients}
        assert len(workers) == WORKERS, f"only {len(workers)} of {WORKERS} workers accepted a client"
        for client in clients:
            assert client.is_loaded.wait(10)
        self.clients += clients

    def _warm_up(self) -> None:
        """Wait until every client receives events; discard the events so far."""
        wait_until(self.order.listening.is_set)

        def all_receive() -> bool:
            last = self._commit_probes()
            try:
                wait_until(lambda: self._received_by_all(last), 1)
            except AssertionError:
                return False
            return True

        wait_until(all_receive, 20, "every client receives events")
        wait_until(lambda: all(event in self.order.indexes for event in self._probes))
        self.order.sessions[-1].clear()
        self._probes.clear()
        for client in self.clients:
            client.received.clear()

    def _commit_probes(self) -> dict[int, EventKey]:
        """Commit one event for each match; return them by match."""
        events = [EventKey(0, self._probes_committed + n) for n in range(len(MATCHES))]
        self._probes_committed += len(MATCHES)
        with closing(psycopg.connect(self.servers.embedded.database_url, autocommit=True)) as connection:
            connection.execute(
                "INSERT INTO chaos SELECT 0, n, 1 + n %% 3 FROM generate_series(%s::int, %s::int) n",
                (events[0].serial, events[-1].serial),
            )
        self._probes |= dict.fromkeys(events, len(self.order.sessions) - 1)
        return {match_of(event): event for event in events}

    def _received_by_all(self, last: Mapping[int, EventKey]) -> bool:
        return all(client.last == last[client.match] for client in self.clients)

    # ---- faults

    def assert_running(self, *, except_for: Pod | None = None) -> bool:
        """Assert that every process, connection and thread still runs, except for the pod with the fault."""
        for pod in self.pods:
            assert pod is except_for or pod.process.running, f"{pod.name} exited:\n{pod.log}"
        for client in self.clients:
            assert client.code is None, f"{client.name} was closed with {client.code}:\n{self._app_logs}"
        for app in self.apps:
            assert app.running
        for thread in (self.order, self.sampler, *self.writers):
            assert thread.failure is None, thread.failure
        return True

    def run_load(self, seconds: float) -> None:
        """Let the load run without a fault."""
        hold_for(seconds, self.assert_running)

    def wait_until_caught_up(self, within: float = 30.0) -> None:
        """Wait until all listeners are aligned and every client has received what was committed before."""
        wait_until(self.order.listening.is_set)
        for pod in self.pods:
            pod.wait_until_aligned(within)
        indexes = self.order.indexes
        committed = len(indexes)
        wait_until(
            lambda: all(indexes.get(client.last or EventKey(0, 0), -1) >= committed for client in self.clients),
            within,
            "every client has caught up",
        )

    def run(self, seconds: float, faults: Iterable[str] = ()) -> Report:
        """Inject some faults, or all, for some time, at least one; print the logs if an assertion fails."""
        try:
            self._inject_faults(seconds, list(faults or self._source.faults))
            return self.finish()
        except AssertionError:
            print_line(self._logs(self.pods))
            raise

    def _inject_faults(self, seconds: float, faults: list[str]) -> None:
        until = time.monotonic() + seconds
        while True:
            if not self._remaining_faults:
                self._remaining_faults = self._rng.sample(faults, len(faults))
            name = self._remaining_faults.pop()
            self.inject(name, self._source.faults[name])
            if time.monotonic() > until:
                return
            self.run_load(self._rng.uniform(*PAUSE_SECONDS))

    def inject(self, name: str, fault: Fault) -> None:
        """Inject one fault, and wait until everything has recovered."""
        pod = self._choose_pod()
        before = self._resyncs()
        began = time.monotonic()
        if name in self._source.gaps:
            self.order.listening.clear()

        def wait(seconds: float) -> None:
            hold_for(seconds, lambda: self.assert_running(except_for=pod))

        fault(Target(pod, self._choose_worker(), self.servers, self._rng, wait))
        ended = time.monotonic()
        if name not in self._source.gaps:
            self.run_load(HEARTBEAT_SECONDS)
        self.wait_until_caught_up()
        wait_until(self._is_fed, 30, "the workers beside a listener follow its feed")
        gaps = max(after - earlier for earlier, after in zip(before, self._resyncs(), strict=True))
        self.report.faults[name] += 1
        self.report.gaps[name] += gaps
        recovery = time.monotonic() - ended
        self.report.recovery[name] = max(recovery, self.report.recovery.get(name, 0.0))
        if self._verbose:
            print_line(
                f"{began - self._began:7.1f} s  {name:21} {pod.name:7} {ended - began:4.1f} s,"
                f" recovered in {recovery:4.1f} s, {gaps} gaps"
            )

    def _is_fed(self) -> bool:
        if self.pods[0].registry_entry().get(b"role") == b"waiting":
            return True  # it has no ids, and feeds nobody
        fed = self.apps[0]
        status, shown = fed.get("/api/status")
        followers = {row["pid"] for row in shown["workers"] if row["fed"]} if status == 200 else set()
        return {worker.pid for worker in psutil.Process(fed.pid).children()} <= followers

    def _choose_pod(self) -> Pod:
        """Choose the primary with a preference, because faults of a standby have little effect."""
        pod = self._rng.choice(self.pods)
        if self._rng.random() < 0.7:
            pod = next((pod for pod in self.pods if pod.registry_entry().get(b"role") == b"primary"), pod)
        return pod

    def _choose_worker(self) -> psutil.Process:
        """Choose one that has a client."""
        return psutil.Process(self._rng.choice(self.clients).worker)

    def rolling_update(self, settings: Mapping[str, str] | None = None, *, aligned: bool = True) -> None:
        """Replace every pod, one at a time, by a new one with `settings`.

        With `aligned`, wait each time until the new pod is aligned; otherwise only until it is connected.
        """
        for old in list(self.pods):
            self.pods.remove(old)
            self.stopped_pods.append(old)
            assert old.process.stop() == 0
            new = self.start_pod(settings, old.folder)
            if aligned:
                self.wait_until_caught_up()
            else:
                wait_until(lambda new=new: "connected to " in new.process.log)  # type: ignore[misc]
            self.run_load(1.0)
        self.wait_until_caught_up()

    def _resyncs(self) -> list[int]:
        return [client.resyncs() for client in self.clients]

    # ---- the report

    def finish(self) -> Report:
        """Stop the load, wait until every client has received everything, and check the deliveries."""
        report = self.report
        for writer in self.writers:
            writer.stop()
        last = self._commit_probes()
        wait_until(lambda: self._received_by_all(last), 30, "every client received the last event")
        wait_until(lambda: self.order.indexes.keys() >= set(last.values()))
        report.seconds = time.monotonic() - self._began
        self._check_deliveries(report)
        report.gaps[NO_FAULT] += max(0, max(self._resyncs()) - report.gaps.total())
        report.max_listen_rows = max(self.sampler.max_rows.values(), default=0)
        report.gaps = +report.gaps
        report.log = self._logs([*self.stopped_pods, *self.pods])
        return report

    def _logs(self, pods: Sequence[Pod]) -> str:
        return "\n".join([*(pod.log for pod in pods), self._app_logs])

    @property
    def _app_logs(self) -> str:
        return "\n".join(f"--- workers of port {app.port}\n{app.log}" for app in self.apps)

    def _check_deliveries(self, report: Report) -> None:
        committed = dict(self._probes)
        uncertain: dict[EventKey, int] = {}
        for writer in self.writers:
            committed |= writer.committed
            uncertain |= writer.uncertain
        sessions = self.order.sessions
        recorded = {event for session in sessions for event in session}
        unreceived = {event: session for event, session in committed.items() if event not in recorded}
        if len(sessions) == 1:
            assert not unreceived, f"the reference session missed {len(unreceived)} events"
            strangers = recorded - committed.keys() - uncertain.keys()
            assert not strangers, f"{len(strangers)} events were never committed"
            uncertain.clear()  # the session has those that were committed
        report.committed = len(committed)
        for match in MATCHES:
            of_match = [[event for event in session if match_of(event) == match] for session in sessions]
            check = DeliveryCheck(of_match, _of_match(match, unreceived), _of_match(match, uncertain))
            for client in self.clients:
                if client.match == match:
                    report.deliveries.add(check.run(client.name, client.received))
        report.deliveries.errors += ambiguous_ids(client.received for client in self.clients)


def _of_match(match: int, events: Mapping[EventKey, int]) -> dict[EventKey, int]:
    return {event: session for event, session in events.items() if match_of(event) == match}
