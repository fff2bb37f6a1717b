"""What a session delivers, as a phase gives it an id."""

import msgspec


class ReceivedNotification(msgspec.Struct, frozen=True, gc=False):
    """A notification, or a message out of the WAL: `payload` is JSON, `at` the wall clock in Unix seconds.

    `place` is where the WAL has it, as `listener.sequencer.wal_place.WalPlace` prints it; empty for a notification.
    """

    channel: str
    payload: bytes
    at: float
    place: str = ""
