"""Which worker takes a newcomer: a pure decision by how much each worker has to do.

All workers hear of a newcomer at the same time. Those with the least to do take it at once. The others leave it to
them for some milliseconds, the longer the more workers have less to do, and then take it themselves: whoever has least
may be busy, or have been frozen or killed a moment ago. So a newcomer waits for a bounded time, whatever others do.
"""

from collections.abc import Sequence

MAX_PATIENCE_MS = 4
_EVEN_WITHIN = 16  # one part in so many is no difference
_MAX_AT_ONCE = 16  # so that the worker also does something else when many arrive at once


def patience_ms(load: int, others: Sequence[int]) -> int:
    """Return for how many milliseconds a worker leaves newcomers to the others.

    Args:
        load: the connections of the worker.
        others: those of each other worker.
    """
    with_less = sum(_even(other) < load for other in others)
    # uvloop's timers are up to one millisecond early: two are the shortest time that is at least one.
    return min(with_less + 1, MAX_PATIENCE_MS) if with_less else 0


def room(load: int, others: Sequence[int]) -> int:
    """Return how many newcomers a worker takes at once: as many as leave it even with the others, and at least 1.

    Args:
        load: the connections of the worker.
        others: those of each other worker.
    """
    return max(1, min(_even(min(others, default=load)) - load + 1, _MAX_AT_ONCE))


def _even(load: int) -> int:
    """Return the most connections that count as no more than these: exact numbers would cost a crowd time."""
    return load + load // _EVEN_WITHIN
