"""What a worker does once a second."""

import asyncio
from collections.abc import Callable


async def every_second(*calls: Callable[[], None]) -> None:
    """Calls all, again and again, until cancelled."""
    while True:
        await asyncio.sleep(1.0)
        for call in calls:
            call()
