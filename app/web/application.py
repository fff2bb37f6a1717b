"""The HTTP and WebSocket doors."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.web.access_control import AccessControl, Rejected
from app.web.client_session import ClientSession, Transport
from app.web.transports import EventStreamTransport, WebSocketTransport
from app.websocket_manager import MatchDataWebSocketManager
from notifymux.event import EventId

logger = logging.getLogger(__name__)

Task = Callable[[], Coroutine[None, None, None]]

_STATIC = Path(__file__).parent / "static"
_SOCKET = "/api/matches/ws/id/{match_id}/{client_id}"
_EVENTS = "/api/matches/{match_id}/events"
_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_CROSS_ORIGIN_HEADERS = ["Authorization", "Cache-Control", "Last-Event-ID"]  # what clients of event streams may send


class ClientRoutes:
    """Who is let in is served by this worker's manager.

    Args:
        manager: this worker's.
        admission: lets clients in.
        origins: pages of other hosts that may read event streams.
        ping_interval: seconds between pings to a client.
        status_page: whether there is one.
    """

    def __init__(
        self,
        manager: MatchDataWebSocketManager,
        admission: AccessControl,
        origins: Sequence[str],
        ping_interval: float,
        status_page: bool,
    ) -> None:
        self._manager, self._admission, self._ping_interval = manager, admission, ping_interval
        self._status_page = status_page
        self._cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_headers=_CROSS_ORIGIN_HEADERS,
            expose_headers=["Retry-After"],
        )

    def routes(self) -> list[BaseRoute]:
        """Every door."""
        return [
            *([Route("/", _page("index.html"))] if self._status_page else []),
            Route("/demo", _page("demo.html")),
            Route("/healthz", healthz),
            Route("/readyz", self.readyz),
            WebSocketRoute(_SOCKET + "/", self.match_socket),
            WebSocketRoute(_SOCKET, self.match_socket),
            Route(_EVENTS, self.match_events, methods=["GET", "OPTIONS"], middleware=[self._cors]),
            Mount("/static", _Static(directory=_STATIC), middleware=[self._cors]),
        ]

    async def readyz(self, _: Request) -> Response:
        """200 if a canary has passed within the last seconds, by the mode's own path; else 503 with the reasons."""
        reasons = self._manager.unready()
        clients = len(self._manager.hub)
        state = "broken" if self._manager.broken else "degraded" if reasons else "ready"
        body = {
            "ready": not reasons,
            "state": state,
            "mode": self._manager.mode,
            "reasons": reasons,
            "clients": clients,
        }
        return JSONResponse(body, status_code=503 if reasons else 200, headers={"cache-control": "no-store"})

    async def match_socket(self, websocket: WebSocket) -> None:
        """One client of one match over a WebSocket, until it leaves or has to."""
        try:
            with self._admission.admit(websocket, websocket.path_params["match_id"]) as expires:
                await websocket.accept(headers=[_worker()])
                await self._talk(websocket, WebSocketTransport(websocket), websocket.path_params["client_id"], expires)
        except Rejected as refusal:
            await websocket.send_denial_response(refusal.response())
        except WebSocketDisconnect:
            pass  # it was gone before it was in

    async def match_events(self, request: Request) -> ASGIApp:
        """One client of one match as server-sent events, until it leaves or has to."""

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                with self._admission.admit(request, request.path_params["match_id"]) as expires:
                    wire = EventStreamTransport(scope, receive, send)
                    await wire.begin([_worker()])
                    await self._talk(request, wire, uuid4().hex, expires)
            except Rejected as refusal:
                await refusal.response()(scope, receive, send)

        return stream if request.method == "GET" else Response(status_code=204)

    async def _talk(self, connection: HTTPConnection, wire: Transport, name: str, expires: float | None) -> None:
        client = self._manager.join(connection.path_params["match_id"], name, _last_event_id(connection))
        try:
            await ClientSession(wire, client, self._ping_interval, expires).run()
        finally:
            self._manager.leave(client)


class _Static(StaticFiles):
    """Files that are asked for anew each time: after an upgrade, a page is not made of two versions."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Starlette's, with a header."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def _page(name: str) -> ASGIApp:
    async def page(_: Request) -> Response:
        return FileResponse(_STATIC / name, headers={"cache-control": "no-cache"})

    return page  # type: ignore[return-value]


async def healthz(_: Request) -> Response:
    """The process is alive."""
    return JSONResponse({"alive": True})


def _worker() -> tuple[bytes, bytes]:
    return b"x-worker", str(os.getpid()).encode()


def _last_event_id(connection: HTTPConnection) -> EventId | None:
    """What the client heard last, by its word; None if it says nothing that makes sense."""
    text = connection.headers.get("last-event-id") or connection.query_params.get("last_event_id", "")
    try:
        return EventId.parse(text)
    except ValueError:
        return None


class _SecurityHeaders:
    """Puts the same headers on every HTTP response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def application(manager: MatchDataWebSocketManager, routes: Sequence[BaseRoute], tasks: Iterable[Task]) -> Starlette:
    """The ASGI application around a manager, which it starts and shuts down; `tasks` run as long."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await manager.startup()
        running = [asyncio.create_task(task()) for task in tasks]
        for task in running:
            task.add_done_callback(_report_bug)
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await manager.shutdown()

    return Starlette(routes=routes, middleware=[Middleware(_SecurityHeaders)], lifespan=lifespan)


def _report_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.critical("a bug ended a part of this worker", exc_info=error)
