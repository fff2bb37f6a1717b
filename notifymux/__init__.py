"""The public package: publish and receive events through Redis, in any program.

It holds the event and its JSON text, the connections to Redis, and `RedisNotifierService`. Both `app` and `listener`
import it; it imports neither, because it also has to work in an environment where `app` is somebody else's package.
Receiving is at most once here. Nothing in this package may repeat an event or change its order; the workers detect
missed events by their ids (`app.sources`).
"""

from notifymux.event import Event, EventId
from notifymux.redis_notifier import NOTIFY_CHANNEL, RedisNotifierService, init_redis_notifier

__all__ = ["NOTIFY_CHANNEL", "Event", "EventId", "RedisNotifierService", "init_redis_notifier"]
