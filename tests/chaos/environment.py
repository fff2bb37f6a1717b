"""Everything at once: listeners, workers with clients, writers, and faults in turn."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

import psycopg

from tests.chaos.delivery_check import DeliveryLog, Token, Verdict, two_names
from tests.chaos.faults import BREAKS_EVERY_SESSION, FAULTS
from tests.chaos.load import MATCHES, Order, Sampler, Witness, Writer, make_table, match_of
from tests.chaos.pods import SETTINGS, Pod
from tests.support.programs import App
from tests.support.servers import Servers
from tests.support.waiting import hold_for, wait_until

RATE, WRITERS = 400, 4
WORKERS, CLIENTS = 4, 9
CALM = (0.5, 2.0)  # seconds between faults


def say(text: str) -> None:
    """To who watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass
class Report:
    """What a run was, and what became of the promises."""

    listeners: int
    seed: int
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)  # announced, by the fault (or calm) in which they were
    recovery: dict[str, float] = field(default_factory=dict)  # the longest, by fault
    committed: int = 0
    clients: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    rows: int = 0  # most LISTEN rows of one listener
    samples: int = 0
    log: str = ""

    @property
    def broken(self) -> list[str]:
        """The promises that were broken."""
        verdict, broken = self.verdict, list(self.verdict.wrong)
        if verdict.lost or verdict.repeated or verdict.disordered:
            broken.append(f"{verdict.lost} lost, {verdict.repeated} repeated, {verdict.disordered} out of order")
        if self.listeners > 1:
            broken += [
                f"{count} gaps at {kind!r} with another listener alive"
                for kind, count in self.gaps.items()
                if kind != BREAKS_EVERY_SESSION
            ]
            if verdict.announced and not self.gaps[BREAKS_EVERY_SESSION]:
                broken.append(f"{verdict.announced} events missing")
        elif self.gaps["calm"]:
            broken.append(f"{self.gaps['calm']} gaps without a fault")
        if self.rows != 1:
            broken.append(f"a listener had {self.rows} LISTEN rows")
        return broken


