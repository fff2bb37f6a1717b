"""Clients of one match that wait for the same snapshot."""

import asyncio
from collections.abc import Iterable

from app.broadcast.client import Client


class Crowd:
    """Clients of one match that wait for one snapshot, and the task that waits for them, which they end by leaving."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self.clients = {client for client in clients if not client.closing.done()}
        self._task = asyncio.current_task()

    def leave(self, client: Client) -> None:
        """Have the task end when nobody is left."""
        self.clients.discard(client)
        if not self.clients and self._task:
            self._task.cancel()
