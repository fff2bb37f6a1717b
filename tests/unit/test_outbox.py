"""What waits for one client."""

import asyncio

from app.outbox import Outbox
from tests.support.loops import in_a_loop, turns


async def taken(outbox: Outbox) -> list[bytes]:
    """What can be taken now."""
    return await asyncio.wait_for(outbox.take(), 5)


async def waits(outbox: Outbox) -> bool:
    """Whether there is nothing to take, however often the loop goes round."""
    task = asyncio.create_task(outbox.take())
    await turns()
    waited = not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return waited


@in_a_loop
async def test_everything_that_waits_is_taken_at_once_and_in_order() -> None:
    outbox = Outbox(100)
    for text in (b"a", b"b", b"c"):
        assert outbox.put(text)
    assert await taken(outbox) == [b"a", b"b", b"c"]
    assert await waits(outbox)


@in_a_loop
async def test_who_waits_is_woken_by_the_next_message() -> None:
    outbox = Outbox(100)
    task = asyncio.create_task(outbox.take())
    await turns()
    outbox.put(b"a")
    assert await asyncio.wait_for(task, 5) == [b"a"]


@in_a_loop
async def test_what_would_be_too_much_is_refused_and_what_waits_stays() -> None:
    outbox = Outbox(10)
    assert outbox.put(b"12345")
    assert outbox.put(b"67890")
    assert not outbox.put(b"x")
    assert await taken(outbox) == [b"12345", b"67890"]


@in_a_loop
async def test_what_was_taken_makes_room() -> None:
    outbox = Outbox(10)
    for _ in range(5):
        assert outbox.put(b"1234567890")
        assert not outbox.put(b"1")
        assert await taken(outbox) == [b"1234567890"]


@in_a_loop
async def test_one_message_larger_than_the_limit_passes_when_nothing_else_waits() -> None:
    outbox = Outbox(10)
    assert outbox.put(b"x" * 1000)
    assert not outbox.put(b"x")
    assert await taken(outbox) == [b"x" * 1000]
    assert outbox.put(b"x")
    assert not outbox.put(b"x" * 1000)


@in_a_loop
async def test_a_reserved_place_holds_back_what_is_behind_it_until_it_is_filled() -> None:
    outbox = Outbox(100)
    outbox.put(b"before")
    slot = outbox.reserve()
    outbox.put(b"behind")
    held = [outbox.held]
    assert await taken(outbox) == [b"before"]
    assert await waits(outbox)
    held.append(outbox.held)
    outbox.fill(slot, b"the snapshot")
    held.append(outbox.held)
    assert held == [False, True, False]
    assert await taken(outbox) == [b"the snapshot", b"behind"]


@in_a_loop
async def test_reserved_places_keep_their_order_whichever_is_filled_first() -> None:
    outbox = Outbox(100)
    first, second = outbox.reserve(), outbox.reserve()
    outbox.fill(second, b"2")
    assert await waits(outbox)
    outbox.fill(first, b"1")
    assert await taken(outbox) == [b"1", b"2"]


@in_a_loop
async def test_what_waits_behind_a_reserved_place_is_bounded_too() -> None:
    outbox = Outbox(10)
    slot = outbox.reserve()
    assert outbox.put(b"1234567890")
    assert not outbox.put(b"x")
    outbox.fill(slot, b"s")
    assert await taken(outbox) == [b"s", b"1234567890"]


@in_a_loop
async def test_a_snapshot_counts_for_nothing() -> None:
    outbox = Outbox(10)
    outbox.fill(outbox.reserve(), b"x" * 1000)
    assert outbox.put(b"1234567890")
    assert await taken(outbox) == [b"x" * 1000, b"1234567890"]
    assert outbox.put(b"1234567890")


@in_a_loop
async def test_a_take_that_is_cancelled_takes_nothing() -> None:
    outbox = Outbox(100)
    assert await waits(outbox)
    outbox.put(b"a")
    assert await taken(outbox) == [b"a"]
