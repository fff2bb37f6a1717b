"""What a phase decides and the sequencer carries out."""

from typing import NamedTuple

from notifymux.event import EventId


class MarkerFound(NamedTuple):
    """The marker is in the stream under this id: ids are known from here on."""

    id: EventId


class Anchored(NamedTuple):
    """The slot has sent the stream's last event again: the ids of what follows it are known."""

    id: EventId
    place: str


class Realign(NamedTuple):
    """The listener does not know its ids, or no longer: it sends a new marker."""

    why: str


class SendBegin(NamedTuple):
    """No listener can continue the epoch: a new one begins, which announces a gap to the clients.

    It is logged as an error where another listener, or the replay window, should have prevented the gap.
    """

    why: str
    is_error: bool = False


class LeaveServer(NamedTuple):
    """This PostgreSQL server is not the right one any more: the session is replaced, which resolves DB_HOST anew."""

    why: str


Transition = MarkerFound | Anchored | Realign | SendBegin | LeaveServer | None
