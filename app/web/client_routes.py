"""The routes for clients: WebSocket and event stream, the pages, and the health checks."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.broadcast.client import CloseCode
from app.broadcast.match_rights import Verdict
from app.broadcast.messages import refused
from app.broadcast.topic import Topic
from app.core.config import Settings
from app.monitoring.refusals import Cause, refusals
from app.web.access_control import AccessControl, Admission, Rejected, other_matches_only, try_elsewhere, try_later
from app.web.client_session import ClientSession, Transport
from app.web.origins import canonical_origin
from app.web.resume_positions import last_event_id, requested_starts
from app.web.subscription_requests import SubscriptionRequests
from app.web.transports import EventStreamTransport, WebSocketTransport
from app.web.watched_subscriptions import FORBIDDEN, UNAVAILABLE, WatchedSubscriptions
from app.websocket_manager import MatchDataWebSocketManager

_STATIC = Path(__file__).parent / "static"
_CONNECTION_PATH = "/api/matches/ws/{client_id}"
_CONNECTION_EVENTS_PATH = "/api/matches/events"
_WEBSOCKET_PATH = "/api/matches/ws/id/{match_id:match}/{client_id}"
_EVENTS_PATH = "/api/matches/{match_id:match}/events"
_CROSS_ORIGIN_HEADERS = ["Authorization", "Cache-Control", "Last-Event-ID"]  # that an event stream's client may send
_REVALIDATE = {"cache-control": "no-cache"}  # or after an upgrade, a page could be made of two versions' files


class _MatchConvertor(Convertor[str]):
    """A match id in a path, with slashes in it: proxies that rewrite a path decode `%2F`, as ASGI servers do.

    An empty part is none of an id, so that a doubled slash does not look like another match.
    """

    regex = "[^/]+(?:/[^/]+)*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("match", _MatchConvertor())


class ClientRoutes:
    """The routes for clients.

    Args:
        manager: this worker's.
        access: authorizes clients.
        settings: whether there is a status page, how often clients get pings, and which pages read event streams.
        explain: returns what the listeners say, where this worker is not ready; at once.
        demo: whether there are demo matches to show.
    """

    def __init__(
        self,
        manager: MatchDataWebSocketManager,
        access: AccessControl,
        settings: Settings,
        *,
        explain: Callable[[], Awaitable[list[str]]],
        demo: bool,
    ) -> None:
        self._manager, self._access, self._settings, self._demo = manager, access, settings, demo
        self._explain = explain
        self._cors = Middleware(
            CORSMiddleware,
            allow_origins=list(map(canonical_origin, settings.allowed_origins)),
            allow_headers=_CROSS_ORIGIN_HEADERS,
            expose_headers=["Retry-After"],
        )

    def routes(self) -> list[BaseRoute]:
        """Return all routes."""
        return [
            *([Route("/", partial(_page, "index.html"))] if self._settings.status_page else []),
            *(self._demo_pages() if self._demo else []),
            Route("/healthz", JSONResponse({"alive": True}), methods=["GET"]),
            Route("/readyz", self.readyz),
            WebSocketRoute(_WEBSOCKET_PATH + "/", self.match_socket),
            WebSocketRoute(_WEBSOCKET_PATH, self.match_socket),
            WebSocketRoute(_CONNECTION_PATH + "/", self.connection_socket),
            WebSocketRoute(_CONNECTION_PATH, self.connection_socket),
            Route(_CONNECTION_EVENTS_PATH, self.connection_events, methods=["GET", "OPTIONS"], middleware=[self._cors]),
            Route(_EVENTS_PATH, self.match_events, methods=["GET", "OPTIONS"], middleware=[self._cors]),
            Mount("/static", _Static(directory=_STATIC), middleware=[self._cors]),
        ]

    @staticmethod
    def _demo_pages() -> list[BaseRoute]:
        return [
            Route("/demo", partial(_page, "demo.html")),
            Route("/demo/matches", partial(_page, "matches.html")),
        ]

    async def readyz(self, request: Request) -> Response:
        """Respond with 200 if a canary arrived within the last seconds, else with 503; to operators with the reasons.

        While the feed of this pod's listener stands in for Redis, a worker is ready, and degraded.

        The reasons name hosts, and quote what servers say.
        """
        unready = self._manager.unready()
        reasons = [*unready, *self._manager.degraded()]
        body: dict[str, Any] = {
            "ready": not unready,
            "state": self._state(is_degraded=bool(reasons)),
        }
        if self._access.is_operator(request):
            explained = [*reasons, *(await self._explain())] if reasons else []
            body |= {"mode": self._manager.mode, "reasons": explained, "clients": len(self._manager.hub)}
        return JSONResponse(body, status_code=503 if unready else 200, headers={"cache-control": "no-store"})

    def _state(self, *, is_degraded: bool) -> str:
        if self._manager.broken:
            return "broken"
        if self._manager.drain.is_active:
            return "draining"
        return "degraded" if is_degraded else "ready"

    async def match_socket(self, websocket: WebSocket) -> None:
        """Serve one client of one match over a WebSocket."""
        match, name = websocket.path_params["match_id"], websocket.path_params["client_id"]
        self._check_serves()
        try:
            with self._access.authorize_client(websocket, match) as admission:
                await self._check_rights(match, admission)
                await websocket.accept(headers=[_worker_header()])
                await self._serve(websocket, WebSocketTransport(websocket), name, admission)
        except WebSocketDisconnect:
            pass  # the client left before it was accepted

    async def match_events(self, request: Request) -> ASGIApp:
        """Serve one client of one match with server-sent events."""
        return self._response(request, self._stream)

    async def _stream(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        match = request.path_params["match_id"]
        with self._access.authorize_client(request, match) as admission:
            await self._check_rights(match, admission)
            transport = EventStreamTransport(scope, receive, send)
            await transport.begin([_worker_header()])
            await self._serve(request, transport, uuid4().hex, admission)

    async def connection_socket(self, websocket: WebSocket) -> None:
        """Serve one client of many matches over a WebSocket."""
        self._check_serves()
        try:
            with self._access.authorize_connection(websocket) as admission:
                await websocket.accept(headers=[_worker_header()])
                await self._serve_requests(WebSocketTransport(websocket), websocket.path_params["client_id"], admission)
        except WebSocketDisconnect:
            pass  # the client left before it was accepted

    async def connection_events(self, request: Request) -> ASGIApp:
        """Serve one client of many matches with server-sent events."""
        return self._response(request, self._stream_many)

    def _check_serves(self) -> None:
        """Raise `Rejected` if this worker ends."""
        if self._manager.drain.is_active:
            raise try_elsewhere()

    def _response(
        self, request: Request, stream: Callable[[Request, Scope, Receive, Send], Awaitable[None]]
    ) -> ASGIApp:
        if request.method != "GET":
            return Response(status_code=204)
        return _end_stream_at_once if self._manager.drain.is_active else partial(stream, request)

    async def _serve_requests(self, transport: Transport, name: str, admission: Admission) -> None:
        manager, claims = self._manager, admission.claims
        client = manager.hub.connect(name, owner=claims.owner, address=admission.address, claims=claims.text)
        subscriptions = WatchedSubscriptions(manager.hub, client, manager.rights, needs_one=False)
        session = ClientSession(transport, client, self._settings.ping_interval, claims.expires)
        requests = SubscriptionRequests(
            subscriptions,
            self._access,
            admission,
            rights=manager.rights,
            set_expiry=session.set_expiry,
            other_keys=self._settings.other_keys,
        )
        try:
            await session.run(requests.on_text)
        finally:
            manager.hub.leave(client)
            subscriptions.close()
            await requests.aclose()

    async def _stream_many(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        starts = requested_starts(request, self._settings.other_keys)
        with self._access.authorize_connection(request) as admission:
            rejected = await self._rejected([topic for topic, _ in starts], admission)
            transport = EventStreamTransport(scope, receive, send)
            await transport.begin([_worker_header()])
            hub, claims = self._manager.hub, admission.claims
            client = hub.connect(
                uuid4().hex, owner=claims.owner, address=admission.address, claims=claims.text, has_one_position=True
            )
            subscriptions = WatchedSubscriptions(hub, client, self._manager.rights, needs_one=True)
            try:
                for topic, refusal in rejected.items():
                    subscriptions.answer(refused(*refusal, topic))
                subscriptions.start([start for start in starts if start[0] not in rejected], claims.text)
                await ClientSession(transport, client, self._settings.ping_interval, claims.expires).run()
            finally:
                hub.leave(client)
                subscriptions.close()

    async def _rejected(self, topics: Sequence[Topic], admission: Admission) -> dict[Topic, tuple[str, str]]:
        """Return why a client may not have some of the topics; raise `Rejected` if it may have none."""
        rejected = {topic: FORBIDDEN for topic in topics if not admission.claims.allow(topic)}
        checked = [topic for topic in topics if topic not in rejected]
        if self._manager.rights:
            check = self._manager.rights.check
            verdicts = await asyncio.gather(
                *[check(each, admission.claims.text, admission.address) for each in checked]
            )
            for topic, verdict in zip(checked, verdicts, strict=True):
                if verdict is not Verdict.ALLOWED:
                    rejected[topic] = FORBIDDEN if verdict is Verdict.REFUSED else UNAVAILABLE
        if len(rejected) == len(topics):
            raise _unchecked() if UNAVAILABLE in rejected.values() else other_matches_only()
        return rejected

    async def _serve(self, connection: HTTPConnection, transport: Transport, name: str, admission: Admission) -> None:
        hub, match = self._manager.hub, connection.path_params["match_id"]
        last = last_event_id(connection)
        claims, address, rights = admission.claims, admission.address, self._manager.rights
        client = hub.join(match, name, last, owner=claims.owner, address=address, claims=claims.text)
        stop_watching = rights.watch(match, claims.text, address, client.close) if rights else None
        try:
            await ClientSession(transport, client, self._settings.ping_interval, claims.expires).run()
        finally:
            hub.leave(client)
            if stop_watching:
                stop_watching()

    async def _check_rights(self, match: str, admission: Admission) -> None:
        """Raise `Rejected` unless the team's own query lets a client in."""
        if self._manager.rights is None:
            return
        verdict = await self._manager.rights.check(match, admission.claims.text, admission.address)
        if verdict is Verdict.REFUSED:
            raise other_matches_only()
        if verdict is Verdict.UNKNOWN:
            raise _unchecked()


class _Static(StaticFiles):
    """Files that browsers revalidate."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Add the header to Starlette's response."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_REVALIDATE)
        return response


async def _end_stream_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Have a client come back to another pod: an `EventSource` gives up after any status but 200."""
    refusals.add(Cause.DRAINING, "this worker ends")
    transport = EventStreamTransport(scope, receive, send)
    await transport.begin([_worker_header()])
    await transport.close(CloseCode.SERVICE_RESTART)


async def _page(name: str, _: Request) -> Response:
    return FileResponse(_STATIC / name, headers=_REVALIDATE)


def _unchecked() -> Rejected:
    return try_later("whether the token is good for this match can't be found out now", Cause.UNCHECKED)


def _worker_header() -> tuple[bytes, bytes]:
    return b"x-worker", str(os.getpid()).encode()
