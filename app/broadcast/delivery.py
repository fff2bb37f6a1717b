"""What one delivery of events sends to each connection: to one with several matches one batch, in commit order."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter

from app.broadcast.client import Client
from app.broadcast.held_updates import HeldUpdates
from app.broadcast.messages import Message, MessageBatch, Update
from app.broadcast.room import Room

Released = Mapping[str, Sequence[Update]]


def shown(updates: Sequence[Update], claims: str) -> list[Message]:
    """Return the messages of updates that have the results of their queries, for clients with these claims."""
    return [update.shown_to(claims) for update in updates]


class Delivery:
    """Sends updates to the clients of their matches. Clients that hear the same of a delivery share one batch.

    Args:
        rooms: by match.
        held: what is held back for clients; None without queries.
        too_slow: is called with a client for which more waits than may.
    """

    def __init__(self, rooms: Mapping[str, Room], held: HeldUpdates | None, too_slow: Callable[[Client], None]) -> None:
        self._rooms, self._held, self._too_slow = rooms, held, too_slow

    def send(self, released: Released) -> None:
        """Send updates that nothing of their own match delays.

        Args:
            released: by match, each of which has subscriptions; in order. A match without updates is one whose first
                update that waits has changed.
        """
        if len(released) == 1 and not (self._held and self._held.may_hold):
            [(match, updates)] = released.items()
            self._send_match(match, updates)
        elif released:
            self._send_merged(released)

    def release(self, client: Client) -> None:
        """Send what no longer has to be held back for a client, since it hears a match less."""
        if self._held and (updates := self._held.pass_on(client, [])):
            self._send(client, MessageBatch(shown(updates, client.claims)))

    def _send_match(self, match: str, updates: Sequence[Update]) -> None:
        for claims, subscriptions in self._rooms[match].groups.items():
            batch = MessageBatch(shown(updates, claims) if self._held else updates)
            for subscription in subscriptions.values():
                if not subscription.send(batch):
                    self._too_slow(subscription.client)

    def _send_merged(self, released: Released) -> None:
        batches = _Batches(released)
        may_hold = self._held is not None and self._held.may_hold
        for client in self._clients(released):
            hears = client.hears or _hears(client)
            if hears is None or may_hold:
                self._send_selected(client, batches)
            else:
                self._send(client, batches.of_matches(client.claims, hears))

    def _clients(self, matches: Iterable[str]) -> set[Client]:
        """Return all that hear any of some matches, or will."""
        return set().union(*[group for match in matches for group in self._rooms[match].groups.values()])

    def _send_selected(self, client: Client, batches: "_Batches") -> None:
        """Send a client what it does not have and what no query holds back, and what was held back until now."""
        updates = batches.select(client)
        if self._held and len(client.subscriptions) > 1:
            updates = self._held.pass_on(client, updates)
            if self._held.exceeds_limit(client):
                self._too_slow(client)
                return
        if updates:
            self._send(client, batches.of(client.claims, updates))

    def _send(self, client: Client, batch: MessageBatch) -> None:
        if not client.send(batch):
            self._too_slow(client)


class _Batches:
    """The batches of one delivery, each built when the first client needs it.

    Args:
        released: by match, in order.
    """

    def __init__(self, released: Released) -> None:
        self._released = released
        self._batches: dict[tuple[str, frozenset[str] | tuple[int, ...]], MessageBatch] = {}

    def of_matches(self, claims: str, matches: frozenset[str]) -> MessageBatch:
        """Return all updates of these matches in commit order, for clients with these claims."""
        batch = self._batches.get((claims, matches))
        if batch is None:
            updates = _by_serial(each for match, each in self._released.items() if match in matches)
            batch = self._batches[claims, matches] = MessageBatch(shown(updates, claims))
        return batch

    def select(self, client: Client) -> Sequence[Update]:
        """Return what a client is to be sent, in commit order: what it hears and does not have."""
        subscriptions = [client.subscriptions[match] for match in self._released if match in client.subscriptions]
        return _by_serial(each.unseen(self._released[each.match]) for each in subscriptions if each.streaming)

    def of(self, claims: str, updates: Sequence[Update]) -> MessageBatch:
        """Return these updates, for clients with these claims."""
        key = claims, tuple(map(id, updates))
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = MessageBatch(shown(updates, claims))
        return batch


def _hears(client: Client) -> frozenset[str] | None:
    """Return the matches of a client, and keep them, if every event of each is sent to it; else None.

    A set that is kept has its hash, by which the batch of all who hear the same is found.
    """
    subscriptions = client.subscriptions.values()
    if all(each.streaming and each.skip_until is None for each in subscriptions):
        client.hears = frozenset(client.subscriptions)
    return client.hears


def _by_serial(parts: Iterable[Sequence[Update]]) -> list[Update]:
    return sorted((update for part in parts for update in part), key=attrgetter("serial"))
