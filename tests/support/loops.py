"""Helpers for tests that run asynchronous code in their own process."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def async_test(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an asynchronous test in a new event loop."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def wait_until_async(condition: Callable[[], T], within: float = 20.0, what: str = "") -> T:
    """Do the same as `wait_until` without blocking the event loop."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {within:g} s: {what or condition}"
        await asyncio.sleep(0.01)
    return found


async def hold_for_async(seconds: float, condition: Callable[[], object], what: str = "") -> None:
    """Do the same as `hold_for` without blocking the event loop."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"not held for {seconds:g} s: {what or condition}"
        await asyncio.sleep(0.01)


async def run_ready_tasks(count: int = 20) -> None:
    """Let the event loop run `count` iterations, so that every ready task makes progress."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(work: Awaitable[T]) -> AsyncIterator[asyncio.Future[T]]:
    """Run `work` as a task that is cancelled when the block ends. What it raised is raised here."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
