"""Every line that a program logs reaches the container's log."""

import re
from pathlib import Path

import pytest

from tests.appliance.test_appliance import Appliance
from tests.support.process import ROOT
from tests.support.waiting import wait_until

LINES = 100_000  # of 110 bytes: more than 10 MB


def talker() -> str:
    """A program with the listener's section of supervisord.conf that logs many lines."""
    conf = (ROOT / "supervisord.conf").read_text()
    section = re.search(r"\[program:listener\]\n(?:.+\n)+", conf)
    assert section
    code = (
        "import signal, sys; go = [signal.SIGUSR1]; signal.pthread_sigmask(signal.SIG_BLOCK, go); signal.sigwait(go);"
        f" [print('line', n, 'x' * 100, file=sys.stderr) for n in range({LINES})]; signal.pause()"
    )
    text = section.group().replace("listener", "talker")
    return "\n" + re.sub(r"command=.*", lambda _: f'command=python -c "{code}"\nautostart=false', text)


@pytest.mark.long
def test_ten_megabytes_of_lines_arrive_each_once_and_in_order(tmp_path: Path) -> None:
    with Appliance(tmp_path / "pod", talker()) as appliance:
        appliance.wait_until_ready()
        appliance.ctl("start", "talker")
        # Then no other program logs: supervisord may put a line of it into the middle of one of these.
        appliance.wait_for_log("keeper INFO talker runs")
        appliance.ctl("signal", "USR1", "talker")

        # Only the newest lines are looked at: what takes long here keeps the reader of the log from reading, and beyond
        # a bound the appliance drops what nobody reads.
        last, dropped = f"line {LINES - 1} ", "lines were dropped"

        def has_arrived() -> bool:
            return any(line.startswith(last) for line in appliance.lines[-10:])

        wait_until(has_arrived, 60, lambda: appliance.log[-500:])
        assert not [line for line in appliance.lines if dropped in line]
        logged = [line for line in appliance.lines if line.startswith("line ")]
        assert logged == [f"line {number} " + "x" * 100 for number in range(LINES)]
