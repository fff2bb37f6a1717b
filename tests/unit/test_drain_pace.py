"""The order and the pace in which a worker that ends closes its clients."""

import asyncio
import time
from functools import partial

from app.broadcast.client import Client, CloseCode
from app.broadcast.drain import Drain
from app.broadcast.hub import Hub
from tests.support.loops import async_test, run_ready_tasks, wait_until_async
from tests.unit.test_hub import World


def connected(hub: Hub, number: int) -> list[Client]:
    """Clients that leave as soon as they are closed."""
    clients = [hub.connect(f"c{n}") for n in range(number)]
    for client in clients:
        client.closing.add_done_callback(partial(_leave, hub, client))
    return clients


def _leave(hub: Hub, client: Client, _: object) -> None:
    hub.leave(client)


def closed(clients: list[Client]) -> int:
    return sum(client.closing.done() for client in clients)


@async_test
async def test_the_first_client_is_closed_at_once_and_the_others_evenly_in_the_order_in_which_they_came() -> None:
    hub = World().hub
    clients = connected(hub, 20)
    drain = Drain(hub, 1.0)
    assert not drain.is_active
    began, task = time.monotonic(), asyncio.create_task(drain.run())
    await run_ready_tasks()
    assert (closed(clients), drain.is_active) == (1, True)
    await wait_until_async(lambda: closed(clients) >= 10)
    assert time.monotonic() - began > 0.4
    assert closed(clients[:10]) == 10
    assert closed(clients) < 15
    await task
    assert time.monotonic() - began > 0.9
    assert {client.closing.result() for client in clients} == {CloseCode.SERVICE_RESTART}


@async_test
async def test_without_clients_it_takes_no_time() -> None:
    await asyncio.wait_for(Drain(World().hub, 300.0).run(), 5)


@async_test
async def test_after_a_pause_of_the_process_not_all_that_were_due_are_closed_at_once() -> None:
    hub = World().hub
    clients = connected(hub, 100)
    task = asyncio.create_task(Drain(hub, 2.0).run())
    await wait_until_async(lambda: closed(clients) >= 10)
    time.sleep(0.8)  # 40 would be due
    before = closed(clients)
    await run_ready_tasks()
    assert closed(clients) - before <= 7
    await task
    assert closed(clients) == 100


@async_test
async def test_clients_that_leave_by_themselves_shorten_the_drain_and_those_that_come_late_are_closed() -> None:
    hub = World().hub
    clients = connected(hub, 100)
    began, task = time.monotonic(), asyncio.create_task(Drain(hub, 30.0).run())
    await run_ready_tasks()
    for client in clients[2:]:
        client.close(CloseCode.DISCONNECTED)
    [late] = connected(hub, 1)
    await task
    assert time.monotonic() - began < 10
    assert late.closing.result() is CloseCode.SERVICE_RESTART


@async_test
async def test_a_drain_that_is_hurried_closes_all_that_are_left_at_once() -> None:
    hub = World().hub
    clients = connected(hub, 100)
    drain = Drain(hub, 300.0)
    task = asyncio.create_task(drain.run())
    await run_ready_tasks()
    assert closed(clients) == 1
    drain.hurry()
    await asyncio.wait_for(task, 10)
    assert closed(clients) == 100
