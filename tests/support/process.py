"""A real process, its lines, and the ways in which it may end."""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
# A test says everything that a program is to know: nothing of this machine's settings reaches it.
_KEPT = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR", "USER")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program under test."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | dict(settings)


class Process:
    """A command in a folder of its own, ended at the latest with the test."""

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

    def logged(self, text: str, within: float = 20.0) -> None:
        """Waits for a line that contains `text`."""
        wait_until(lambda: text in self.log or (not self.running and self._finished(text)), within, f"{text!r} logged")

    def _finished(self, text: str) -> bool:
        self._reader.join(5)
        assert text in self.log, f"it ended with {self._popen.returncode} without {text!r}:\n{self.log}"
        return True

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> int:
        """kill -9."""
        self.signal(signal.SIGKILL)
        return self.exit_code()

    def stop(self, within: float = 15.0) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        return self.exit_code(within)

    def exit_code(self, within: float = 15.0) -> int:
        code = self._popen.wait(within)
        self._reader.join(5)
        return code

    def end(self) -> None:
        """Whatever it is doing: it and all it started are gone afterwards."""
        if self.running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self._popen.wait()
        self._reader.join(5)
        if self._reader.is_alive():  # something that it started holds its output
            os.killpg(self.pid, signal.SIGKILL)
            self._reader.join()
