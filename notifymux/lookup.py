"""Name look-ups for an event loop, which a resolver that does not answer can't hold up."""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_TIMEOUT_SECONDS = 2.0

_pending: dict[tuple[str, int], "asyncio.Future[list[str]]"] = {}


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order in which to try them; wait at most two seconds.

    Each look-up has a daemon thread of its own, and there is one at a time for a name: whoever asks meanwhile waits for
    the same answer. The threads of the loop's executor are few, and are joined at the end.

    Raises:
        OSError: the host can't be looked up, or (TimeoutError) not in time.
    """
    loop = asyncio.get_running_loop()
    answer = _pending.get((host, port))
    if answer is None or answer.get_loop() is not loop:
        answer = _pending[host, port] = loop.create_future()
        _start(loop, answer, host, port)
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            return await asyncio.shield(answer)
    except TimeoutError:
        raise TimeoutError(f"the name {host} could not be looked up within {_TIMEOUT_SECONDS:g} s") from None


def _start(loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[list[str]]", host: str, port: int) -> None:
    def settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if _pending.get((host, port)) is answer:
            del _pending[host, port]
        if not answer.done():
            set_outcome(outcome)
            answer.exception()  # nobody may be waiting any longer; that is no error of the loop's

    def resolve() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            outcome: tuple[Any, ...] = (answer.set_exception, error)
        else:
            outcome = (answer.set_result, [str(address[0]) for *_, address in found])
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=resolve, daemon=True, name=f"look-up of {host}").start()
