"""The messages of PostgreSQL's streaming replication, and of its output plugin `pgoutput`, without I/O.

https://www.postgresql.org/docs/current/protocol-replication.html and protocol-logicalrep-message-formats.html:
version 2 of the plugin's protocol, with streaming. Only what a reader of messages needs is decoded.
"""

import struct
from collections.abc import Callable, Iterable

from listener.sequencer.wal_message import WalMessage

PREFIX = b"notifymux:"  # of the messages that are forwarded; the channel follows it

_DATA, _KEEPALIVE, _IS_MESSAGE = b"wkM"
_DATA_HEADER_BYTES = 25  # the type, the start and the end of the WAL, and the server's clock
_BODY = _DATA_HEADER_BYTES + 1  # where the fields of a message of the plugin begin, after its type
_KEEPALIVE_BODY = struct.Struct("!QQB")  # the end of the WAL, the server's clock, whether to reply at once
_STATUS = struct.Struct("!cQQQQB")
_BEGIN = struct.Struct("!QQI")  # the LSN of the commit record, its time, the xid
_XID = struct.Struct("!I")
_STREAM_COMMIT = struct.Struct("!IBQ")  # the xid, flags, the LSN of the commit record
_STREAM_ABORT = struct.Struct("!II")  # the xids of the transaction and of the subtransaction
_MESSAGE = struct.Struct("!BQ")  # flags, the LSN
_LENGTH_BYTES = 4
_IS_TRANSACTIONAL = 1
_EPOCH_2000_MICROSECONDS = 946_684_800_000_000


class StreamingNotPossible(Exception):  # noqa: N818 - it is no error
    """Open transactions must not be sent before they commit; the message says why."""


class PgoutputDecoder:
    """Turns the frames of one replication stream into messages, in the order of the commits.

    A large transaction is sent while it is open, so that the server need not keep it on its disk. Its messages are
    held here until it commits. Where a part of it is rolled back after that (a savepoint, an EXCEPTION block), nobody
    can tell which messages that were: `pgoutput` gives them the xid of the whole transaction.

    Args:
        channels: whose messages are returned.
        to_utf8: converts a content out of the database's encoding.
        max_held_bytes: of the messages of all open transactions together.
    """

    def __init__(self, channels: Iterable[str], to_utf8: Callable[[bytes], bytes], max_held_bytes: int) -> None:
        self._channels = {PREFIX + channel.encode(): channel for channel in channels}
        self._to_utf8, self._max_held_bytes = to_utf8, max_held_bytes
        self._commit = self._xid = 0  # of the transaction whose messages follow
        self._streaming: int | None = None  # the open transaction of which a part follows
        self._held: dict[int, list[WalMessage]] = {}  # by the xid of the open transaction
        self._held_bytes = 0
        self.wal_end = 0  # the LSN up to which the server has sent everything
        self.reply_is_due = False  # the server has asked for a status

    def decode(self, frames: Iterable[bytes]) -> list[WalMessage]:
        """Return the messages that are committed with frames, each the content of one CopyData message.

        Raises:
            StreamingNotPossible: open transactions have sent more than `max_held_bytes`, or a part was rolled back.
        """
        messages: list[WalMessage] = []
        for frame in frames:
            if frame[0] == _KEEPALIVE:
                self.wal_end, _, reply = _KEEPALIVE_BODY.unpack_from(frame, 1)
                self.reply_is_due = self.reply_is_due or bool(reply)
            elif frame[0] == _DATA and frame[_DATA_HEADER_BYTES] != _IS_MESSAGE:
                messages += self._decode_transaction(frame)
            elif frame[0] == _DATA and self._streaming is not None:
                self._hold(self._streaming, self._message(frame, _BODY + _XID.size))  # after that of the transaction
            elif frame[0] == _DATA and (message := self._message(frame, _BODY)):
                messages.append(message)
        return messages

    def _decode_transaction(self, frame: bytes) -> list[WalMessage]:
        body = _BODY
        match frame[_DATA_HEADER_BYTES:body]:
            case b"B":
                self._commit, _, self._xid = _BEGIN.unpack_from(frame, body)
            case b"S":
                [self._streaming] = _XID.unpack_from(frame, body)
            case b"E":
                self._streaming = None
            case b"c":
                xid, _, commit = _STREAM_COMMIT.unpack_from(frame, body)
                return [message._replace(xid=xid, commit=commit) for message in self._release(xid)]
            case b"A":
                xid, subtransaction = _STREAM_ABORT.unpack_from(frame, body)
                if self._release(xid) and subtransaction != xid:
                    raise StreamingNotPossible("a part of an open transaction with messages was rolled back")
        return []

    def _message(self, frame: bytes, at: int) -> WalMessage | None:
        """The message whose fields begin at a byte of a frame; None if it is not to be returned."""
        flags, lsn = _MESSAGE.unpack_from(frame, at)
        prefix_end = frame.index(b"\0", at + _MESSAGE.size)
        channel = self._channels.get(frame[at + _MESSAGE.size : prefix_end])
        if channel is None or not flags & _IS_TRANSACTIONAL:
            return None
        payload = frame[prefix_end + 1 + _LENGTH_BYTES :]  # the content is the last field
        return WalMessage(channel, self._to_utf8(payload), self._xid, self._commit, lsn)

    def _hold(self, xid: int, message: WalMessage | None) -> None:
        if message is None:
            return
        self._held.setdefault(xid, []).append(message)
        self._held_bytes += len(message.payload)
        if self._held_bytes > self._max_held_bytes:
            raise StreamingNotPossible(f"open transactions have sent more than {self._max_held_bytes} bytes")

    def _release(self, xid: int) -> list[WalMessage]:
        """Remove what is held of a transaction, and return it."""
        held = self._held.pop(xid, [])
        self._held_bytes -= sum(len(message.payload) for message in held)
        return held


def status_update(received: int, confirmed: int, at: float) -> bytes:
    """Return a standby status update.

    Args:
        received: the LSN up to which everything has been received.
        confirmed: the LSN up to which the slot may forget; 0 leaves it as it is.
        at: the time, Unix seconds.
    """
    clock = int(at * 1_000_000) - _EPOCH_2000_MICROSECONDS
    return _STATUS.pack(b"r", received, confirmed, confirmed, clock, 0)
