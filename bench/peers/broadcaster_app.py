"""broadcaster on PostgreSQL, as in its README. The database is in PGHOST and the other variables of libpq."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

if TYPE_CHECKING:
    Broadcast: Any
else:
    from broadcaster import Broadcast

broadcast = Broadcast("postgresql://")


async def serve(websocket: WebSocket) -> None:
    """Serve one client."""
    await websocket.accept(headers=[(b"x-worker", str(os.getpid()).encode())])
    async with broadcast.subscribe(channel="match_change") as subscriber:
        async for event in subscriber:
            await websocket.send_text(event.message)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Connect while the worker runs."""
    async with broadcast:
        yield


app = Starlette(routes=[WebSocketRoute("/{match_id}/{client_id}", serve)], lifespan=lifespan)