class Environment:
    """The processes and the load, from an empty database on.

    Args:
        servers: both running, and nobody else's.
        folder: where programs run.
        listeners: how many pods.
        seed: of faults and load.
        settings: of the listeners and the workers, over the usual ones.
    """

    def __init__(
        self,
        servers: Servers,
        folder: Path,
        listeners: int,
        seed: int,
        *,
        settings: Mapping[str, str] | None = None,
        clients: int = CLIENTS,
        verbose: bool = False,
    ) -> None:
        self.servers, self.folder = servers, folder
        self.report = Report(listeners, seed, clients=clients)
        self._rng = Random(f"{seed}, {listeners}")
        self._settings = dict(settings or {})
        self._verbose = verbose
        self._stack = ExitStack()
        self._names = 0
        self._marks = 0
        self._bag: list[str] = []
        self._began = time.monotonic()
        self.pods: list[Pod] = []
        self.gone: list[Pod] = []
        self.witnesses: list[Witness] = []
        self.committed_marks: dict[Token, int] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        enter = self._stack.enter_context
        url = self.servers.embedded.database_url
        make_table(url)
        self.order = enter(Order(url))
        self.sampler = enter(Sampler(url))
        for _ in range(self.report.listeners):
            self.new_pod()
        redis_url = {"REDIS_URL": self.servers.embedded.redis_url, "USE_REDIS_NOTIFIER": "true"}
        self.app = enter(App(self.folder, SETTINGS | redis_url | self._settings, WORKERS)).ready()
        for pod in self.pods:
            pod.aligned()
        self._connect_clients()
        self._warm_up()
        rng, rate = Random(self._rng.random()), RATE / WRITERS
        self.writers = [enter(Writer(n, url, self.order, rate, Random(rng.random()))) for n in range(1, WRITERS + 1)]
        self._began = time.monotonic()

    def new_pod(self, settings: Mapping[str, str] | None = None) -> Pod:
        """Starts one more listener, under a name of its own."""
        self._names += 1
        pod = Pod(f"pod-{self._names}", self.folder, self.servers, self._settings | dict(settings or {}))
        self.pods.append(self._stack.enter_context(pod))
        return pod

    def _connect_clients(self) -> None:
        """At least one on each worker."""
        workers: set[int] = set()
        for number in range(200):
            witness = Witness(self.app.port, MATCHES[number % len(MATCHES)], f"client-{number}")
            self._stack.callback(witness.close)
            if witness.worker in workers and len(self.witnesses) - len(workers) >= self.report.clients - WORKERS:
                witness.close()
                continue
            workers.add(witness.worker)
            self.witnesses.append(witness)
            if len(self.witnesses) >= self.report.clients and len(workers) == WORKERS:
                break
        assert len(workers) == WORKERS, f"{len(workers)} of {WORKERS} workers took a client"
        for witness in self.witnesses:
            assert witness.is_loaded.wait(10)

    def _warm_up(self) -> None:
        """Until every client hears, nothing counts."""
        wait_until(self.order.open.is_set)

        def everybody_hears() -> bool:
            last = self.mark()
            try:
                wait_until(lambda: self._have(last), 1)
            except AssertionError:
                return False
            return True

        wait_until(everybody_hears, 20, "every client hears")
        wait_until(lambda: all(token in self.order.places for token in self.committed_marks))
        self.order.lives[-1].clear()
        self.committed_marks.clear()
        for witness in self.witnesses:
            witness.seen.clear()

    def mark(self) -> dict[int, Token]:
        """Commits one event for each match, by the test's own hand."""
        tokens = [Token(0, self._marks + n) for n in range(len(MATCHES))]
        self._marks += len(MATCHES)
        with closing(psycopg.connect(self.servers.embedded.database_url, autocommit=True)) as connection:
            connection.execute(
                "INSERT INTO chaos SELECT 0, n, 1 + n %% 3 FROM generate_series(%s::int, %s::int) n",
                (tokens[0].serial, tokens[-1].serial),
            )
        self.committed_marks |= dict.fromkeys(tokens, len(self.order.lives) - 1)
        return {match_of(token): token for token in tokens}

    def _have(self, last: Mapping[int, Token]) -> bool:
        return all(witness.last == last[witness.match] for witness in self.witnesses)

    # While it runs.

    def intact(self, *, besides: Pod | None = None) -> bool:
        """Whether everything runs that nothing was done to."""
        for pod in self.pods:
            assert pod is besides or pod.process.running, f"{pod.name} ended:\n{pod.log}"
        for witness in self.witnesses:
            assert witness.code is None, f"{witness.name} was closed with {witness.code}:\n{self.app.log}"
        assert self.app.running
        for worker in (self.order, self.sampler, *self.writers):
            assert worker.failure is None, worker.failure
        return True

    def hold(self, seconds: float) -> None:
        """Lets the load run."""
        hold_for(seconds, self.intact)

    def caught_up(self, within: float = 30.0) -> None:
        """Waits until all listeners count again, and every client has heard what was committed since."""
        wait_until(self.order.open.is_set)
        for pod in self.pods:
            pod.aligned(within)
        upto = len(self.order.places)
        places = self.order.places
        wait_until(
            lambda: all(places.get(witness.last or Token(0, 0), -1) >= upto for witness in self.witnesses),
            within,
            "every client hears",
        )

    def run(self, seconds: float, kinds: Iterable[str] = FAULTS) -> None:
        """Faults in turn, for so long; at least one."""
        until = time.monotonic() + seconds
        kinds = list(kinds)
        while True:
            if not self._bag:
                self._bag = self._rng.sample(kinds, len(kinds))
            self.fault(self._bag.pop())
            if time.monotonic() > until:
                return
            self.hold(self._rng.uniform(*CALM))

    def fault(self, kind: str) -> None:
        """One fault, until everything has recovered."""
        pod = self._victim()
        before = self._resyncs()
        began = time.monotonic()
        if kind == BREAKS_EVERY_SESSION:
            self.order.open.clear()
        FAULTS[kind](pod, self.servers, self._rng, lambda seconds: hold_for(seconds, lambda: self.intact(besides=pod)))
        over = time.monotonic()
        if kind != BREAKS_EVERY_SESSION:
            self.hold(1.6)  # until what it hit has had a heartbeat since
        self.caught_up()
        gaps = max(after - earlier for earlier, after in zip(before, self._resyncs(), strict=True))
        self.report.faults[kind] += 1
        self.report.gaps[kind] += gaps
        took = time.monotonic() - over
        self.report.recovery[kind] = max(took, self.report.recovery.get(kind, 0.0))
        if self._verbose:
            say(
                f"{began - self._began:7.1f} s  {kind:20} {pod.name:7} {over - began:4.1f} s,"
                f" recovered in {took:4.1f} s, {gaps} gaps"
            )

    def _victim(self) -> Pod:
        """Mostly who appends: what happens to the others is soon made good."""
        pod = self._rng.choice(self.pods)
        if self._rng.random() < 0.7:
            pod = next((pod for pod in self.pods if pod.hash().get(b"role") == b"primary"), pod)
        return pod

    def roll(self, settings: Mapping[str, str] | None = None, *, aligned: bool = True) -> None:
        """Replaces every pod by a new one with `settings`, one at a time; with `aligned`, waits for it each time."""
        for old in list(self.pods):
            self.pods.remove(old)
            self.gone.append(old)
            assert old.process.stop() == 0
            new = self.new_pod(settings)
            if aligned:
                self.caught_up()
            else:
                wait_until(lambda new=new: "connected to " in new.process.log)  # type: ignore[misc]
            self.hold(1.0)
        self.caught_up()

    def _resyncs(self) -> list[int]:
        return [sum(seen.token is None for seen in list(witness.seen)) for witness in self.witnesses]

    def count_gaps(self) -> int:
        """The most that any client was told of."""
        return max(self._resyncs())

    # And after it.

    def finish(self) -> Report:
        """Ends the load, waits until everybody has all, and judges."""
        report = self.report
        for writer in self.writers:
            writer.end()
        last = self.mark()
        wait_until(lambda: self._have(last), 30, "every client heard the last event")
        wait_until(lambda: self.order.places.keys() >= set(last.values()))
        report.seconds = time.monotonic() - self._began
        self._judge(report)
        report.gaps["calm"] += max(0, self.count_gaps() - report.gaps.total())
        report.rows, report.samples = max(self.sampler.most.values()), self.sampler.samples
        report.gaps = +report.gaps
        report.log = "\n".join(pod.log for pod in (*self.gone, *self.pods)) + f"\n--- app\n{self.app.log}"
        return report

    def _judge(self, report: Report) -> None:
        committed = dict(self.committed_marks)
        uncertain: dict[Token, int] = {}
        for writer in self.writers:
            committed |= writer.committed
            uncertain |= writer.uncertain
        heard = {token for life in self.order.lives for token in life}
        unheard = {token: life for token, life in committed.items() if token not in heard}
        if len(self.order.lives) == 1:
            assert not unheard, f"the test's own session missed {len(unheard)} events"
            assert heard == committed.keys(), f"{len(heard - committed.keys())} events were never committed"
        report.committed = len(committed)
        for match in MATCHES:
            lives = [[token for token in life if match_of(token) == match] for life in self.order.lives]
            ledger = DeliveryLog(lives, _of(match, unheard), _of(match, uncertain))
            for witness in self.witnesses:
                if witness.match == match:
                    report.verdict.add(ledger.judge(witness.name, witness.seen))
        report.verdict.wrong += two_names(witness.seen for witness in self.witnesses)


def _of(match: int, tokens: Mapping[Token, int]) -> dict[Token, int]:
    return {token: life for token, life in tokens.items() if match_of(token) == match}
