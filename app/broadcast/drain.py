"""How a worker that ends loses its clients: evenly spaced, so that they don't all come back in the same second."""

import asyncio
import logging
from contextlib import suppress

from app.broadcast.client import CloseCode
from app.broadcast.hub import Hub

logger = logging.getLogger(__name__)

_MAX_SPACING_SECONDS = 0.5  # so that a few clients don't hold up a restart
_LOOK_SECONDS = 0.05  # from one look whether all have left to the next
_MAX_BURST_SECONDS = 0.1  # what is closed at once after a pause of this process: whoever was due for so long
_MAX_LATE_SECONDS = 1.5  # that all such pauses may make it last longer


class Drain:
    """Closes all clients of a hub. Those that are still connected go on to hear events.

    Args:
        hub: has the clients.
        seconds: over which they are closed.
    """

    def __init__(self, hub: Hub, seconds: float) -> None:
        self._hub, self._seconds = hub, seconds
        self._is_hurried = asyncio.Event()
        self.is_active = False  # from its begin on: nobody else is to become a client

    async def run(self) -> None:
        """Close the clients evenly over the time, the first one at once. Return when all have left."""
        self.is_active = True
        clients = self._hub.clients
        if clients:
            logger.info("this worker ends: it closes its %d clients over %g s", len(clients), self._seconds)
        spacing = min(self._seconds / max(len(clients), 1), _MAX_SPACING_SECONDS)
        time = asyncio.get_running_loop().time
        due = time()
        end = due + self._seconds + _MAX_LATE_SECONDS
        for client in clients:
            if not client.closing.done():
                due = min(max(due, time() - _MAX_BURST_SECONDS), end)
                await self._wait_until(due)
                client.close(CloseCode.SERVICE_RESTART)
                due += spacing
        while self._hub.clients:  # connections that still close, and clients that were accepted a moment before
            for client in self._hub.clients:
                client.close(CloseCode.SERVICE_RESTART)
            await asyncio.sleep(_LOOK_SECONDS)

    def hurry(self) -> None:
        """Have `run` close all clients now that are left."""
        self._is_hurried.set()

    async def _wait_until(self, due: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._is_hurried.wait()
