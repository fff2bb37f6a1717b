"""Clients' tokens: JSON Web Tokens (RFC 7519), signed with HS256 or RS256."""

import warnings
from collections.abc import Collection
from typing import Any, NamedTuple

import jwt


class TokenError(Exception):
    """The token is missing, wrong or expired; the message says which, and nothing of the token itself."""


class Claims(NamedTuple):
    """What a token says that matters here."""

    matches: Collection[str] | None  # those it is good for, None for all
    expires: float | None  # Unix seconds
    operator: bool = False  # whether it is good for the status page and the metrics

    def allow(self, match: str) -> bool:
        """Whether the token is good for a match."""
        return self.matches is None or match in self.matches


class Tokens:
    """Verifies tokens.

    Args:
        key: the secret for HS256, or the public key as PEM for RS256.
        algorithm: the only one that is taken, whatever a token says of itself.
    """

    def __init__(self, key: str, algorithm: str) -> None:
        # A short secret is the operator's to judge, who is told of it at start.
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        self._jwt = jwt.PyJWT({"verify_iat": False, "verify_aud": False})
        self._key, self._algorithm = jwt.get_algorithm_by_name(algorithm).prepare_key(key), algorithm

    def verify(self, token: str | None) -> Claims:
        """The claims of a token.

        Raises:
            TokenError: it can't be trusted.
        """
        if not token:
            raise TokenError("a token is needed: Authorization: Bearer, or ?token=")
        try:
            claims = self._jwt.decode(token, self._key, algorithms=[self._algorithm])
        except jwt.ExpiredSignatureError:
            raise TokenError("the token has expired") from None
        except (jwt.InvalidTokenError, RecursionError, OverflowError, ValueError) as error:
            raise TokenError(f"the token is not valid ({type(error).__name__})") from None
        expires = claims.get("exp")
        expires_at = None if expires is None else float(expires)
        return Claims(_matches(claims), expires_at, claims.get("operator") is True)


def _matches(claims: dict[str, Any]) -> frozenset[str] | None:
    """The claim `matches`, a list of match ids; a number is as good as its digits."""
    matches = claims.get("matches")
    if matches is None:
        return None
    if not isinstance(matches, list):
        raise TokenError("the token's claim matches is not a list")
    return frozenset(str(match) for match in matches)
