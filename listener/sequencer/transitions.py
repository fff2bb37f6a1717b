"""What a part of the numbering decided about the whole of it."""

from typing import NamedTuple

from notifymux.event import EventId


class Realign(NamedTuple):
    """This listener does not know its place (any more): a new marker."""

    why: str


class BeginEpoch(NamedTuple):
    """Nobody knows the place: a new epoch, which announces a gap to the clients."""

    why: str
    loudly: bool = False


class MarkerFound(NamedTuple):
    """The marker was found in the stream."""

    at: EventId


Transition = Realign | BeginEpoch | MarkerFound | None
