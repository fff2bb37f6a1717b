"""The public module `notifymux.redis_notifier` under the name by which applications import it."""

from notifymux.redis_notifier import NOTIFY_CHANNEL, RedisNotifierService, init_redis_notifier

__all__ = ["NOTIFY_CHANNEL", "RedisNotifierService", "init_redis_notifier"]
