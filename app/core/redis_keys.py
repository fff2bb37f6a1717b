"""The names in Redis, all under one namespace. The braces keep the keys in one slot of a Redis Cluster."""

from typing import NamedTuple

EVENT_FIELD = "event"


class RedisNames(NamedTuple):
    """What everything is called under `namespace`."""

    namespace: str

    @property
    def events(self) -> str:
        """The pub/sub channel."""
        return f"{self.namespace}:events"

    @property
    def log(self) -> str:
        """The stream."""
        return f"{{{self.namespace}}}:log"

    def listener(self, pod: str, uid: str) -> str:
        """The registry's hash of one listener process."""
        return f"{{{self.namespace}}}:listener:{pod}:{uid}"

    @property
    def listeners(self) -> str:
        """The pattern that finds every listener's hash."""
        return f"{{{self.namespace}}}:listener:*"

    def worker(self, pod: str, pid: int) -> str:
        """The registry's hash of one worker process."""
        return f"{{{self.namespace}}}:worker:{pod}:{pid}"

    @property
    def workers(self) -> str:
        """The pattern that finds every worker's hash."""
        return f"{{{self.namespace}}}:worker:*"

    @property
    def processes(self) -> str:
        """The pattern that finds the hash of every listener and every worker, and little else."""
        return f"{{{self.namespace}}}:[lw]*:*:*"

    @property
    def ledger(self) -> str:
        """The stream of what happened."""
        return f"{{{self.namespace}}}:ledger"
