"""The HTTP and WebSocket doors."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.hub import SILENT, Client
from app.messages import PING
from app.protocol import ABORT
from app.websocket_manager import MatchDataWebSocketManager

_STATIC = Path(__file__).parent / "static"
_CLOSE_WITHIN = 2.0  # seconds a client has to take its close frame
_SOCKET = "/api/matches/ws/id/{match_id}/{client_id}"
_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def routes() -> list[BaseRoute]:
    """Every door. They expect `state.manager` and `state.ping_interval` on the application."""
    return [
        Route("/", _page("index.html")),
        Route("/demo", _page("demo.html")),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        WebSocketRoute(_SOCKET + "/", match_socket),
        WebSocketRoute(_SOCKET, match_socket),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]


def _page(name: str) -> ASGIApp:
    async def page(_: Request) -> Response:
        return FileResponse(_STATIC / name, headers={"cache-control": "no-cache"})

    return page  # type: ignore[return-value]


async def healthz(_: Request) -> Response:
    """The process is alive."""
    return JSONResponse({"alive": True})


async def readyz(request: Request) -> Response:
    """200 if a canary has passed within the last seconds, by the mode's own path; else 503 with the reasons."""
    manager: MatchDataWebSocketManager = request.app.state.manager
    reasons = manager.unready()
    body = {"ready": not reasons, "mode": manager.mode, "reasons": reasons, "clients": len(manager.hub)}
    return JSONResponse(body, status_code=503 if reasons else 200, headers={"cache-control": "no-store"})


async def match_socket(websocket: WebSocket) -> None:
    """One client of one match, until it leaves or has to."""
    manager: MatchDataWebSocketManager = websocket.app.state.manager
    match, name = websocket.path_params["match_id"], websocket.path_params["client_id"]
    await websocket.accept(headers=[(b"x-worker", str(os.getpid()).encode())])
    client = manager.join(match, name)
    session = _Session(websocket, client, websocket.app.state.ping_interval)
    try:
        await session.run()
    finally:
        manager.leave(client)


class _Session:
    """A client's conversation: what waits for it is sent, what it says is heard, whichever ends first ends both."""

    def __init__(self, websocket: WebSocket, client: Client, ping_interval: float) -> None:
        self._websocket, self._client, self._ping_interval = websocket, client, ping_interval
        self._unanswered = 0

    async def run(self) -> None:
        tasks = [asyncio.create_task(work) for work in (self._send(), self._hear(), self._ping())]
        try:
            ends: list[asyncio.Future[Any]] = [*tasks, self._client.closing]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        self._raise_bugs(results)
        if self._client.closing.done():
            code = self._client.closing.result()
            await self._close(code)

    async def _close(self, code: int) -> None:
        try:
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self._websocket.close(code, Client.reason(code))
        except (WebSocketDisconnect, RuntimeError):
            pass  # the client was faster
        except TimeoutError:
            extension = self._websocket.scope.get("extensions", {}).get(ABORT)
            if extension:
                extension["abort"]()

    @staticmethod
    def _raise_bugs(results: list[BaseException | None]) -> None:
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                raise result

    async def _send(self) -> None:
        while True:
            for text in await self._client.outbox.take():
                await self._websocket.send_text(text.decode())

    async def _hear(self) -> None:
        while (await self._websocket.receive())["type"] == "websocket.receive":
            self._unanswered = 0

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._ping_interval)
            if self._client.outbox.held:
                continue  # it waits for us
            if self._unanswered > 1:
                self._client.close(SILENT)
                return
            self._unanswered += 1
            self._client.outbox.put(PING)


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


def application(manager: MatchDataWebSocketManager, ping_interval: float) -> Starlette:
    """The ASGI application around a manager, which it starts and shuts down.

    Args:
        manager: this worker's.
        ping_interval: seconds between pings to a client.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.manager, app.state.ping_interval = manager, ping_interval
        await manager.startup()
        try:
            yield
        finally:
            await manager.shutdown()

    return Starlette(routes=routes(), middleware=[Middleware(_SecurityHeaders)], lifespan=lifespan)
