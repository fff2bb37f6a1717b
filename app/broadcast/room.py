"""The clients of one match."""

from app.broadcast.client import Client, ClientKey


class Room:
    """The clients of one match, grouped by their claims: what is shown to a group is the same for all in it."""

    def __init__(self) -> None:
        self._clients: dict[ClientKey, Client] = {}
        self.groups: dict[str, set[Client]] = {}  # by the claims; none is empty

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def clients(self) -> list[Client]:
        """All of them."""
        return list(self._clients.values())

    def add(self, client: Client) -> Client | None:
        """Add a client; return the one with the same key that it replaces."""
        older = self._clients.get(client.key)
        if older:
            self.remove(older)
        self._clients[client.key] = client
        self.groups.setdefault(client.claims, set()).add(client)
        return older

    def remove(self, client: Client) -> None:
        """Remove a client, if it is here."""
        if self._clients.get(client.key) is not client:
            return
        del self._clients[client.key]
        group = self.groups[client.claims]
        group.remove(client)
        if not group:
            del self.groups[client.claims]
