"""The usual implementation with LISTEN in each worker: psycopg's `notifies()`, Starlette, `send_text`."""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

clients: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def listen() -> None:
    """Send each notification to the clients of its match."""
    async with await psycopg.AsyncConnection.connect("", autocommit=True) as connection:
        await connection.execute("LISTEN match_change")
        async for notification in connection.notifies():
            payload = json.loads(notification.payload)
            text = json.dumps({"type": "match-update", **payload})
            for client in list(clients[str(payload["match_id"])]):
                await client.send_text(text)


async def serve(websocket: WebSocket) -> None:
    """Serve one client."""
    await websocket.accept(headers=[(b"x-worker", str(os.getpid()).encode())])
    match = clients[websocket.path_params["match_id"]]
    match.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        match.discard(websocket)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """LISTEN while the worker runs."""
    task = asyncio.create_task(listen())
    yield
    task.cancel()


app = Starlette(routes=[WebSocketRoute("/{match_id}/{client_id}", serve)], lifespan=lifespan)
