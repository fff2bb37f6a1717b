"""Calls that a loop does not wait for: one that blocks has a thread of its own."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class PendingCall(Protocol):
    """A call that was started, as `BackgroundCall` or `listener.redis_call.RedisCall`."""

    @property
    def is_done(self) -> bool:
        """Whether `result` returns without waiting."""

    def result(self) -> Any:
        """Return or raise what the call did."""


class BackgroundCall(threading.Thread, Generic[T]):
    """Calls `call` at once, in a daemon thread: no program's end waits for it.

    `concurrent.futures` is no substitute: its threads are joined when the interpreter exits, and a name look-up that
    nobody answers would delay the exit by minutes.

    Args:
        call: may block.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._result: T
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Call it; `threading.Thread` calls this."""
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - `result` raises it in the loop's thread
            self._error = error

    @property
    def is_done(self) -> bool:
        """Whether `result` returns without waiting."""
        return not self.is_alive()

    def result(self) -> T:
        """Return what the call returned, or raise what it raised. It waits for the call."""
        self.join()
        if self._error:
            raise self._error
        return self._result


def in_background(call: Callable[[], T]) -> "asyncio.Future[T]":
    """Start a `BackgroundCall` and return a future of the running event loop for what it returns or raises.

    Cancelling the future does not end the call. To get at the result all the same, await it with `asyncio.shield` and
    add a callback. If the loop is closed before the call ends, the result is lost.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            set_outcome(outcome)

    def call_and_settle() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - who awaits the future gets it
            outcome: tuple[Any, ...] = (future.set_exception, error)
        else:
            outcome = (future.set_result, result)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *outcome)

    BackgroundCall(call_and_settle)
    return future
