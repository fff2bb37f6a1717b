"""The relay around supervisord: its output, its signals, its exit code, and its orphans."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.support.process import ROOT, Process, environment
from tests.support.waiting import wait_until

RELAY = [sys.executable, "-S", "-m", "app.appliance.supervision.output_relay"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RELAY, *command], cwd=ROOT, env=environment({}), capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 128 + 9), ("exec >&- 2>&-; sleep 0.2; exit 4", 4)]
)
def test_it_ends_with_the_commands_exit_code(script: str, code: int) -> None:
    assert run("sh", "-c", script).returncode == code


def test_a_command_that_is_missing_is_named() -> None:
    result = run("/no/such/command")
    assert (result.returncode, result.stdout) == (127, "notifymux: /no/such/command: No such file or directory\n")


def test_both_outputs_arrive_in_order_with_long_lines_and_an_unfinished_one() -> None:
    script = "echo one; echo two >&2; head -c 200000 /dev/zero | tr '\\0' x; printf '\\nlast'"
    result = run("sh", "-c", script)
    assert result.stdout == "one\ntwo\n" + "x" * 200_000 + "\nlast"
    assert result.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2])
def test_signals_are_passed_on(number: signal.Signals) -> None:
    script = f"import signal, sys; print('waits', flush=True); sys.exit(signal.sigwait([{int(number)}]))"
    block = f"import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}]); {script}"
    with Process([*RELAY, sys.executable, "-c", block], ROOT, {}) as relay:
        relay.wait_for_log("waits")
        relay.signal(number)
        assert relay.exit_code(10) == number


def test_an_orphan_that_has_the_output_open_keeps_nobody_waiting_and_is_heard_until_the_end() -> None:
    with Process([*RELAY, "sh", "-c", "(echo orphan; sleep 60) & sleep 0.3; exit 5"], ROOT, {}) as relay:
        assert relay.exit_code(10) == 5
        assert relay.lines == ["orphan"]


def test_the_command_ends_when_the_relay_is_killed() -> None:
    with Process([*RELAY, "sh", "-c", "echo runs; exec sleep 60"], ROOT, {}) as relay:
        relay.wait_for_log("runs")
        [child] = psutil.Process(relay.pid).children()
        os.kill(relay.pid, signal.SIGKILL)
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 5)
