"""What a client of many matches asks for: bounds, rights that are withdrawn, and another token."""

import asyncio
import json
from typing import Any

import jwt
import msgspec
import pytest

from app.broadcast.client import CloseCode
from app.broadcast.hub import Hub
from app.broadcast.match_rights import MatchRights
from app.broadcast.match_view import MatchView
from app.broadcast.query_pool import QueryResult
from app.broadcast.router import Router
from app.core.claims import ClaimNames
from app.core.query_files import Queries, parse_query
from app.web.access_control import AccessControl, Admission
from app.web.subscription_requests import SubscriptionRequests
from app.web.token_bucket import TokenBucket
from app.web.tokens import Tokens, is_same_owner
from app.web.watched_subscriptions import WatchedSubscriptions
from notifymux.event import NULL, Event, EventId
from notifymux.stream_reader import Take
from tests.support.loops import async_test, run_ready_tasks

SECRET = "a secret that is long enough for HS256"
QUERIES = Queries(parse_query("snapshot", "-- claims: tenant\nSELECT %(claims)s, %(match_id)s"), {})
TRUE, FALSE, AWAY = QueryResult(b"true"), QueryResult(b"false"), QueryResult(NULL, "away", is_outage=True)


class World:
    """A client's requests, a hub whose snapshots show the claims, and rights that the test decides about."""

    def __init__(self, *, has_rights: bool = True, interval: float = 60.0, **claims: Any) -> None:
        self.now, self.expires = 0.0, list[float | None]()
        self.rights: dict[str, QueryResult] = {}  # by match; true for any other
        self.asked = asyncio.Event()  # set: rights are answered at once
        self.asked.set()
        self.hub = Hub(
            Router("match_id"),
            self._snapshot,
            self._range,
            100_000,
            100_000,
            snapshot_pool=2,
            snapshot_timeout=5.0,
            queries=QUERIES,
        )
        self.hub.start(EventId(7, 0), [])
        access = AccessControl(Tokens(SECRET, "HS256"), [], 10)
        first = access.renew(Tokens(SECRET, "HS256").verify(token(**claims)), token(**claims))
        self.client = self.hub.connect("c", owner=first.owner, claims=first.text)
        rights = MatchRights(ClaimNames(frozenset({"role"})), self._ask, 4, 0.0, interval) if has_rights else None
        self.watched = rights
        self.subscriptions = WatchedSubscriptions(self.hub, self.client, rights, needs_one=False)
        self.requests = SubscriptionRequests(
            self.subscriptions,
            access,
            Admission(first, "192.0.2.1"),
            rights=rights,
            set_expiry=self.expires.append,
            clock=lambda: self.now,
        )

    async def _snapshot(self, view: MatchView) -> QueryResult:
        return QueryResult(view.claims.encode())

    async def _range(self, after: EventId, until: EventId, take: Take) -> bool:
        return False

    async def _ask(self, view: MatchView) -> QueryResult:
        await self.asked.wait()
        return self.rights.get(str(view.match), TRUE)

    async def send(self, kind: str, **fields: Any) -> list[tuple[Any, ...]]:
        """Send a request; return what the client has been sent since the last one."""
        self.requests.on_text(json.dumps({"type": kind, **fields}))
        return await self.received()

    async def received(self) -> list[tuple[Any, ...]]:
        await run_ready_tasks(40)
        return [brief(json.loads(message.text)) for message in self.client.queue.drain()]

    async def hears(self, match: object) -> bool:
        """Whether an event of a match reaches the client."""
        number = (self.hub._buffer.position or EventId(7, 0)).sequence + 1
        payload = json.dumps({"match_id": match, "data": {}}).encode()
        self.hub.deliver([Event("match_change", msgspec.Raw(payload), f"7-{number}")])
        return bool(await self.received())


def brief(message: dict[str, Any]) -> tuple[Any, ...]:
    """Return the type, the match and what else matters of a message."""
    match message["type"]:
        case "refused":
            return ("refused", message.get("match_id"), message["code"])
        case "initial-load":
            return ("initial-load", message["match_id"], message["data"])
        case kind:
            return (kind, message.get("match_id"))


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "tenant": 1, "role": "fan", **claims}, SECRET)


def test_a_token_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    now = 0.0
    bucket = TokenBucket(3, 10.0, lambda: now)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now = 0.1
    assert [bucket.take() for _ in range(2)] == [True, False]
    now = 60.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    bucket.charge(5)
    now = 60.5
    assert not bucket.take()
    now = 60.7
    assert bucket.take()


def test_two_tokens_of_one_connection_are_of_one_owner_with_one_sub_or_both_without() -> None:
    tokens = Tokens(SECRET, "HS256")
    ann, again, bob, seven = [tokens.verify(token(sub=sub)).owner for sub in ("ann", "ann", "bob", "token 7")]
    nobody, other = [tokens.verify(jwt.encode({"jti": jti}, SECRET)).owner for jti in ("1", "2")]
    assert is_same_owner(ann, again)
    assert is_same_owner(nobody, other)
    assert is_same_owner(None, None)
    for one, two in ((ann, bob), (ann, nobody), (seven, nobody), (None, ann), (None, nobody)):
        assert not is_same_owner(one, two)
        assert not is_same_owner(two, one)


@async_test
async def test_past_the_rate_a_subscribe_is_refused_until_time_has_passed() -> None:
    world = World(has_rights=False)
    for _ in range(128):
        [first] = await world.send("subscribe", match_id=1)
        assert first[0] == "initial-load"
    assert await world.send("subscribe", match_id=2) == [("refused", 2, "too-fast")]
    assert await world.send("token", token=token()) == [("refused", None, "token")]
    assert await world.send("unsubscribe", match_id=1) == [("unsubscribed", 1)], "whoever leaves is always let go"
    world.now = 0.1
    assert await world.send("subscribe", match_id=2) == [("initial-load", 2, {"tenant": 1})]


