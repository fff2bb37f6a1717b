"""Programs that exit, freeze, crash in a loop or were stopped, under the real supervisord with the real watchdog."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.appliance.test_appliance import Appliance, runs
from tests.support.programs import get
from tests.support.waiting import hold_for, wait_until


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with Appliance(tmp_path_factory.mktemp("keeper") / "pod") as appliance:
        appliance.wait_until_ready()
        yield appliance


def replaced(appliance: Appliance, program: str, pid: int) -> bool:
    """Whether a program runs again, with another pid."""
    return appliance.states()[program] == "RUNNING" and appliance.pid_of(program) not in (0, pid)


def watchdog(appliance: Appliance) -> psutil.Process:
    """The watchdog's process; supervisord's child is its guard."""

    def found() -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return list(psutil.Process(appliance.pid_of("keeper")).children())
        return []

    [child] = wait_until(found)
    return child


def test_what_an_operator_stopped_stays_so_also_after_the_watchdog_was_killed(appliance: Appliance) -> None:
    appliance.ctl("stop", "demo")
    before = appliance.pid_of("keeper")
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: replaced(appliance, "keeper", before))
    listener = appliance.pid_of("listener")
    os.kill(listener, signal.SIGKILL)
    wait_until(lambda: replaced(appliance, "listener", listener))
    assert appliance.states()["demo"] == "STOPPED"
    appliance.ctl("start", "demo")


def test_a_program_that_exited_while_there_was_no_watchdog_is_started_at_once_and_counted_once(
    appliance: Appliance,
) -> None:
    demo, before, seen = appliance.pid_of("demo"), appliance.pid_of("keeper"), len(appliance.lines)
    os.kill(before, signal.SIGKILL)
    os.kill(demo, signal.SIGKILL)
    wait_until(lambda: replaced(appliance, "demo", demo))
    # supervisord reports the exit late, but in order: the new watchdog has had it when it logs the start.
    appliance.wait_for_log(f"keeper INFO demo runs, pid {appliance.pid_of('demo')}")
    assert [line.partition("demo ended")[2] for line in appliance.lines[seen:] if "demo ended" in line] == [
        " (by a signal): started again at once"
    ]


def test_each_decision_is_one_log_line_with_what_why_and_when(appliance: Appliance) -> None:
    demo, seen = appliance.pid_of("demo"), len(appliance.lines)
    os.kill(demo, signal.SIGKILL)
    wait_until(lambda: replaced(appliance, "demo", demo))
    [line] = [line for line in appliance.lines[seen:] if " keeper WARNING demo ended" in line]
    assert re.search(r"demo ended( \d+ times in a row)? \(by a signal\): started again (at once|in \d+ s)$", line)


def test_supervisorctl_tail_shows_the_last_log_lines_of_a_program(appliance: Appliance) -> None:
    for program in ("listener", "app"):
        tail = appliance.ctl("tail", program).splitlines()
        assert tail
        whole = [line for line in tail if line.startswith("20")]
        assert all(appliance.log.count(line) == 1 for line in whole), "each is in the appliance's own log, once"


@pytest.mark.long
@pytest.mark.parametrize("program", ["listener", "app", "postgres", "valkey", "demo"])
def test_a_frozen_program_is_replaced_within_30_seconds(appliance: Appliance, program: str) -> None:
    before = appliance.pid_of(program)
    os.kill(before, signal.SIGSTOP)
    wait_until(lambda: replaced(appliance, program, before), 30 + 8)
    assert f"keeper ERROR {program} has shown no sign of life" in appliance.log
    appliance.wait_until_ready()


@pytest.mark.long
def test_a_frozen_worker_is_replaced_while_the_others_serve(appliance: Appliance) -> None:
    master = psutil.Process(appliance.pid_of("app"))
    victim = master.children()[0]
    victim.suspend()
    wait_until(lambda: not victim.is_running() and len(master.children()) == 4, 30)
    assert master.is_running()
    appliance.wait_until_ready()


@pytest.mark.long
def test_a_frozen_guard_is_replaced_by_the_watchdog_and_a_frozen_watchdog_by_its_guard(appliance: Appliance) -> None:
    guard = watchdog(appliance).parent()
    guard.suspend()
    wait_until(lambda: not guard.is_running(), 40)
    new = watchdog(appliance)  # still in its imports
    new.suspend()
    wait_until(lambda: not new.is_running(), 40)
    demo = appliance.pid_of("demo")
    os.kill(demo, signal.SIGKILL)
    wait_until(lambda: replaced(appliance, "demo", demo))


@pytest.mark.long
def test_no_program_is_killed_after_all_were_frozen(appliance: Appliance) -> None:
    everything = [psutil.Process(appliance.pid), *psutil.Process(appliance.pid).children(recursive=True)]
    pids = {program: appliance.pid_of(program) for program in appliance.states()}
    for process in everything:
        process.suspend()
    time.sleep(30)  # as long as it is frozen
    for process in reversed(everything):
        process.resume()
    appliance.wait_until_ready()
    hold_for(10, lambda: {program: appliance.pid_of(program) for program in pids} == pids)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_program_that_crashes_in_a_loop_is_started_once_a_minute_and_runs_once_the_cause_is_gone(
    tmp_path: Path,
) -> None:
    with Appliance(tmp_path / "pod") as appliance:
        appliance.wait_until_ready()
        app = appliance.pid_of("app")
        appliance.set(CANARY_INTERVAL="never")
        appliance.ctl("restart", "listener")
        started = time.monotonic()
        starts: list[float] = []

        def observed() -> bool:
            while len(starts) < appliance.log.count("listener ended"):
                starts.append(time.monotonic() - started)
            return time.monotonic() - started > 150

        wait_until(observed, 160)
        later = [at for at in starts if at > 60]
        assert 1 <= len(later) <= 2, starts
        assert len(starts) < 12
        assert appliance.pid_of("app") == app, "untouched"
        appliance.set()
        wait_until(lambda: appliance.states()["listener"] == "RUNNING", 60)
        appliance.wait_until_ready()


@pytest.mark.long
def test_a_stop_takes_less_than_10_seconds_also_with_frozen_programs_and_the_exit_code_is_0(tmp_path: Path) -> None:
    with Appliance(tmp_path / "pod") as appliance:
        appliance.wait_until_ready()
        children = psutil.Process(appliance.pid).children(recursive=True)
        for program in ("listener", "app"):
            os.kill(appliance.pid_of(program), signal.SIGSTOP)
        assert appliance.stop(within=10) == 0
        assert [child for child in children if runs(child)] == []
        assert "listener has not ended within 5 s: it is killed" in appliance.log


def test_killed_programs_leave_no_zombies(appliance: Appliance) -> None:
    for program in ("listener", "demo", "app"):
        before = appliance.pid_of(program)
        os.kill(before, signal.SIGKILL)
        wait_until(partial(replaced, appliance, program, before), 40)
    wait_until(lambda: get(appliance.port, "/readyz")[0] == 200)
    zombies = [
        process.pid
        for process in psutil.Process(appliance.pid).children(recursive=True)
        if process.status() == psutil.STATUS_ZOMBIE
    ]
    assert zombies == []
