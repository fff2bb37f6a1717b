"""The names in Redis, all with one prefix. The braces put the keys into one slot of a Redis Cluster."""

from typing import NamedTuple

DEFAULT_NAMESPACE = "pg_notify"
EVENT_FIELD = "event"  # the field of a stream entry that holds the event


class RedisNames(NamedTuple):
    """The names under `namespace`."""

    namespace: str

    @property
    def events(self) -> str:
        """The pub/sub channel."""
        return f"{self.namespace}:events"

    @property
    def direct(self) -> str:
        """The pub/sub channel of events without an id, which workers hear beside the feed too."""
        return f"{self.namespace}:direct"

    @property
    def log(self) -> str:
        """The stream of events."""
        return f"{{{self.namespace}}}:log"

    @property
    def counts(self) -> str:
        """The hash in which the listeners count the stream's bytes."""
        return f"{{{self.namespace}}}:log:bytes"

    def listener(self, pod: str, instance_id: str) -> str:
        """The registry's hash of one listener process."""
        return f"{{{self.namespace}}}:listener:{pod}:{instance_id}"

    @property
    def listeners(self) -> str:
        """The pattern that matches every listener's hash."""
        return f"{{{self.namespace}}}:listener:*"

    def worker(self, pod: str, instance_id: str) -> str:
        """The registry's hash of one worker process."""
        return f"{{{self.namespace}}}:worker:{pod}:{instance_id}"

    @property
    def workers(self) -> str:
        """The pattern that matches every worker's hash."""
        return f"{{{self.namespace}}}:worker:*"

    @property
    def processes(self) -> str:
        """A pattern that matches the hash of every listener and every worker, and little else."""
        return f"{{{self.namespace}}}:[lw]*:*:*"

    @property
    def ledger(self) -> str:
        """The stream of incidents."""
        return f"{{{self.namespace}}}:ledger"

    @property
    def verify(self) -> str:
        """The key to which `verify` writes; it is deleted at once."""
        return f"{{{self.namespace}}}:verify"
