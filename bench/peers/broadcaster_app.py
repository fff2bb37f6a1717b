"""broadcaster on PostgreSQL, as its README has it; the database is in PGHOST and its like."""

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
    """One client."""
    await websocket.accept(headers=[(b"x-worker", str(os.getpid()).encode())])
    async with broadcast.subscribe(channel="match_change") as subscriber:
        async for event in subscriber:
            await websocket.send_text(event.message)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Connected as long as the worker lives."""
    async with broadcast:
        yield


app = Starlette(routes=[WebSocketRoute("/{match_id}/{client_id}", serve)], lifespan=lifespan)
