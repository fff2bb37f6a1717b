"""The same as plain_listen with picows: `python -m bench.programs.picows_server PORT`."""

import asyncio
import json
import sys
from collections import defaultdict

import psycopg
import uvloop
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

clients: defaultdict[str, set[WSTransport]] = defaultdict(set)


class Client(WSListener):
    """One client."""

    def __init__(self, match: str) -> None:
        super().__init__()
        self.match = match

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Add the client to its match."""
        clients[self.match].add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Remove the client from its match."""
        clients[self.match].discard(transport)


async def listen() -> None:
    """Send each notification to the clients of its match."""
    async with await psycopg.AsyncConnection.connect("", autocommit=True) as connection:
        await connection.execute("LISTEN match_change")
        async for notification in connection.notifies():
            payload = json.loads(notification.payload)
            text = json.dumps({"type": "match-update", **payload}).encode()
            for client in list(clients[str(payload["match_id"])]):
                client.send(WSMsgType.TEXT, text)


async def main(port: int) -> None:
    """Serve clients until the process is killed."""

    def accept(request: WSUpgradeRequest) -> Client:
        return Client(request.path.decode().split("/")[1])

    server = await ws_create_server(accept, "127.0.0.1", port, enable_auto_ping=False)
    task = asyncio.create_task(listen())
    sys.stdout.write("listening\n")
    async with server:
        await task


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
