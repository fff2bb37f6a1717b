"""Lines are written by a thread that nobody waits for, and what is dropped is counted."""

import os
import re
from collections.abc import Iterator

import pytest

from app.core.bounded_writer import BoundedWriter
from tests.support.waiting import wait_until

KEPT = 1 << 18  # more than a pipe takes


def dropped_text(lines: int) -> bytes:
    return b"%d dropped\n" % lines


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(writing)
    os.close(reading)


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize("is_blocking", [True, False])
def test_lines_that_nobody_reads_delay_nobody_and_each_is_written_or_counted(
    pipe: tuple[int, int], is_blocking: bool
) -> None:
    reading, writing = pipe
    os.set_blocking(writing, is_blocking)
    writer = BoundedWriter(writing, dropped_text, KEPT)
    for number in range(10_000):
        writer.put(b"%d %s\n" % (number, b"x" * 100))
    output = bytearray()

    def says(text: bytes) -> bool:
        output.extend(read(reading))
        return text in output

    wait_until(lambda: says(b"dropped"))
    writer.put(b"after\n")
    wait_until(lambda: says(b"after\n"))
    lines = bytes(output).split(b"\n")
    kept = [int(line.split()[0]) for line in lines if b"xx" in line]
    dropped = sum(map(int, re.findall(rb"(\d+) dropped", output)))
    assert kept == sorted(set(kept))
    assert len(kept) + dropped == 10_000
    assert lines[-2:] == [b"after", b""]


def test_lines_that_can_not_be_written_are_counted_too() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    told: list[int] = []

    def note(lines: int) -> bytes:
        told.append(lines)
        return b"note\n"

    writer = BoundedWriter(full, note, KEPT)
    for _ in range(3):
        writer.put(b"line\n")
        writer.drain(0.05)
    os.close(full)
    assert told == [1, 2]


def test_drain_waits_until_all_is_written(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = BoundedWriter(writing, dropped_text, KEPT)
    writer.put(b"first\nsecond\n")
    writer.drain(5)
    assert read(reading) == b"first\nsecond\n"
