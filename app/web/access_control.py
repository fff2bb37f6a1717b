"""Access control: by the page's origin, by token, and by the number of clients."""

import random
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from app.monitoring.refusals import Cause
from app.web.client_address import client_address
from app.web.origins import canonical_origin, is_of_host
from app.web.tokens import Claims, TokenError, Tokens, is_same_owner

_MAX_RETRY_AFTER_SECONDS = 10


class Rejected(HTTPException):
    """A connection is refused. The response, also to a WebSocket's handshake, has the reason as JSON.

    Args:
        status: of the response.
        cause: for the metric.
        reason: for the client and for the log; one of a few texts.
        headers: of the response.
        details: for the log only; may come from the client.
    """

    def __init__(
        self, status: int, cause: Cause, reason: str, headers: dict[str, str] | None = None, details: str = ""
    ) -> None:
        super().__init__(status, reason, headers)
        self.cause, self.details = cause, details


def try_later(reason: str, cause: Cause = Cause.FULL) -> Rejected:
    """Return a rejection that may be over soon, after which each client comes back at another time."""
    return _unavailable(cause, reason, random.randint(1, _MAX_RETRY_AFTER_SECONDS))  # noqa: S311 - spreads clients


def try_elsewhere() -> Rejected:
    """Return the rejection of a client by a worker that ends: another pod takes it."""
    return _unavailable(Cause.DRAINING, "this worker ends", 1)


def _unavailable(cause: Cause, reason: str, retry_after: int) -> Rejected:
    return Rejected(503, cause, reason, {"retry-after": str(retry_after)})


def other_matches_only() -> Rejected:
    """Return the rejection of a client whose token is not good for a match, which may not exist either."""
    return Rejected(403, Cause.MATCH, "the token is not good for this match")


class Admission(NamedTuple):
    """What is known of a client that is accepted."""

    claims: Claims  # of its token
    address: str


class AccessControl:
    """Decides whether a connection is accepted, and counts clients.

    Args:
        tokens: verifies tokens; None: no token is needed.
        origins: origins whose pages may connect, besides the server's own; `*` for all.
        max_clients: the most clients of this worker.
        max_per_address: the most of them from one address; None for no limit.
    """

    def __init__(
        self, tokens: Tokens | None, origins: Collection[str], max_clients: int, max_per_address: int | None = None
    ) -> None:
        self._tokens, self._origins = tokens, frozenset(map(canonical_origin, origins))
        self._max_clients, self._max_per_address = max_clients, max_per_address
        self._clients = 0
        self._addresses: Counter[str] = Counter()

    @contextmanager
    def authorize_client(self, connection: HTTPConnection, match: str) -> Iterator[Admission]:
        """Accept a client of a match, or raise `Rejected`; count it for as long as the context lasts."""
        claims = self._authenticate(connection)
        if not claims.allow(match):
            raise other_matches_only()
        with self._admit(connection, claims) as admission:
            yield admission

    @contextmanager
    def authorize_connection(self, connection: HTTPConnection) -> Iterator[Admission]:
        """Do the same for a client of many matches, of which its claims may allow some."""
        with self._admit(connection, self._authenticate(connection)) as admission:
            yield admission

    def renew(self, old: Claims, token: str) -> Claims:
        """Return the claims of another token for a client that is connected.

        Raises:
            TokenError: the token is not valid, or of another owner.
        """
        if self._tokens is None:
            return old
        claims = self._tokens.verify(token)
        if not is_same_owner(old.owner, claims.owner):
            raise TokenError("the token is of another owner: its claim sub differs")
        return claims

    def authorize_operator(self, connection: HTTPConnection) -> float | None:
        """Accept an operator, who may read the status and the metrics, or raise `Rejected`. It is not counted.

        Return when the connection is to be closed, in Unix seconds; None for never.
        """
        claims = self._authenticate(connection)
        if not claims.operator:
            raise _unauthorized("the token's claim operator is not true")
        return claims.expires

    def is_operator(self, connection: HTTPConnection) -> bool:
        """Whether `authorize_operator` would accept a connection."""
        try:
            self.authorize_operator(connection)
        except Rejected:
            return False
        return True

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may connect to `host`, which is the client's name for this server."""
        return "*" in self._origins or canonical_origin(origin) in self._origins or is_of_host(origin, host)

    def _authenticate(self, connection: HTTPConnection) -> Claims:
        self._check_origin(connection)
        if self._tokens is None:
            return Claims(None, None, operator=True)
        try:
            return self._tokens.verify(_token(connection))
        except TokenError as error:
            raise _unauthorized(str(error)) from None

    def _check_origin(self, connection: HTTPConnection) -> None:
        origin = connection.headers.get("origin")
        # Every browser sends this header, and no page can prevent it. Other programs don't.
        host = connection.headers.get("host", "")
        if origin is None or self.allows_origin(origin, host):
            return
        details = f"ALLOWED_ORIGINS does not name {origin}, and Host is {host}"
        raise Rejected(403, Cause.ORIGIN, "pages of this origin may not connect", details=details)

    @contextmanager
    def _admit(self, connection: HTTPConnection, claims: Claims) -> Iterator[Admission]:
        address = client_address(connection.client and connection.client.host)
        self._check_limits(address)
        self._clients += 1
        self._addresses[address] += 1
        try:
            yield Admission(claims, address)
        finally:
            self._clients -= 1
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def _check_limits(self, address: str) -> None:
        if self._clients >= self._max_clients:
            raise try_later("this worker is full")
        if self._max_per_address is not None and self._addresses[address] >= self._max_per_address:
            raise try_later("too many clients of this address")


def _unauthorized(reason: str) -> Rejected:
    return Rejected(401, Cause.TOKEN, reason, {"www-authenticate": "Bearer"})


def _token(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else connection.query_params.get("token")