@async_test
async def test_a_right_that_is_refused_or_unknown_is_told_apart_and_ends_nothing_else() -> None:
    world = World()
    world.rights = {"2": FALSE, "3": AWAY}
    assert await world.send("subscribe", match_id=1) == [("initial-load", 1, {"tenant": 1})]
    assert await world.send("subscribe", match_id=2) == [("refused", 2, "forbidden")]
    assert await world.send("subscribe", match_id=3) == [("refused", 3, "unavailable")]
    assert await world.hears(1)
    await world.requests.aclose()


@async_test
async def test_a_right_that_is_withdrawn_ends_its_subscription_alone() -> None:
    world = World(interval=0.5)
    rights = world.watched
    assert rights
    await world.send("subscribe", match_id=1)
    await world.send("subscribe", match_id=2)
    world.rights = {"1": FALSE}
    await asyncio.sleep(0.5)
    rights.ask_again()
    assert await world.received() == [("refused", 1, "forbidden")]
    assert not await world.hears(1)
    assert await world.hears(2)
    world.rights = {"2": AWAY}
    refusals: list[tuple[Any, ...]] = []
    async with asyncio.timeout(20):
        while not refusals:
            rights.ask_again()
            refusals += await world.received()
            await asyncio.sleep(0.05)
    assert refusals == [("refused", 2, "unavailable")]
    assert not world.client.closing.done()
    assert (rights.revoked, rights.unchecked, rights._watches) == (1, 1, {})


@async_test
async def test_an_unsubscribe_while_the_right_is_checked_is_the_fence_too() -> None:
    world = World()
    world.asked.clear()
    assert await world.send("subscribe", match_id=1) == []
    assert await world.send("unsubscribe", match_id=1) == [("unsubscribed", 1)]
    world.asked.set()
    assert await world.received() == []
    assert not await world.hears(1)


@async_test
async def test_matches_whose_right_is_checked_count_as_subscriptions() -> None:
    world = World()
    world.asked.clear()
    for number in range(128):
        assert await world.send("subscribe", match_id=number) == []
    world.now = 1.0
    assert await world.send("subscribe", match_id=128) == [("refused", 128, "too-many")]
    assert await world.send("subscribe", match_id=0) == []
    world.asked.set()
    loads: list[tuple[Any, ...]] = []
    async with asyncio.timeout(20):
        while len(loads) < 128:
            loads += await world.received()
    assert not world.client.closing.done()
    world.subscriptions.close()


@async_test
async def test_a_token_whose_claims_show_the_same_moves_the_expiry_and_restarts_nothing() -> None:
    world = World(has_rights=False, exp=4_000_000_000)
    await world.send("subscribe", match_id=1)
    assert await world.send("token", token=token(exp=4_000_000_100, more=1)) == [("renewed", None)]
    assert world.expires == [4_000_000_100]
    assert await world.hears(1)


@async_test
async def test_a_token_whose_claims_show_something_else_restarts_what_it_permits() -> None:
    world = World(has_rights=False)
    for match in (1, 2):
        await world.send("subscribe", match_id=match)
    first, *others = await world.send("token", token=token(tenant=2, matches=[2]))
    assert first == ("renewed", None)
    assert sorted(others) == [("initial-load", 2, {"tenant": 2}), ("refused", 1, "forbidden")]
    assert not await world.hears(1)
    assert await world.hears(2)


@async_test
async def test_a_token_with_fewer_rights_ends_what_the_query_no_longer_allows() -> None:
    world = World()
    for match in (1, 2):
        await world.send("subscribe", match_id=match)
    world.rights = {"1": FALSE}
    assert await world.send("token", token=token(role="guest")) == [("renewed", None), ("refused", 1, "forbidden")]
    assert await world.hears(2)
    world.subscriptions.close()


@async_test
async def test_a_subscribe_that_waits_for_its_check_is_checked_by_the_newer_token() -> None:
    world = World()
    world.asked.clear()
    assert await world.send("subscribe", match_id=1) == []
    assert await world.send("token", token=token(tenant=2)) == [("renewed", None)]
    world.asked.set()
    assert await world.received() == [("initial-load", 1, {"tenant": 2})]


@async_test
async def test_the_client_id_belongs_to_the_newest_token_of_a_connection_without_a_sub() -> None:
    world = World(has_rights=False)
    nobody, other = [jwt.encode({"jti": jti}, SECRET) for jti in ("1", "2")]
    owners = [Tokens(SECRET, "HS256").verify(each).owner for each in (nobody, other)]
    client = world.hub.connect("d", owner=owners[0])
    world.hub.renew(client, owners[1], "{}")
    world.hub.connect("d", owner=owners[0])
    assert not client.closing.done()
    world.hub.connect("d", owner=owners[1])
    assert client.closing.result() is CloseCode.REPLACED
    assert len(world.hub) == 3


@pytest.mark.parametrize("given", ["", 7, None, "x", token(sub="bob"), token(exp=1)])
def test_a_token_that_is_not_good_changes_nothing(given: object) -> None:
    @async_test
    async def check() -> None:
        world = World(has_rights=False)
        await world.send("subscribe", match_id=1)
        assert await world.send("token", token=given) == [("refused", None, "token")]
        assert world.expires == []
        assert await world.hears(1)

    check()
