"""Nothing that the claims of some clients are shown reaches others: the hub against a model of who may see what.

Every result names the view that it was fetched for, and every payload a secret, which only queries may turn into data.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.broadcast.client import Client
from app.broadcast.hub import Hub
from app.broadcast.match_view import MatchView
from app.broadcast.queried_update import QueriedUpdate
from app.broadcast.query_pool import QueryResult
from app.broadcast.router import Router
from app.core.claims import claims_json
from app.core.query_files import Queries, parse_query
from notifymux.event import NULL, Event, EventId
from notifymux.stream_reader import Take
from tests.support.loops import run_ready_tasks

NAMES = {"snapshot": ["tenant"], "by_role": ["role"], "by_both": ["role", "tenant"], "by_all": None, "open": []}
DIRECTIVE = {"snapshot": "-- claims: tenant\n", "by_role": "-- claims: role\n", "by_both": "-- claims: tenant, role\n"}
QUERIES = Queries(
    parse_query("snapshot", DIRECTIVE["snapshot"] + "SELECT %(claims)s, %(match_id)s"),
    {
        name: parse_query(
            name, DIRECTIVE.get(name, "") + f"SELECT %(new_id)s{'' if name == 'open' else ', %(claims)s'}"
        )
        for name in NAMES
        if name != "snapshot"
    },
)
CLAIMS = [{"tenant": tenant, "role": role, "sub": sub} for tenant in (1, 2) for role in "ab" for sub in (1, 2)]
MATCHES = ["1", "2"]


def view_of(name: str, claims: dict[str, Any]) -> dict[str, Any]:
    """What clients with these claims may see of a query's results."""
    names = NAMES[name]
    return claims if names is None else {key: claims[key] for key in names}


class Clients(RuleBasedStateMachine):
    """Clients with all sorts of claims come, leave, resume and miss events, while queries succeed, fail and wait."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.waiting: list[tuple[str, str, asyncio.Future[QueryResult]]] = []  # the query and the claims it was given
        self.clients: list[tuple[Client, dict[str, Any]]] = []
        self.last: dict[int, EventId] = {}
        self.events = 0
        self.loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        self.hub = Hub(
            Router("match_id", queries=QUERIES.channels),
            self._snapshot,
            self._range,
            1_000_000,
            3_000,
            snapshot_pool=3,
            snapshot_timeout=60.0,
            queries=QUERIES,
            fetch_row=self._row,
            row_timeout=60.0,
        )
        self.log: list[Event] = []
        self.hub.start(EventId(7, 0), [])

    async def _wait(self, name: str, claims: str) -> QueryResult:
        self.waiting.append((name, claims, asyncio.get_running_loop().create_future()))
        return await self.waiting[-1][2]

    async def _snapshot(self, view: MatchView) -> QueryResult:
        return await self._wait("snapshot", view.claims)

    async def _row(self, update: QueriedUpdate, claims: str, _: float) -> QueryResult:
        return await self._wait(update.channel, update.query.claims.of(claims))

    async def _range(self, after: EventId, until: EventId, take: Take) -> bool:
        return take([event for event in self.log if event.parsed_id and after < event.parsed_id <= until])

    def run(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call what needs the event loop, let everything go on, and check what clients have received."""

        async def call() -> Any:
            result = action(*arguments, **options)
            await run_ready_tasks()
            return result

        result = self.loop.run_until_complete(call())
        self._check_received()
        return result

    @rule(
        match=st.sampled_from(MATCHES), claims=st.sampled_from(CLAIMS), name=st.integers(0, 3), behind=st.integers(0, 9)
    )
    def join(self, match: str, claims: dict[str, Any], name: int, behind: int) -> None:
        last = EventId(7, max(0, self.events - behind)) if behind < 9 else None
        owner = f"sub {claims['sub']}"
        client = self.run(self.hub.join, match, f"{name}", last, owner=owner, claims=claims_json(claims))
        self.clients.append((client, claims))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 1000))
    def leave(self, which: int) -> None:
        client, _ = self.clients.pop(which % len(self.clients))
        self.run(self.hub.leave, client)

    @rule(
        match=st.sampled_from(MATCHES),
        channel=st.sampled_from([*QUERIES.channels, "plain"]),
        row=st.integers(1, 2),
        operation=st.sampled_from(["UPDATE", "DELETE"]),
    )
    def notify(self, match: str, channel: str, row: int, operation: str) -> None:
        self.events += 1
        secret = "public" if channel in {"plain", "open"} else "secret"
        payload = {"match_id": match, "operation": operation, "new_id": row, "data": {"payload": secret}}
        event = Event(channel, msgspec.Raw(json.dumps(payload).encode()), f"7-{self.events}")
        self.log.append(event)
        self.run(self.hub.deliver, [event])

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 1000), fails=st.booleans())
    def answer(self, which: int, fails: bool) -> None:
        name, claims, future = self.waiting.pop(which % len(self.waiting))
        if not future.done():
            result = {"query": name, "seen": json.loads(claims)}
            failed = QueryResult(NULL, "it failed")
            self.run(future.set_result, failed if fails else QueryResult(json.dumps(result).encode()))

    @rule()
    def gap(self) -> None:
        self.log.clear()
        self.run(self.hub.gap, EventId(7, self.events), "a test")

    def _check_received(self) -> None:
        for client, claims in self.clients:
            for message in client.queue.drain():
                self._check(json.loads(message.text), claims)

    def _check(self, message: dict[str, Any], claims: dict[str, Any]) -> None:
        data = message.get("data")
        if message["type"] == "stale" or data is None:
            return
        if "payload" in data:
            assert data["payload"] == "public"
            return
        name = "snapshot" if message["type"] in {"initial-load", "resync"} else message["channel"]
        assert data == {"query": name, "seen": view_of(name, claims)}

    @invariant()
    def every_query_is_given_the_claims_that_it_names_only(self) -> None:
        for name, claims, _ in self.waiting:
            names = NAMES[name]
            assert names is None or sorted(json.loads(claims)) == sorted(names)

    def teardown(self) -> None:
        for client, _ in self.clients:
            self.run(self.hub.leave, client)
        self.loop.run_until_complete(self.hub.aclose())
        self.loop.close()


TestNothingLeaksBetweenClaims = Clients.TestCase
TestNothingLeaksBetweenClaims.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
