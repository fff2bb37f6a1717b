"""supervisord's event listener that makes `restart: always` true (http://supervisord.org/events.html).

supervisord itself restarts nothing: every death comes here, and so does every tick. The decisions are those of
`RestartPolicy` and `HangDetector`; each is one log line.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from logging import getLogger
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault

from supervisor import childutils
from supervisor.xmlrpc import Faults

from app.appliance.supervision.hang_detector import SILENT, HangDetector
from app.appliance.supervision.restart_policy import RestartPolicy
from app.appliance.supervision.watchdog_guard import WATCHDOG_FD
from app.core.config import Settings, SettingsError, load_settings
from app.core.liveness_file import liveness_path
from app.core.logging_config import configure_logging

_LOOK = 1.0  # seconds
_END_WITHIN = 5.0  # seconds from SIGTERM until what still runs is killed; the servers follow, and Docker waits 10 s
_SELF = "keeper"
_SERVERS = ("postgres", "valkey")  # of the embedded demo: they outlast who uses them

logger = getLogger(__name__)


def main() -> None:
    """Keeps the programs running, below `watched`."""
    _configure()
    ProcessWatchdog(WATCHDOG_FD).run()


def _configure() -> None:
    try:
        settings = load_settings()
    except SettingsError:  # the programs say so, again and again; what runs is still to be kept
        settings = Settings.model_construct()
    configure_logging(_SELF, settings, to_stdout=False)


class ProcessWatchdog:
    """The I/O around the decisions.

    Args:
        alive: a descriptor that is written to as long as this goes round.
    """

    def __init__(self, alive: int) -> None:
        self._alive = alive
        self._supervisor = childutils.getRPCInterface(os.environ).supervisor
        self._policy = RestartPolicy()
        self._pulses, self._stops = HangDetector(), HangDetector()
        self._look_at = 0.0
        self._end_at: float | None = None
        self._pids: dict[str, int] = {}  # as of the last look: a supervisord that ends says nothing more

    def run(self) -> None:
        """Hears events and looks around, for ever."""
        self._take_over()
        while True:
            childutils.listener.ready(sys.stdout)
            while not select.select([sys.stdin], [], [], _LOOK)[0]:
                with self._unless_ending():
                    self._go_round()
            headers, payload = _receive()
            with self._unless_ending():
                self._hear(headers["eventname"], payload)
                self._go_round()
            childutils.listener.ok(sys.stdout)

    @contextmanager
    def _unless_ending(self) -> Iterator[None]:
        """Supervisord answers nothing more once it ends, which may be before its event of that is heard."""
        try:
            yield
        except Fault as fault:
            if fault.faultCode != Faults.SHUTDOWN_STATE:
                raise
            self._end_all()

    def _take_over(self) -> None:
        """Finds what died before this was there."""
        for info in self._supervisor.getAllProcessInfo():
            if info["statename"] in {"EXITED", "FATAL"}:
                self._died(info["name"])
            elif info["statename"] in {"STARTING", "RUNNING"}:
                self._policy.started(info["name"], time.monotonic())

    def _hear(self, event: str, payload: dict[str, str]) -> None:
        program = payload.get("processname", "")
        if event == "SUPERVISOR_STATE_CHANGE_STOPPING":
            self._end_all()
        elif event == "PROCESS_STATE_STARTING":
            self._policy.started(program, time.monotonic())
        elif event == "PROCESS_STATE_RUNNING":
            logger.info("%s runs, pid %s", program, payload["pid"])
        elif event == "PROCESS_STATE_STOPPED":
            self._policy.stopped(program)
            logger.info("%s was stopped, and stays so until it is started", program)
        elif event in {"PROCESS_STATE_EXITED", "PROCESS_STATE_FATAL"}:
            self._died(program)

    def _died(self, program: str) -> None:
        if program == _SELF or self._end_at is not None:
            return
        seconds = self._policy.died(program, time.monotonic())
        info = self._supervisor.getProcessInfo(program)
        why = info["spawnerr"] if info["exitstatus"] == 0 and info["spawnerr"] else _ending(info["exitstatus"])
        times = self._policy.deaths(program)
        again = "started again at once" if seconds == 0 else f"started again in {seconds:.0f} s"
        row = f" for the {times}th time in a row" if times > 1 else ""
        logger.warning("%s ended%s (%s): %s", program, row, why, again)

    def _go_round(self) -> None:
        with suppress(BlockingIOError):  # the other end is frozen; what it holds is enough
            os.write(self._alive, b".")
        now = time.monotonic()
        for program in self._policy.take_due(now):
            self._start(program)
        if now >= self._look_at:
            self._look_at = now + _LOOK
            self._look_around(now)

    def _start(self, program: str) -> None:
        try:
            self._supervisor.startProcess(program, False)
        except Fault as fault:
            if fault.faultCode == Faults.SHUTDOWN_STATE:
                raise
            # It was started or removed by hand, or there is no such command: then a FATAL follows.
            logger.info("%s is not started: %s", program, fault.faultString)

    def _look_around(self, now: float) -> None:
        if self._end_at is not None:
            if now >= self._end_at:
                self._kill_the_rest()
            return
        self._pids = {each["name"]: each["pid"] for each in self._supervisor.getAllProcessInfo() if each["pid"]}
        pulses: dict[str, Hashable] = {}
        stops: dict[str, Hashable] = {}
        for program, pid in self._pids.items():
            with suppress(OSError):
                pulses[program] = pid, liveness_path(program).stat().st_mtime_ns
            stops[program] = (pid, "stopped") if _is_stopped(pid) else (pid, now)
        for program in {*self._pulses.look(pulses, now), *self._stops.look(stops, now)}:
            logger.error("%s has shown no sign of life for %.0f s: it is killed", program, SILENT)
            _kill(self._pids[program])

    def _end_all(self) -> None:
        """Supervisord ends one program after the other; told at once, they need no longer than the slowest."""
        if self._end_at is not None:
            return
        self._end_at = time.monotonic() + _END_WITHIN
        for program, pid in self._pids.items():
            if program not in (_SELF, *_SERVERS):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def _kill_the_rest(self) -> None:
        for program, pid in self._pids.items():
            if program != _SELF and Path(f"/proc/{pid}").exists():
                logger.error("%s has not ended within %.0f s: it is killed", program, _END_WITHIN)
                _kill(pid)
        self._pids = {}


def _receive() -> tuple[dict[str, str], dict[str, str]]:
    """An event's headers and payload; supervisord sends the next only after this one's result."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)  # supervisord is gone
    headers = childutils.get_headers(line)
    payload: dict[str, Any] = childutils.get_headers(sys.stdin.read(int(headers["len"])))
    return headers, payload


def _is_stopped(pid: int) -> bool:
    """Whether it got SIGSTOP (proc_pid_stat(5)); a debugger's `t` is not meant."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "T"


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _ending(status: int) -> str:
    return f"exit code {status}" if status >= 0 else "by a signal"
