"""The appliance with clients, while its programs are killed, stopped, restarted and frozen at random."""

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

FAULT_INTERVAL_SECONDS = 65.0  # at least, between two faults of a program: by then its restart policy is reset
RECOVERY_TIMEOUT_SECONDS = 90.0
SAMPLE_INTERVAL_SECONDS = 5.0
CLIENTS = 8
SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "freeze": signal.SIGSTOP}


class Fault(NamedTuple):
    """A kind of fault, and the program into which it is injected."""

    program: str
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} {self.program}"


PROGRAMS = ("listener", "app", "postgres", "valkey", "demo", "keeper")
FAULTS = [
    *(Fault(program, kind) for program in PROGRAMS for kind in ("kill -9", "freeze")),
    # Not PostgreSQL, which waits after SIGTERM until its clients have disconnected.
    *(Fault(program, "SIGTERM") for program in PROGRAMS if program != "postgres"),
    *(Fault(program, "restart") for program in PROGRAMS if program != "keeper"),
    Fault("worker", "kill -9"),
    Fault("worker", "freeze"),
]


class ReconnectingClient(threading.Thread):
    """A client that reconnects with its last id whenever it is closed, and records events that are not in order."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self._port, self._name = port, name
        self.received = 0
        self.errors: list[str] = []
        self.stopping = threading.Event()
        self._last_id: tuple[int, int] | None = None

    def run(self) -> None:
        while not self.stopping.is_set():
            with suppress(OSError, WebSocketException, TimeoutError), self._connect() as client:
                self._read(client)
            self.stopping.wait(0.3)

    def _connect(self) -> Client:
        query = f"?last_event_id={self._last_id[0]}-{self._last_id[1]}" if self._last_id else ""
        return Client(self._port, MATCH, self._name, query)

    def _read(self, client: Client) -> None:
        count = 0
        while not self.stopping.is_set() and (client.code is None or count < len(client.messages)):
            for message in client.messages[count:]:
                count += 1
                self._on_message(message)
            self.stopping.wait(0.1)

    def _on_message(self, message: dict[str, object]) -> None:
        if message["type"] == "ping":
            return
        event_id = _parse_id(message["id"])
        if message["type"] in {"initial-load", "resync"}:
            self._last_id = event_id
            return
        self.received += 1
        if event_id and self._last_id and event_id <= self._last_id:
            self.errors.append(f"{event_id} after {self._last_id}")
        self._last_id = event_id or self._last_id


def _parse_id(text: object) -> tuple[int, int] | None:
    if not text:
        return None
    epoch, sequence = str(text).split("-")
    return int(epoch), int(sequence)


class Sample(NamedTuple):
    """The resources of all processes together."""

    at: float  # seconds since the start
    memory: int  # bytes (PSS)
    files: int
    zombies: int


class Soak:
    """One run.

    Args:
        folder: for the appliance; it is created.
        minutes: how long faults are injected.
        seed: of the faults.
        report: called with one line per fault.
    """

    def __init__(self, folder: Path, minutes: float, seed: int, report: Callable[[str], None]) -> None:
        self._folder, self._seconds, self._report = folder, minutes * 60, report
        self._rng = Random(seed)
        self.recovery: dict[Fault, list[float]] = defaultdict(list)  # seconds until a new client was served
        self.samples: list[Sample] = []
        self.states: dict[str, str] = {}  # of the programs at the end
        self.clients: list[ReconnectingClient] = []
        self._next_fault_at: dict[str, float] = {}  # by program
        self._began = time.monotonic()
        self._finished = threading.Event()

    def run(self) -> None:
        """Inject faults, and record the state of every program after the last recovery."""
        with ExitStack() as stack:
            appliance = stack.enter_context(Appliance(self._folder))
            appliance.wait_until_ready()
            self.clients = [ReconnectingClient(appliance.port, f"client-{number}") for number in range(CLIENTS)]
            for client in self.clients:
                client.start()
            sampler = threading.Thread(target=self._sample, args=[appliance], daemon=True)
            sampler.start()
            for fault in self._faults():
                self._inject(appliance, fault)
            wait_until(lambda: set(appliance.states().values()) == {"RUNNING"}, 90, "every program runs")
            self._finished.set()
            sampler.join()
            # supervisord reaps a process that has just exited in the next iteration of its loop.
            last, until = self._take_sample(appliance), time.monotonic() + 10
            while last.zombies and time.monotonic() < until:
                time.sleep(0.1)
                last = self._take_sample(appliance)
            self.samples.append(last)
            self.states = appliance.states()
            for client in self.clients:
                client.stopping.set()
                client.join(20)

    def _faults(self) -> Iterator[Fault]:
        end = time.monotonic() + self._seconds
        while (now := time.monotonic()) < end:
            possible = [fault for fault in FAULTS if self._next_fault_at.get(fault.program, 0) <= now]
            if possible:
                fault = self._rng.choice(possible)
                yield fault
                self._next_fault_at[fault.program] = time.monotonic() + FAULT_INTERVAL_SECONDS
            time.sleep(self._rng.uniform(0.5, 4))

    def _inject(self, appliance: Appliance, fault: Fault) -> None:
        """Inject a fault, and wait until a new client is served."""
        began = time.monotonic()
        if fault.kind == "restart":
            appliance.ctl("restart", fault.program)
        else:
            process = self._choose_process(appliance, fault.program)
            process.send_signal(SIGNALS[fault.kind])
            # Until the process has exited, it may still serve clients.
            wait_until(lambda: not runs(process), RECOVERY_TIMEOUT_SECONDS, f"exit after {fault}")
            if fault.program != "worker":
                replaced = (0, process.pid)
                wait_until(
                    lambda: appliance.pid_of(fault.program) not in replaced,
                    RECOVERY_TIMEOUT_SECONDS,
                    f"restart after {fault}",
                )
        wait_until(
            lambda: serves_new_client(appliance),
            RECOVERY_TIMEOUT_SECONDS,
            lambda: f"recovery after {fault}:\n{appliance.log[-2000:]}",
        )
        self.recovery[fault].append(time.monotonic() - began)
        self._report(f"{fault}: served again after {self.recovery[fault][-1]:.1f} s")

    def _choose_process(self, appliance: Appliance, program: str) -> psutil.Process:
        if program == "worker":
            master = self._choose_process(appliance, "app")
            return self._rng.choice(wait_until(master.children))
        pid: int = wait_until(lambda: appliance.pid_of(program))
        return psutil.Process(pid)

    def _sample(self, appliance: Appliance) -> None:
        while not self._finished.wait(SAMPLE_INTERVAL_SECONDS):
            self.samples.append(self._take_sample(appliance))

    def _take_sample(self, appliance: Appliance) -> Sample:
        memory = files = zombies = 0
        for process in [psutil.Process(appliance.pid), *psutil.Process(appliance.pid).children(recursive=True)]:
            with suppress(psutil.Error):
                zombies += process.status() == psutil.STATUS_ZOMBIE
                memory += process.memory_full_info().pss
                files += process.num_fds()
        return Sample(time.monotonic() - self._began, memory, files, zombies)


def serves_new_client(appliance: Appliance) -> bool:
    """Whether a new client receives a snapshot and an event within 2 s."""
    with suppress(OSError, WebSocketException, TimeoutError), Client(appliance.port, MATCH, "new-client") as client:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and client.code is None:
            if client.updates:
                return True
            time.sleep(0.02)
    return False


def growth(samples: list[Sample], field: str) -> float:
    """Return by which fraction the median of the last quarter exceeds that of the first quarter."""
    quarter = max(1, len(samples) // 4)
    first = statistics.median(getattr(sample, field) for sample in samples[:quarter])
    last = statistics.median(getattr(sample, field) for sample in samples[-quarter:])
    return float(last / first - 1)
