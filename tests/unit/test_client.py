"""A client's queue and the sending of it."""

import asyncio
from collections.abc import Sequence

import pytest

from app.broadcast.client import Client, CloseCode
from app.broadcast.messages import Message, MessageBatch
from app.broadcast.subscription import Subscription
from notifymux.event import EventId
from tests.support.loops import async_test, run_ready_tasks

FIRST = Message(b"first")


class Connection:
    """A connection that can write at once only while it is free, and whose `send` waits until it is freed."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.free = asyncio.Event()
        self.error: Exception | None = None
        self.lost = False

    def write(self, batch: MessageBatch) -> bool:
        if self.free.is_set():
            self.sent += [message.text.decode() for message in batch.messages]
        return self.free.is_set()

    async def send(self, messages: Sequence[Message]) -> bool:
        await self.free.wait()
        if self.error:
            raise self.error
        self.sent += [message.text.decode() for message in messages]
        return not self.lost


def streaming_client(connection: Connection, queue_bytes: int = 1_000) -> Client:
    client = Client("c", queue_bytes)
    client.attach(connection.write, connection.send)
    client.send_unbounded([FIRST])
    return client


def subscribed(client: Client) -> Subscription:
    subscription = client.subscriptions["1"] = Subscription(client, "1")
    return subscription


def start(subscription: Subscription, *missed: Message, skip_until: EventId | None = None) -> None:
    subscription.start(skip_until)
    subscription.client.send_unbounded([FIRST, *missed])


def batch(*texts: str) -> MessageBatch:
    return MessageBatch([Message(text.encode(), f"7-{text}") for text in texts])


@async_test
async def test_a_batch_is_written_at_once_while_nothing_waits_and_never_before_what_waits() -> None:
    connection = Connection()
    client = streaming_client(connection)
    assert client.send(batch("1"))
    connection.free.set()
    assert client.send(batch("2"))  # could be written, but two messages wait
    await run_ready_tasks()
    assert connection.sent == ["first", "1", "2"]
    assert client.send(batch("3", "4"))
    assert connection.sent[3:] == ["3", "4"], "without a task"
    assert len(asyncio.all_tasks()) == 1


@async_test
async def test_a_client_without_a_connection_queues_and_sends_when_it_gets_one() -> None:
    connection = Connection()
    client = Client("c", 1_000)
    client.send_unbounded([FIRST])
    client.send(batch("1"))
    connection.free.set()
    client.attach(connection.write, connection.send)
    await run_ready_tasks()
    assert connection.sent == ["first", "1"]


@async_test
async def test_events_before_the_start_while_paused_and_after_the_close_are_dropped() -> None:
    connection = Connection()
    connection.free.set()
    client = Client("c", 1_000)
    subscription = subscribed(client)
    client.attach(connection.write, connection.send)
    assert subscription.send(batch("1"))
    start(subscription)
    await run_ready_tasks()
    subscription.pause()
    assert subscription.send(batch("2"))
    start(subscription, Message(b"missed"))
    await run_ready_tasks()
    assert subscription.send(batch("3"))
    assert client.close(CloseCode.EXPIRED)
    assert not client.close(CloseCode.SLOW)
    assert subscription.send(batch("4"))
    assert client.send(batch("5"))
    start(subscription)
    await run_ready_tasks()
    assert connection.sent == ["first", "first", "missed", "3"]
    assert client.closing.result() is CloseCode.EXPIRED, "the first code counts"


@async_test
async def test_events_that_the_client_already_has_are_skipped() -> None:
    connection = Connection()
    connection.free.set()
    client = Client("c", 1_000)
    client.attach(connection.write, connection.send)
    subscription = subscribed(client)
    start(subscription, skip_until=EventId(7, 2))
    await run_ready_tasks()
    for texts in (("1",), ("2", "3"), ("4",)):
        subscription.send(batch(*texts))
    assert connection.sent == ["first", "3", "4"]


@async_test
async def test_what_would_exceed_the_queue_is_reported() -> None:
    client = streaming_client(Connection(), queue_bytes=3)
    await run_ready_tasks()
    assert client.send(batch("1", "2", "3"))
    assert not client.send(batch("4"))


@pytest.mark.parametrize("error", [None, ZeroDivisionError("a bug")])
def test_a_lost_connection_and_a_failed_send_close_the_client(error: Exception | None) -> None:
    @async_test
    async def run() -> None:
        connection = Connection()
        connection.lost, connection.error = True, error
        client = streaming_client(connection)
        connection.free.set()
        assert await client.closing is CloseCode.DISCONNECTED
        assert await client.detach() == ([error] if error else [])

    run()


@async_test
async def test_a_client_that_is_detached_sends_no_more() -> None:
    connection = Connection()
    client = streaming_client(connection)
    await run_ready_tasks()
    assert await client.detach() == []
    connection.free.set()
    client.send(batch("1"))
    await run_ready_tasks()
    assert connection.sent == []
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("code", CloseCode)
def test_a_close_code_is_a_number_with_a_reason(code: CloseCode) -> None:
    assert f"{code}" == str(int(code))
    assert bool(code.reason) == (code is not CloseCode.DISCONNECTED)
