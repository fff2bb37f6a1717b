"""Who may come in: by token, by the page's origin, and as long as there is room."""

import logging
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from app.web.tokens import Claims, TokenError, Tokens

logger = logging.getLogger(__name__)

_ORIGINS_NAMED = 20  # refused origins that are named in the log


class Rejected(Exception):  # noqa: N818 - it is not an error
    """A connection is refused.

    Args:
        status: HTTP's.
        reason: for people.
        headers: of the response.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.headers = status, headers

    def response(self) -> JSONResponse:
        """What HTTP says of it."""
        return JSONResponse({"error": str(self)}, self.status, self.headers)


class ConnectionLimits(NamedTuple):
    """How many clients a worker takes."""

    clients: int
    per_address: int | None


class AccessControl:
    """Lets clients in and counts them.

    Args:
        tokens: verifies tokens; None: anyone may listen.
        origins: pages that may connect besides those of the same host; `*` for all.
        limits: how many.
    """

    def __init__(self, tokens: Tokens | None, origins: Collection[str], limits: ConnectionLimits) -> None:
        self._tokens, self._origins, self._limits = tokens, frozenset(origins), limits
        self._clients = 0
        self._addresses: Counter[str] = Counter()
        self._origins_named: set[str] = set()
        self._was_full = False

    @contextmanager
    def admit(self, connection: HTTPConnection, match: str) -> Iterator[float | None]:
        """Lets a client of a match in, for as long as the context lasts.

        Returns:
            When it has to leave again: Unix seconds, None for never.

        Raises:
            Refusal: it may not come in.
        """
        self._check_origin(connection)
        claims = self._verify(connection)
        if not claims.allow(match):
            raise Rejected(403, "the token is not good for this match")
        with self._place(connection.client.host if connection.client else ""):
            yield claims.expires

    def admit_operator(self, connection: HTTPConnection) -> float | None:
        """Lets an operator in, who may see everything.

        Returns:
            When it has to leave again: Unix seconds, None for never.

        Raises:
            Refusal: it may not come in.
        """
        self._check_origin(connection)
        claims = self._verify(connection)
        if not claims.operator:
            raise _unauthorized("the token's claim operator is not true")
        return claims.expires

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may connect to `host`, which is what the client calls this server."""
        origin = origin.lower()
        return "*" in self._origins or origin in self._origins or origin.partition("://")[2] == host.lower() != ""

    def _check_origin(self, connection: HTTPConnection) -> None:
        origin = connection.headers.get("origin")
        # Only browsers send one, and no page can keep them from it.
        if origin is None or self.allows_origin(origin, connection.headers.get("host", "")):
            return
        if origin not in self._origins_named and len(self._origins_named) < _ORIGINS_NAMED:
            self._origins_named.add(origin)
            logger.warning("pages of %r are refused: ALLOWED_ORIGINS does not name them", origin)
        raise Rejected(403, "pages of this origin may not connect")

    def _verify(self, connection: HTTPConnection) -> Claims:
        if self._tokens is None:
            return Claims(None, None, operator=True)
        try:
            return self._tokens.verify(_token(connection))
        except TokenError as error:
            raise _unauthorized(str(error)) from None

    @contextmanager
    def _place(self, address: str) -> Iterator[None]:
        self._check_room(address)
        self._clients += 1
        self._addresses[address] += 1
        try:
            yield
        finally:
            self._clients -= 1
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def _check_room(self, address: str) -> None:
        is_full = self._clients >= self._limits.clients
        if is_full and not self._was_full:
            logger.warning("this worker is full: more than MAX_CLIENTS=%d are refused", self._limits.clients)
        self._was_full = is_full
        crowded = self._limits.per_address is not None and self._addresses[address] >= self._limits.per_address
        if is_full or crowded:
            reason = "this worker is full" if is_full else "too many clients of this address"
            raise Rejected(503, reason, {"retry-after": str(random.randint(1, 10))})  # noqa: S311 - spreads a crowd


def _unauthorized(reason: str) -> Rejected:
    return Rejected(401, reason, {"www-authenticate": "Bearer"})


def _token(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else connection.query_params.get("token")
