"""Real processes: their output, signals and exit codes."""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
# A program under test gets only the settings of the test: no others from the environment of this process.
_INHERITED = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR", "USER")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a program under test."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | dict(settings)


class Process:
    """A command that runs in a folder, and is ended when the block ends.

    `lines` has its output so far, standard output and standard error together.
    """

    def __init__(self, command: Sequence[str], folder: Path, settings: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._popen = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout
        with self._popen.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait_for_log(self, text: str, within: float = 20.0) -> None:
        """Wait until the output contains `text`; fail early if the process has exited without it."""
        wait_until(lambda: text in self.log or (not self.running and self._finished(text)), within, f"{text!r} logged")

    def _finished(self, text: str) -> bool:
        self._reader.join(5)
        assert text in self.log, f"exited with {self._popen.returncode} without {text!r}:\n{self.log}"
        return True

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> int:
        """Send SIGKILL and return the exit code."""
        self.signal(signal.SIGKILL)
        return self.exit_code()

    def stop(self, within: float = 15.0) -> int:
        """Send SIGTERM and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.exit_code(within)

    def exit_code(self, within: float = 15.0) -> int:
        code = self._popen.wait(within)
        self._reader.join(5)
        return code

    def end(self) -> None:
        """End the process and all that it started, whatever their state."""
        if self.running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self._popen.wait()
        self._reader.join(5)
        if self._reader.is_alive():  # another process that it started still has the pipe open
            os.killpg(self.pid, signal.SIGKILL)
            self._reader.join()
