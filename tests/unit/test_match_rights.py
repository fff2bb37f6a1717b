"""Rights by the team's query: who shares an answer, when it is asked for again, and which clients are closed."""

import asyncio
from contextlib import ExitStack

import pytest

from app.broadcast.client import Client, CloseCode
from app.broadcast.match_rights import MatchRights, Verdict
from app.broadcast.match_view import MatchView
from app.broadcast.query_pool import QueryResult
from app.core.claims import ClaimNames, claims_json
from notifymux.event import NULL
from tests.support.loops import async_test, run_ready_tasks

INTERVAL = 0.2
FAN, GUEST = claims_json({"role": "fan", "sub": "a"}), claims_json({"role": "guest", "sub": "b"})
TRUE, FALSE = QueryResult(b"true"), QueryResult(b"false")
AWAY = QueryResult(NULL, "away", "ConnectionTimeout", is_outage=True)


class World:
    """Rights by the claim `role`, and a database that answers as the test says."""

    def __init__(self, answer: QueryResult = TRUE, interval: float = INTERVAL) -> None:
        self.answer, self.refused, self.asked = answer, "", list[MatchView]()  # `refused`: a role
        self.rights = MatchRights(ClaimNames(frozenset({"role"})), self._ask, 2, 0.0, interval)
        self._connected = ExitStack()

    async def _ask(self, view: MatchView) -> QueryResult:
        self.asked.append(view)
        await asyncio.sleep(0)
        return FALSE if f'"{self.refused}"' in view.claims else self.answer

    async def check(self, claims: str = FAN, match: str = "1") -> Verdict:
        return await self.rights.check(match, claims, "192.0.2.1")

    async def connect(self, claims: str = FAN, name: str = "c") -> Client:
        assert await self.check(claims) is Verdict.ALLOWED
        client = Client(name, 1000, claims=claims)
        self._connected.callback(self.rights.watch("1", claims, "192.0.2.1", client.close))
        return client

    async def tick(self) -> None:
        self.rights.ask_again()
        await run_ready_tasks()

    async def until_closed(self, client: Client) -> CloseCode:
        async with asyncio.timeout(20):
            while not client.closing.done():
                await self.tick()
                await asyncio.sleep(INTERVAL / 10)
        return client.closing.result()


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (b"true", Verdict.ALLOWED),
        (b'"t"', Verdict.ALLOWED),
        (b"false", Verdict.REFUSED),
        (b'"f"', Verdict.REFUSED),
        (NULL, Verdict.REFUSED),
        (b"1", Verdict.REFUSED),
        (b'{"allowed":true}', Verdict.REFUSED),
    ],
)
def test_only_true_lets_in(result: bytes, verdict: Verdict) -> None:
    @async_test
    async def check() -> None:
        assert await World(QueryResult(result)).check() is verdict

    check()


@async_test
async def test_a_match_id_that_no_match_can_have_is_refused_and_a_query_that_fails_leaves_it_open() -> None:
    assert await World(QueryResult(NULL, "failed", "22P02")).check() is Verdict.REFUSED
    assert await World(QueryResult(NULL, "failed", "22012")).check() is Verdict.UNKNOWN
    assert await World(AWAY).check() is Verdict.UNKNOWN


@async_test
async def test_clients_with_equal_claims_share_an_answer_and_the_query_sees_no_other_claim() -> None:
    world = World(interval=60)
    others = [claims_json({"role": "fan", "sub": f"{number}"}) for number in range(100)]
    verdicts = await asyncio.gather(*[world.check(each) for each in others], world.check(GUEST))
    assert set(verdicts) == {Verdict.ALLOWED}
    await world.check()
    assert sorted(world.asked) == [MatchView("1", '{"role":"fan"}'), MatchView("1", '{"role":"guest"}')]


@async_test
async def test_what_could_not_be_found_out_is_asked_for_again_at_once() -> None:
    world = World(AWAY)
    assert await world.check() is Verdict.UNKNOWN
    world.answer = TRUE
    assert await world.check() is Verdict.ALLOWED


@async_test
async def test_a_client_whose_right_is_revoked_is_closed_and_others_are_not() -> None:
    world = World()
    client, same, guest = await world.connect(), await world.connect(name="same"), await world.connect(GUEST)
    world.refused = "fan"
    assert await world.until_closed(client) is await world.until_closed(same) is CloseCode.REVOKED
    assert not guest.closing.done()
    assert world.rights.revoked == 2


@async_test
async def test_without_an_answer_a_client_stays_for_one_interval_more() -> None:
    world = World()
    client = await world.connect()
    started = asyncio.get_running_loop().time()
    world.answer = AWAY
    assert await world.until_closed(client) is CloseCode.UNCHECKED
    assert asyncio.get_running_loop().time() - started >= 2 * INTERVAL
    await world.tick()
    assert world.rights.unchecked == 1


@async_test
async def test_nothing_waits_for_ever_when_the_last_client_leaves_as_its_right_is_asked_for() -> None:
    world = World()
    await world.connect()
    await asyncio.sleep(INTERVAL)
    world.rights.ask_again()
    world._connected.close()
    await run_ready_tasks()
    assert len(world.asked) == 2
    assert (world.rights.queries.waiting, world.rights._tasks, world.rights._watches) == (0, set(), {})


@async_test
async def test_without_an_answer_it_is_asked_for_again_a_few_times_not_at_every_look() -> None:
    world = World()
    client = await world.connect()
    world.answer = AWAY
    await world.until_closed(client)
    assert 1 <= len(world.asked) - 1 <= 5


@async_test
async def test_a_client_stays_while_the_answer_is_true() -> None:
    world = World()
    client = await world.connect()
    while len(world.asked) < 5:
        await world.tick()
        await asyncio.sleep(INTERVAL / 10)
    assert not client.closing.done()


@async_test
async def test_a_right_that_is_revoked_between_the_answer_and_the_connection_closes_the_client() -> None:
    world = World()
    assert await world.check() is Verdict.ALLOWED
    world.answer = FALSE
    await world.rights.queries.get(MatchView("1", '{"role":"fan"}'), ["192.0.2.1"])
    client = Client("c", 1000)
    stop = world.rights.watch("1", FAN, "192.0.2.1", client.close)
    assert client.closing.result() is CloseCode.REVOKED
    stop()


@async_test
async def test_nothing_is_kept_for_clients_that_have_left_but_a_bounded_number_of_answers() -> None:
    world = World()
    client = Client("c", 1000)
    for number in range(2100):
        assert await world.check(match=str(number)) is Verdict.ALLOWED
    stop = world.rights.watch("1", FAN, "192.0.2.1", client.close)
    assert len(world.rights._watches) == 1
    stop()
    assert not world.rights._watches
    assert len(world.rights._answers) == 2000
