"""The public package: publish and receive events through Redis, in any program.

It holds the event and its JSON text, the names in Redis and the connections to it, `RedisNotifierService`, and what
follows the stream: `follow` for any program, and the same classes for the workers. Both `app` and `listener` import it;
it imports neither, because it also has to work in an environment where `app` is somebody else's package.

`RedisNotifierService` receives at most once. `follow` detects missed events by their ids and yields every event once,
or a gap. Nothing in this package may repeat an event or change its order.
"""

from notifymux.event import Event, EventId
from notifymux.follower import Follower, follow
from notifymux.redis_notifier import NOTIFY_CHANNEL, RedisNotifierService, init_redis_notifier
from notifymux.sequence_tracker import Gap, GapReason

__all__ = [
    "NOTIFY_CHANNEL",
    "Event",
    "EventId",
    "Follower",
    "Gap",
    "GapReason",
    "RedisNotifierService",
    "follow",
    "init_redis_notifier",
]
