"""The appliance under random kills, stops, restarts and freezes of its programs, with clients attached."""

import signal
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

import psutil
from websockets.exceptions import WebSocketException

from tests.appliance.test_appliance import MATCH, Appliance, runs
from tests.support.programs import Client
from tests.support.waiting import wait_until

REST = 65.0  # seconds a program is left alone after a fault: then its next death is the first again
SERVED_WITHIN = 90.0
SAMPLE_EVERY = 5.0


class Fault(NamedTuple):
    """What is done to whom."""

    program: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {self.program}"


PROGRAMS = ("listener", "app", "postgres", "valkey", "demo", "keeper")
FAULTS = [
    *(Fault(program, kind) for program in PROGRAMS for kind in ("kill -9", "freeze")),
    # Not PostgreSQL: to it SIGTERM says to wait until its clients have left.
    *(Fault(program, "SIGTERM") for program in PROGRAMS if program != "postgres"),
    *(Fault(program, "restart") for program in PROGRAMS if program != "keeper"),
    Fault("worker", "kill -9"),
    Fault("worker", "freeze"),
]


class Viewer(threading.Thread):
    """A client that comes back with its last id whenever it is closed, and notes what it should not have heard."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self._port, self._name = port, name
        self.heard = self.resyncs = 0
        self.wrong: list[str] = []
        self.ending = threading.Event()
        self._last: tuple[int, int] | None = None

    def run(self) -> None:
        while not self.ending.is_set():
            with suppress(OSError, WebSocketException, TimeoutError), self._connect() as client:
                self._follow(client)
            self.ending.wait(0.3)

    def _connect(self) -> Client:
        query = f"?last_event_id={self._last[0]}-{self._last[1]}" if self._last else ""
        return Client(self._port, MATCH, self._name, query)

    def _follow(self, client: Client) -> None:
        taken = 0
        while not self.ending.is_set() and (client.code is None or taken < len(client.messages)):
            for message in client.messages[taken:]:
                taken += 1
                self._hear(message)
            self.ending.wait(0.1)

    def _hear(self, message: dict[str, object]) -> None:
        if message["type"] == "ping":
            return
        number = message["id"]
        at = tuple(map(int, str(number).split("-"))) if number else None
        if message["type"] in {"initial-load", "resync"}:
            self.resyncs += not message.get("recovered", False)
            self._last = at if at is None else (at[0], at[1])
            return
        self.heard += 1
        if at and self._last and at <= self._last:
            self.wrong.append(f"{number} after {self._last}")
        self._last = (at[0], at[1]) if at else self._last


class Sample(NamedTuple):
    """What all processes take."""

    at: float
    memory: int  # bytes, proportional set size
    files: int
    zombies: int


class Soak:
    """One run.

    Args:
        folder: for the appliance.
        minutes: how long.
        seed: of the faults.
        say: hears a line per fault.
    """

    def __init__(self, folder: Path, minutes: float, seed: int, say: Callable[[str], None]) -> None:
        self._folder, self._seconds, self._say = folder, minutes * 60, say
        self._rng = Random(seed)
        self.times: dict[Fault, list[float]] = defaultdict(list)
        self.samples: list[Sample] = []
        self.states: dict[str, str] = {}
        self.viewers: list[Viewer] = []
        self._rests: dict[str, float] = {}
        self._began = time.monotonic()
        self._over = threading.Event()

    def run(self) -> None:
        """Does all of it, and ends with every program as it is then."""
        with ExitStack() as stack:
            appliance = stack.enter_context(Appliance(self._folder))
            appliance.ready()
            self.viewers = [Viewer(appliance.port, f"viewer-{number}") for number in range(8)]
            for viewer in self.viewers:
                viewer.start()
            sampler = threading.Thread(target=self._sample, args=[appliance], daemon=True)
            sampler.start()
            for fault in self._faults():
                self._commit(appliance, fault)
            wait_until(lambda: set(appliance.states().values()) == {"RUNNING"}, 90, "all run")
            self._over.set()
            sampler.join()
            # What has just died may still be waiting for supervisord's next turn.
            with suppress(AssertionError):
                wait_until(lambda: self._look(appliance).zombies == 0, 10)
            self.samples.append(self._look(appliance))
            self.states = appliance.states()
            for viewer in self.viewers:
                viewer.ending.set()
                viewer.join(20)

    def _faults(self) -> Iterator[Fault]:
        end = time.monotonic() + self._seconds
        while (now := time.monotonic()) < end:
            rested = [fault for fault in FAULTS if self._rests.get(fault.program, 0) <= now]
            if rested:
                fault = self._rng.choice(rested)
                yield fault
                # A worker's master and what outlives it are no rest for each other.
                self._rests[fault.program] = time.monotonic() + REST
            time.sleep(self._rng.uniform(0.5, 4))

    def _commit(self, appliance: Appliance, fault: Fault) -> None:
        began = time.monotonic()
        if fault.kind == "restart":
            appliance.ctl("restart", fault.program)
        else:
            victim = self._victim(appliance, fault.program)
            victim.send_signal(
                {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "freeze": signal.SIGSTOP}[fault.kind]
            )
            # Until another is in its place, it may well be served by what is about to end.
            wait_until(lambda: not runs(victim), SERVED_WITHIN, f"{fault} ended")
            if fault.program != "worker":
                wait_until(lambda: appliance.pid_of(fault.program) not in (0, victim.pid), SERVED_WITHIN, f"{fault}")
        wait_until(lambda: served(appliance), SERVED_WITHIN, f"served after {fault}:\n{appliance.log[-2000:]}")
        self.times[fault].append(time.monotonic() - began)
        self._say(f"{fault}: served again after {self.times[fault][-1]:.1f} s")

    def _victim(self, appliance: Appliance, program: str) -> psutil.Process:
        if program == "worker":
            master = self._victim(appliance, "app")
            return self._rng.choice(wait_until(master.children))
        pid: int = wait_until(lambda: appliance.pid_of(program))
        return psutil.Process(pid)

    def _sample(self, appliance: Appliance) -> None:
        while not self._over.wait(SAMPLE_EVERY):
            self.samples.append(self._look(appliance))

    def _look(self, appliance: Appliance) -> Sample:
        memory = files = zombies = 0
        for process in [psutil.Process(appliance.pid), *psutil.Process(appliance.pid).children(recursive=True)]:
            with suppress(psutil.Error):
                zombies += process.status() == psutil.STATUS_ZOMBIE
                memory += process.memory_full_info().pss
                files += process.num_fds()
        return Sample(time.monotonic() - self._began, memory, files, zombies)


def served(appliance: Appliance) -> bool:
    """Whether a newcomer gets a snapshot and hears something."""
    with suppress(OSError, WebSocketException, TimeoutError), Client(appliance.port, MATCH, "newcomer") as client:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and client.code is None:
            if client.updates:
                return True
            time.sleep(0.02)
    return False


def growth(samples: list[Sample], field: str) -> float:
    """By how much the last quarter's median is above the first's, as a fraction."""
    quarter = max(1, len(samples) // 4)
    first = statistics.median(getattr(sample, field) for sample in samples[:quarter])
    last = statistics.median(getattr(sample, field) for sample in samples[-quarter:])
    return float(last / first - 1)
