"""The public service under the name that the application's users import; it is `notifymux.redis_notifier`."""

from notifymux.redis_notifier import NOTIFY_CHANNEL, RedisNotifierService, init_redis_notifier

__all__ = ["NOTIFY_CHANNEL", "RedisNotifierService", "init_redis_notifier"]
