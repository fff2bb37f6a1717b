"""Clients spread evenly over the workers, however they arrive. `python -m tests.storm --spread` prints the figures."""

import asyncio
import os
import signal
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest

from tests.conftest import StartApp
from tests.storm.spread import WORKERS, Crowd, wait_for_workers
from tests.support.programs import App
from tests.support.servers import database_settings


@pytest.fixture
def app(database: str, start_app: StartApp) -> App:
    app = start_app(database_settings(database), WORKERS)
    wait_for_workers(app)
    return app


def test_one_after_the_other_and_after_the_fullest_worker_is_killed(app: App) -> None:
    async def run() -> None:
        async with Crowd(app) as crowd:
            await crowd.arrive(200)
            await crowd.arrive_until_even(1.15 + 1 / 50, at_most=100)
            assert crowd.fullest <= 1.15 + 1 / 50, crowd.counts
            lost = await crowd.kill_fullest()
            await crowd.wait_for_another(crowd.counts)
            await crowd.arrive(lost)
            await crowd.arrive_until_even(1.15 + 1 / 50, at_most=lost)
            assert crowd.fullest <= 1.15 + 1 / 50, crowd.counts

    asyncio.run(run())


def test_a_thousand_at_once(app: App) -> None:
    async def run() -> None:
        async with Crowd(app) as crowd:
            await crowd.arrive_within(1000)
            await crowd.arrive_until_even(1.15, at_most=200)
            assert crowd.fullest <= 1.15, crowd.counts

    asyncio.run(run())


def test_while_a_worker_is_frozen_the_others_take_all_newcomers_evenly(app: App) -> None:
    async def run() -> None:
        async with Crowd(app) as crowd:
            await crowd.arrive(40)
            frozen, *living = crowd.counts
            had = crowd.counts[frozen]
            os.kill(frozen, signal.SIGSTOP)
            try:
                await crowd.arrive(110)
                await crowd.arrive_until_even(1.15 + 1 / 30, at_most=100, workers=living)
            finally:
                os.kill(frozen, signal.SIGCONT)
            assert crowd.counts[frozen] == had
            assert crowd.fullest_of(living) <= 1.15 + 1 / 30, crowd.counts
            await crowd.wait_for_another(living)
            await crowd.arrive(50)
            await crowd.arrive_until_even(1.15 + 1 / 50, at_most=100)
            assert crowd.fullest <= 1.15 + 1 / 50, crowd.counts

    asyncio.run(run())


def test_connections_that_are_idle_between_two_requests_count_for_nothing(app: App) -> None:
    async def run(stack: ExitStack) -> None:
        async with Crowd(app) as crowd:
            for _ in range(40):
                idle = stack.enter_context(closing(HTTPConnection("127.0.0.1", app.port)))
                idle.request("GET", "/healthz")
                assert idle.getresponse().read()
                await crowd.arrive(1)
            await crowd.arrive_until_even(1.15 + 1 / 10, at_most=40)
            assert crowd.fullest <= 1.15 + 1 / 10, crowd.counts

    with ExitStack() as stack:
        asyncio.run(run(stack))
