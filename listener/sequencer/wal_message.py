"""A message that a replication slot has handed out."""

from typing import NamedTuple


class WalMessage(NamedTuple):
    """A transactional message with one of our prefixes.

    Args:
        channel: the prefix without `notifymux:`.
        payload: UTF-8, whatever the encoding of the database.
        xid: of its transaction, 32 bits.
        commit: the LSN of its transaction's commit record.
        lsn: of the message itself.
    """

    channel: str
    payload: bytes
    xid: int
    commit: int
    lsn: int
