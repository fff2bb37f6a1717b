"""Blocking calls in threads."""

import asyncio
import threading

import pytest

from notifymux.background_call import BackgroundCall, in_background
from tests.support.loops import async_test, run_ready_tasks
from tests.support.waiting import wait_until


def fail() -> None:
    raise ValueError("it failed")


def test_a_call_is_done_when_it_has_returned() -> None:
    go_on = threading.Event()
    call = BackgroundCall(lambda: go_on.wait(10))
    assert not call.is_done
    go_on.set()
    wait_until(lambda: call.is_done)
    assert call.result()


def test_what_a_call_raises_is_raised_where_its_result_is_asked_for() -> None:
    with pytest.raises(ValueError, match="it failed"):
        BackgroundCall(fail).result()


@async_test
async def test_a_loop_goes_on_while_it_awaits_a_call() -> None:
    go_on = threading.Event()
    future = in_background(lambda: go_on.wait(10))
    await run_ready_tasks()
    assert not future.done()
    go_on.set()
    assert await future


@async_test
async def test_what_an_awaited_call_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="it failed"):
        await in_background(fail)


@async_test
async def test_a_call_that_is_awaited_no_longer_hands_its_result_to_a_callback() -> None:
    go_on, results = threading.Event(), []
    future = in_background(lambda: go_on.wait(10))
    future.add_done_callback(lambda done: results.append(done.result()))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.shield(future)
    go_on.set()
    await future
    await run_ready_tasks()
    assert results == [True]


def test_a_call_that_outlives_its_loop_ends_quietly() -> None:
    go_on = threading.Event()

    async def start() -> None:
        in_background(lambda: go_on.wait(10)).cancel()

    before = threading.active_count()
    asyncio.run(start())
    go_on.set()
    wait_until(lambda: threading.active_count() == before)
