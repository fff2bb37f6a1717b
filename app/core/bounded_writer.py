"""Writes lines to a file descriptor in a thread of its own, so that nobody waits for whoever reads them."""

import os
import threading
from collections import deque
from collections.abc import Callable

from app.core.descriptors import wait_until_writable

KEPT_BYTES = 1 << 20  # of lines that wait


class BoundedWriter:
    """Keeps lines until they are written; those that don't fit are dropped and counted.

    How many were dropped is written in their place. A write that fails (the reader is gone, the disk is full) drops the
    lines too.

    Args:
        descriptor: is written to; it may block, or not.
        dropped_text: returns the line for a number of lines that were dropped, with its line break.
        kept: how many bytes may wait.
    """

    def __init__(self, descriptor: int, dropped_text: Callable[[int], bytes], kept: int = KEPT_BYTES) -> None:
        self._descriptor, self._dropped_text, self._kept = descriptor, dropped_text, kept
        self._waiting: deque[tuple[bytes, int]] = deque()  # with the number of lines that are lost if it is
        self._waiting_bytes = 0
        self._dropped = 0  # lines since the last one that was kept
        self._is_broken = False  # whether the last write failed
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="bounded-writer", daemon=True).start()

    def put(self, lines: bytes) -> None:
        """Have whole lines written, or drop them all; return at once."""
        with self._changed:
            if self._waiting_bytes + len(lines) > self._kept:
                self._dropped += lines.count(b"\n")
                return
            self._note_dropped()
            self._append(lines, lines.count(b"\n"))
            self._changed.notify_all()

    def drain(self, timeout: float) -> None:
        """Wait until everything is written, at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._dropped, timeout)

    def _append(self, lines: bytes, count: int) -> None:
        self._waiting.append((lines, count))
        self._waiting_bytes += len(lines)

    def _note_dropped(self) -> None:
        if self._dropped:
            self._append(self._dropped_text(self._dropped), self._dropped)
            self._dropped = 0

    def _run(self) -> None:
        while True:
            lines, count = self._next()
            written = self._write(lines)
            with self._changed:
                self._waiting.popleft()
                self._waiting_bytes -= len(lines)
                self._is_broken = not written
                self._dropped += 0 if written else count
                self._changed.notify_all()

    def _next(self) -> tuple[bytes, int]:
        """Wait for lines and return them. They stay in the queue, and count, until they are written."""
        with self._changed:
            while not self._waiting:
                if not self._is_broken:
                    self._note_dropped()
                if not self._waiting:
                    self._changed.wait()
            return self._waiting[0]

    def _write(self, lines: bytes) -> bool:
        """Write everything; return False if that is not possible."""
        while lines:
            try:
                lines = lines[os.write(self._descriptor, lines) :]
            except BlockingIOError:  # whoever shares the descriptor made it non-blocking
                wait_until_writable(self._descriptor)
            except OSError:
                return False
        return True
