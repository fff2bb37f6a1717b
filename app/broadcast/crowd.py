"""Subscriptions to one topic that wait for the same snapshot."""

import asyncio
from collections.abc import Iterable

from app.broadcast.subscription import Subscription


class Crowd:
    """Those that wait for one snapshot, and the task that waits for them, which they end by leaving."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self.subscriptions = {each for each in subscriptions if each.is_open}
        self._task = asyncio.current_task()

    def leave(self, subscription: Subscription) -> None:
        """Have the task end when nobody is left."""
        self.subscriptions.discard(subscription)
        if not self.subscriptions and self._task:
            self._task.cancel()
