"""Descriptors of processes that have more than 1,024 of them."""

import fcntl
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from app.core.descriptors import is_readable, wait_until_writable


@pytest.fixture
def high() -> Iterator[tuple[int, socket.socket]]:
    """A descriptor beyond what `select` takes, and the other end of its socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    near, far = socket.socketpair()
    descriptor = fcntl.fcntl(near, fcntl.F_DUPFD, 1500)
    with near, far:
        yield descriptor, far
    os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_high_descriptor_is_readable_when_there_is_data_or_the_end(high: tuple[int, socket.socket]) -> None:
    descriptor, far = high
    assert descriptor >= 1024
    assert not is_readable(descriptor)
    far.send(b"data")
    assert is_readable(descriptor)
    os.read(descriptor, 100)
    assert not is_readable(descriptor)
    far.close()
    assert is_readable(descriptor)


def test_a_high_descriptor_that_takes_data_is_not_waited_for(high: tuple[int, socket.socket]) -> None:
    wait_until_writable(high[0])
