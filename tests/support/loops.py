"""For tests that run the product's asynchronous parts in this process."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """An asynchronous test, with a loop of its own."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], T], within: float = 20.0, what: str = "") -> T:
    """`wait_until`, with the loop running meanwhile."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within:g} s: {what or condition}"
        await asyncio.sleep(0.01)
    return found


async def holds(seconds: float, condition: Callable[[], object], what: str = "") -> None:
    """`hold_for`, with the loop running meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"not held for {seconds:g} s: {what or condition}"
        await asyncio.sleep(0.01)


async def turns(count: int = 20) -> None:
    """Lets everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def aside(call: Callable[..., T], *args: Any) -> T:
    """A call that blocks, in a thread."""
    return await asyncio.to_thread(call, *args)


@asynccontextmanager
async def running(work: Awaitable[T]) -> AsyncIterator[asyncio.Future[T]]:
    """`work` as a task, ended at the latest with the block; what it raised is raised here."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
