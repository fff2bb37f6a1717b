"""Whether a descriptor can be read or written, by `poll`: `select` takes none above 1,023, which a worker's may be."""

import select


def is_readable(descriptor: int) -> bool:
    """Return at once whether there is something to read, or the end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def wait_until_writable(descriptor: int) -> None:
    """Wait until something can be written, or nobody reads any more."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
