"""Calls of an event loop that may block for long, of which there is one at a time for whatever is asked."""

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

from notifymux.background_call import in_background

T = TypeVar("T")

_pending: dict[Hashable, "asyncio.Future[Any]"] = {}


async def shared_call(key: Hashable, call: Callable[[], T], seconds: float) -> T:
    """Return what `call` returns, or raise what it raises; wait at most so many seconds.

    It runs in a daemon thread, and there is one for each key: whoever asks meanwhile waits for the same answer. A call
    that never ends therefore costs one thread, however often it is asked for. The threads of the loop's executor are
    few, and are joined at the end.

    Raises:
        TimeoutError: it has not ended in time. It goes on.
    """
    answer = _pending.get(key)
    if answer is None or answer.done() or answer.get_loop() is not asyncio.get_running_loop():
        answer = _pending[key] = in_background(call)
        answer.add_done_callback(partial(_forget, key))
    async with asyncio.timeout(seconds):
        result: T = await asyncio.shield(answer)
        return result


def _forget(key: Hashable, answer: "asyncio.Future[Any]") -> None:
    if _pending.get(key) is answer:
        del _pending[key]
    answer.exception()  # nobody may be waiting any longer; that is no error of the loop's
