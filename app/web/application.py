"""The ASGI application: starts and shuts down the manager, and adds what all responses have in common."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.broadcast.drain import Drain
from app.core.tasks import cancel_tasks, start_task
from app.monitoring.refusals import refusals
from app.web.access_control import Rejected
from app.web.connection_limit import ConnectionLimit
from app.web.uvicorn_protocols import CONNECTIONS
from app.web.uvicorn_server import DRAIN
from app.websocket_manager import MatchDataWebSocketManager

Task = Callable[[], Coroutine[None, None, None]]

_SECURITY_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def application(
    manager: MatchDataWebSocketManager, routes: Sequence[BaseRoute], tasks: Iterable[Task], connections: ConnectionLimit
) -> Starlette:
    """Return the application around a manager; `tasks` run for as long as it does.

    `connections` is for the server's protocol, and the manager's drain for the server. Each finds its own in the
    application's state.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, ConnectionLimit | Drain]]:
        await manager.startup()
        running = [start_task(task(), "a bug ended a part of this worker") for task in tasks]
        try:
            yield {CONNECTIONS: connections, DRAIN: manager.drain}
        finally:
            await cancel_tasks(running)
            await manager.shutdown()

    app = Starlette(
        routes=routes,
        middleware=[Middleware(_security_headers)],
        exception_handlers={HTTPException: _refuse},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would lead to whatever host the request names
    return app


def _security_headers(app: ASGIApp) -> ASGIApp:
    async def app_with_headers(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_SECURITY_HEADERS]
            await send(message)

        await app(scope, receive, send_with_headers if scope["type"] == "http" else send)

    return app_with_headers


async def _refuse(_: Request, error: Exception) -> Response:
    """Return the reason as JSON. Its `server` tells a client that a proxy on the way did not make the response.

    Starlette sends this response to a WebSocket's handshake too, since uvicorn has the extension for it.
    """
    refusal = cast("HTTPException", error)
    if isinstance(refusal, Rejected):
        refusals.add(refusal.cause, refusal.detail, refusal.details)
    return JSONResponse({"error": refusal.detail, "server": "notifymux"}, refusal.status_code, refusal.headers)
