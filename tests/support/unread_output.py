"""Programs whose standard output somebody reads, until nobody does any more."""

import os
import select
import threading
import time

from tests.support.process import Process

_FILLER = b"." * 4095 + b"\n"


class UnreadOutput(Process):
    """A mixin, before a program's class."""

    # Of the class, since the thread that reads is started by the program's own __init__.
    _lock = threading.Lock()  # held while somebody reads
    _nobody_reads = False

    def _read(self) -> None:
        assert self._popen.stdout
        output, rest = self._popen.stdout.fileno(), b""
        while True:
            with self._lock:
                data = b"" if self._nobody_reads else self._some(output)
            if data is None or (self._nobody_reads and self._popen.poll() is not None):
                break
            if not data:
                time.sleep(0.01)
                continue
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [line.decode(errors="replace") for line in lines if not line.startswith(b"....")]
        self._popen.stdout.close()

    def _some(self, output: int) -> bytes | None:
        """What there is to read; None at the end."""
        return (os.read(output, 1 << 16) or None) if select.select([output], [], [], 0)[0] else b""

    def stop_reading(self) -> None:
        """From now on nobody reads, and what takes the output is full."""
        with self._lock:
            self._nobody_reads = True
        assert self._popen.stdout
        writing = os.open(f"/proc/self/fd/{self._popen.stdout.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(writing, _FILLER)
        except BlockingIOError:
            pass
        finally:
            os.close(writing)

    def read_again(self) -> None:
        """What was written, and could not be read, is read now."""
        self._nobody_reads = False

    def end(self) -> None:
        self.read_again()
        super().end()
