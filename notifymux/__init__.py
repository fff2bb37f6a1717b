"""Events through Redis, for any program: the service that publishes and receives them, and the event."""

from notifymux.event import Event, EventId
from notifymux.redis_notifier import NOTIFY_CHANNEL, RedisNotifierService, init_redis_notifier

__all__ = ["NOTIFY_CHANNEL", "Event", "EventId", "RedisNotifierService", "init_redis_notifier"]
