"""supervisord's event listener (http://supervisord.org/events.html), which restarts what exited or hangs.

supervisord itself restarts nothing: it reports every exit here, and a tick every 5 s. `RestartPolicy` and
`HangDetector` decide; each decision is one log line.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Hashable, Mapping
from contextlib import suppress
from logging import getLogger
from math import ceil
from pathlib import Path
from typing import Any, NoReturn
from xmlrpc.client import Fault

from supervisor import childutils

from app.appliance.supervision.hang_detector import HANG_TIMEOUT_SECONDS, HangDetector
from app.appliance.supervision.restart_policy import RestartPolicy
from app.core.liveness_file import liveness_path
from app.core.logging_config import LEVELS, configure_logging
from app.core.settings_sources import SettingsError, setting_texts

_CHECK_INTERVAL_SECONDS = 1.0
_STOP_TIMEOUT_SECONDS = 5.0  # at a shutdown, until a listener that goes on, or any program that is suspended, is killed
_SELF = "keeper"
_CLIENTS_PROGRAM = "app"  # whose clients hear events until it has closed them, so that the listeners end after it
_LISTENERS = ("listener", "listener-standby")

logger = getLogger(__name__)


def run(guard: int) -> NoReturn:
    """Watch the programs until supervisord ends; `guard` is where each cycle is reported."""
    texts: dict[str, str] = {}
    with suppress(SettingsError):  # the other programs report it, and need restarts meanwhile
        texts = setting_texts()
    level, form = texts.get("LOG_LEVEL", "").lower(), texts.get("LOG_FORMAT", "").lower()
    configure_logging(_SELF, level if level in LEVELS else "info", form, to_stdout=False)
    ProcessWatchdog(guard).run()


class ProcessWatchdog:
    """Carries out the decisions by supervisord's XML-RPC interface and by signals.

    Args:
        guard: a non-blocking descriptor, to which a byte is written in each cycle.
    """

    def __init__(self, guard: int) -> None:
        self._guard = guard
        self._supervisor = childutils.getRPCInterface(os.environ).supervisor
        self._policy, self._hangs = RestartPolicy(), HangDetector()
        self._check_at = 0.0
        self._stopping_since: float | None = None  # once supervisord shuts down
        self._listeners_stop_since: float | None = None
        self._pids: dict[str, int] = {}  # at the last check before a shutdown

    def run(self) -> NoReturn:
        """Receive events and check the programs, for ever."""
        for program, info in self._processes().items():
            if info["pid"]:
                self._policy.started(program, time.monotonic())
            else:  # it may have exited before this watchdog ran
                self._on_exit(program)
        while True:
            self._step()
            childutils.listener.ready(sys.stdout)
            while not select.select([sys.stdin], [], [], _CHECK_INTERVAL_SECONDS)[0]:
                self._step()
            self._on_event(*_receive())
            childutils.listener.ok(sys.stdout)

    def _processes(self) -> dict[str, dict[str, Any]]:
        """Return supervisord's information on each program; nothing once it shuts down, of which it sends an event."""
        try:
            return {info["name"]: info for info in self._supervisor.getAllProcessInfo()}
        except Fault:
            return {}

    def _on_event(self, event: str, payload: dict[str, str]) -> None:
        program = payload.get("processname", "")
        if event == "SUPERVISOR_STATE_CHANGE_STOPPING":
            self._stopping_since = self._stopping_since or time.monotonic()
        elif event == "PROCESS_STATE_STARTING":
            self._policy.started(program, time.monotonic())
        elif event == "PROCESS_STATE_RUNNING":
            logger.info("%s runs, pid %s", program, payload["pid"])
        elif event == "PROCESS_STATE_STOPPED":
            self._policy.stopped(program)
            logger.info("%s was stopped, and stays so until it is started", program)
        elif event in {"PROCESS_STATE_EXITED", "PROCESS_STATE_FATAL"}:
            self._on_exit(program)

    def _on_exit(self, program: str) -> None:
        """Have the program restarted, unless that was done before the event arrived.

        supervisord keeps its events while there is no watchdog, and the next watchdog finds the same exits by itself.
        """
        info = self._processes().get(program, {"statename": ""})
        if program == _SELF or self._policy.is_due(program) or info["statename"] not in {"EXITED", "FATAL"}:
            return
        seconds = self._policy.exited(program, time.monotonic())
        exits, status = self._policy.exits(program), info["exitstatus"]
        in_a_row = f" {exits} times in a row" if exits > 1 else ""
        reason = f"exit code {status}" if status >= 0 else "by a signal"
        if status == 0 and info["spawnerr"]:
            reason = info["spawnerr"]
        delay = f"in {ceil(seconds)} s" if seconds else "at once"
        logger.warning("%s ended%s (%s): started again %s", program, in_a_row, reason, delay)

    def _step(self) -> None:
        """Start what is due, and check the programs once a second."""
        with suppress(BlockingIOError):  # the guard is frozen; what is in the pipe is enough
            os.write(self._guard, b".")
        now = time.monotonic()
        for program in self._policy.take_due(now):
            self._start(program)
        if now >= self._check_at:
            self._check_at = now + _CHECK_INTERVAL_SECONDS
            self._check(now)

    def _start(self, program: str) -> None:
        try:
            self._supervisor.startProcess(program, False)
        except Fault as fault:
            # It was started or removed by hand, supervisord shuts down, or the command is missing: then FATAL follows.
            logger.info("%s is not started: %s", program, fault.faultString)

    def _check(self, now: float) -> None:
        """Kill what hangs; `_on_exit` restarts it."""
        if self._stopping_since is not None:
            self._check_stop(now - self._stopping_since, now)
            return
        pids = {program: info["pid"] for program, info in self._processes().items() if info["pid"]}
        self._pids = pids or self._pids
        heartbeats = {program: (pid, _heartbeat(program, pid, now)) for program, pid in self._pids.items()}
        for program in self._hangs.check(heartbeats, now):
            logger.error("%s has shown no sign of life for %.0f s: it is killed", program, HANG_TIMEOUT_SECONDS)
            _kill(self._pids[program])

    def _check_stop(self, elapsed: float, now: float) -> None:
        """Help supervisord, which stops one program after the other, by the priorities in its configuration.

        Both listeners stop at once, when the workers have closed their clients. What is frozen is killed early.
        """
        left = {program: pid for program, pid in self._pids.items() if program != _SELF and _exists(pid)}
        if self._listeners_stop_since is None and _CLIENTS_PROGRAM not in left:
            self._listeners_stop_since = now
            for pid in _of_listeners(left):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        late = set(_of_listeners(left)) if now - (self._listeners_stop_since or now) > _STOP_TIMEOUT_SECONDS else set()
        if elapsed > _STOP_TIMEOUT_SECONDS:
            late |= {pid for pid in left.values() if _is_suspended(pid)}
        for program, pid in left.items():
            if pid in late:
                logger.error("%s has not ended within %.0f s: it is killed", program, _STOP_TIMEOUT_SECONDS)
                _kill(pid)


def _receive() -> tuple[str, dict[str, str]]:
    """Return an event's name and payload; supervisord sends the next one only after this one's result."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)  # supervisord has ended
    headers = childutils.get_headers(line)
    return headers["eventname"], childutils.get_headers(sys.stdin.read(int(headers["len"])))


def _heartbeat(program: str, pid: int, now: float) -> Hashable:
    """Return the time of the program's liveness file; without one, a value that changes unless it got SIGSTOP."""
    with suppress(OSError):
        return liveness_path(program).stat().st_mtime_ns
    return "stopped" if _is_suspended(pid) else now


def _is_suspended(pid: int) -> bool:
    """Return whether a process got SIGSTOP."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")  # proc_pid_stat(5)
        return stat.rpartition(")")[2].split()[0] == "T"  # a debugger's `t` does not count
    return False


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _of_listeners(pids: Mapping[str, int]) -> list[int]:
    return [pid for program, pid in pids.items() if program in _LISTENERS]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
