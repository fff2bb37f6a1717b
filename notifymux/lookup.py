"""Name look-ups for an event loop, which a resolver that does not answer can't hold up."""

import asyncio
import socket
from functools import partial

from notifymux.background_call import in_background

_TIMEOUT_SECONDS = 2.0

_pending: dict[tuple[str, int], "asyncio.Future[list[str]]"] = {}


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order in which to try them; wait at most two seconds.

    Each look-up has a daemon thread of its own, and there is one at a time for a name: whoever asks meanwhile waits for
    the same answer. The threads of the loop's executor are few, and are joined at the end.

    Raises:
        OSError: the host can't be looked up, or (TimeoutError) not in time.
        UnicodeError: the name is none.
    """
    answer = _pending.get((host, port))
    if answer is None or answer.done() or answer.get_loop() is not asyncio.get_running_loop():
        answer = _pending[host, port] = in_background(partial(_resolve, host, port))
        answer.add_done_callback(partial(_forget, host, port))
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return await asyncio.shield(answer)
    except TimeoutError:
        raise TimeoutError(f"the name {host} could not be looked up within {_TIMEOUT_SECONDS:g} s") from None


def _resolve(host: str, port: int) -> list[str]:
    return [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _forget(host: str, port: int, answer: "asyncio.Future[list[str]]") -> None:
    if _pending.get((host, port)) is answer:
        del _pending[host, port]
    answer.exception()  # nobody may be waiting any longer; that is no error of the loop's
