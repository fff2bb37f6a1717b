"""Where a worker is in the feed (rule 14 of docs/numbering.md): which lines it is sent next."""

from typing import NamedTuple, Protocol

import msgspec

from notifymux.event import EventId

PAUSED = b'{"feed":{"position":null,"oldest":null}}'


class FeedSource(Protocol):
    """An epoch whose events are fed; `listener.sequencer.active.Active` is one."""

    epoch: int

    def feed_range(self) -> range | None:
        """The sequences of its events; None while the stream is not known to have its last begin."""

    def feed_texts(self, start: int) -> list[bytes]:
        """Return texts from a sequence on, not more than one batch."""

    def keep_from(self, sequence: int) -> None:
        """Remember texts from a sequence on, for a worker that is behind."""


class FeedCursor(NamedTuple):
    """The place of one worker.

    Args:
        next: the id of the text that it is sent next; None for the oldest.
        epoch: the epoch that it was last told of; 0 for a pause, None for nothing yet.
    """

    next: EventId | None
    epoch: int | None = None

    def advance(self, source: FeedSource | None) -> tuple[list[bytes], "FeedCursor"]:
        """Return the next lines, not more than one batch of texts, and the place after them.

        A line is a text of the stream, or says what is fed from here on: `{"feed": {"position": "E-S", "oldest":
        "E-S"}}`, both null while nothing is. Texts follow each other without a gap, unless the worker is so far behind
        that they are not remembered any more.
        """
        if source is None:
            return ([] if self.epoch == 0 else [PAUSED]), self._replace(epoch=0)
        if (sequences := source.feed_range()) is None:
            return [], self
        lines = []
        if source.epoch != self.epoch:
            lines.append(_announcement(source.epoch, sequences))
        is_same = self.next is not None and self.next.epoch == source.epoch
        start = max(self.next.sequence if self.next and is_same else 0, sequences.start)
        if start < sequences.stop:
            texts = source.feed_texts(start)
            lines += texts
            start += len(texts)
        return lines, FeedCursor(EventId(source.epoch, start), source.epoch)


def _announcement(epoch: int, sequences: range) -> bytes:
    feed = {"position": f"{epoch}-{sequences.stop - 1}", "oldest": f"{epoch}-{sequences.start}"}
    return msgspec.json.encode({"feed": feed})
