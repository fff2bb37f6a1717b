"""For random histories, viewers and disconnects: what a viewer has applied is what it would have without them."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.resume.world import CLOCK, MATCHES, PLAYS, Database, Viewer, Worker, answer, settle
from tests.support.loops import run_ready_tasks

# What may happen, and how often; the numbers of a step choose who and how much.
OFTEN = {
    "play": 40,
    "clock": 30,
    "hear": 60,
    "answer": 50,
    "read": 50,
    "half read": 8,
    "disconnect": 20,
    "connect": 40,
    "canary": 5,
    "direct": 3,
    "begin": 1,
    "unheard": 1,
    "fail": 2,
    "lose": 1,
    "restart": 5,
}
STEPS = [step for step, times in OFTEN.items() for _ in range(times)]
Step = tuple[str, int, int]
STEP = st.tuples(st.sampled_from(STEPS), st.integers(0, 40), st.integers(0, 5))


class Schedule:
    """One run of the world."""

    def __init__(self, *, numbered: bool) -> None:
        self.database = Database(numbered=numbered)
        self.workers = [Worker(self.database, 0) for _ in range(3)]
        self.viewers = [Viewer(self.database, MATCHES[number % 2]) for number in range(4)]
        self._directs = 0

    async def run(self, steps: list[Step]) -> None:
        for name, a, b in steps:
            await getattr(self, name.replace(" ", "_"))(a, b)
        await self._end()

    async def _end(self) -> None:
        """Everybody comes back, everything is heard: nobody can tell what has been."""
        await settle(self.workers)
        for viewer in self.viewers:
            for _ in range(5):
                await viewer.read()
                if viewer.connected:
                    break
                viewer.connect(self.workers[0])
                await settle(self.workers)
            assert viewer.connected
        for viewer in self.viewers:
            await viewer.read()
            truth = self.database.state(viewer.match)
            assert set(viewer.state["plays"]) == set(truth["plays"])
            assert viewer.state["clocks"] == truth["clocks"]
        for worker in self.workers:
            await worker.hub.aclose()

    async def play(self, a: int, b: int) -> None:
        for number in range(1 + a % 5):
            self.database.write(MATCHES[(a + number) % 2], PLAYS, 100 + a)

    async def clock(self, a: int, b: int) -> None:
        self.database.write(MATCHES[a % 2], CLOCK, b % 2)

    async def canary(self, a: int, b: int) -> None:
        self.database.canary()

    async def unheard(self, a: int, b: int) -> None:
        """No listener was alive: the next one begins an epoch; a worker that LISTENs itself has lost its place."""
        self.database.write(MATCHES[a % 2], PLAYS, 100 + a, heard=False)
        self.database.begin()

    async def begin(self, a: int, b: int) -> None:
        self.database.begin()

    async def direct(self, a: int, b: int) -> None:
        self._directs += 1
        for worker in self.workers:
            worker.published(MATCHES[a % 2], self._directs)

    async def hear(self, a: int, b: int) -> None:
        self.workers[b % 3].hear(a)
        await run_ready_tasks(a % 7)

    async def answer(self, a: int, b: int) -> None:
        await answer(self.workers[b % 3], a)

    async def read(self, a: int, b: int) -> None:
        await self.viewers[b % 4].read()

    async def half_read(self, a: int, b: int) -> None:
        await self.viewers[b % 4].read(a)

    async def disconnect(self, a: int, b: int) -> None:
        self.viewers[b % 4].disconnect()

    async def connect(self, a: int, b: int) -> None:
        viewer = self.viewers[b % 4]
        if not viewer.connected:
            viewer.connect(self.workers[a % 3])
            await run_ready_tasks(a % 5)

    async def fail(self, a: int, b: int) -> None:
        self.workers[b % 3].fails = a % 2 == 0

    async def lose(self, a: int, b: int) -> None:
        self.workers[b % 3].lose_its_place()

    async def restart(self, a: int, b: int) -> None:
        """A worker dies with all that its viewers wait for, and another starts in its place."""
        old = self.workers[b % 3]
        for viewer in self.viewers:
            if viewer._worker is old:
                viewer.disconnect()
        await old.hub.aclose()
        self.workers[b % 3] = Worker(self.database, a % 30)


@settings(max_examples=300)
@given(steps=st.lists(STEP, min_size=50, max_size=160))
def run_numbered(reached: Counter[str], steps: list[Step]) -> None:
    schedule = Schedule(numbered=True)
    asyncio.run(schedule.run(steps))
    for viewer in schedule.viewers:
        reached["recovered"] += viewer.loads.count(True)
        reached["from a snapshot"] += viewer.loads.count(False)
    for worker in schedule.workers:
        reached["too slow"] += worker.hub.slow_closes
        reached["recalled"] += worker.recalls


def test_a_viewer_has_what_it_would_have_without_the_disconnects() -> None:
    reached: Counter[str] = Counter()
    run_numbered(reached)
    # A property that meets nothing proves nothing.
    assert all(reached[what] > 10 for what in ("recovered", "from a snapshot", "too slow", "recalled")), reached


@settings(max_examples=100)
@given(st.lists(STEP, max_size=80))
def test_without_numbers_nothing_is_recovered_and_every_viewer_ends_with_the_truth(steps: list[Step]) -> None:
    schedule = Schedule(numbered=False)
    asyncio.run(schedule.run(steps))
    assert not any(recovered for viewer in schedule.viewers for recovered in viewer.loads)


@pytest.mark.long
@pytest.mark.timeout(900)
@settings(max_examples=3_000)
@given(st.lists(STEP, min_size=60, max_size=250))
def test_over_many_more_schedules(steps: list[Step]) -> None:
    asyncio.run(Schedule(numbered=True).run(steps))
