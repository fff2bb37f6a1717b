"""Clients' tokens: JSON Web Tokens (RFC 7519), signed with HS256 or RS256."""

import time
import warnings
from collections.abc import Collection
from typing import Any, NamedTuple

from app.broadcast.match_id import match_from_claim
from app.broadcast.topic import KeyValue, Topic
from app.core.claims import NO_CLAIMS, claims_json

LEEWAY_SECONDS = 30  # by which the clock of whoever makes the tokens may differ from this one's

_BY_TOKEN = "token "  # noqa: S105 - before what names an owner by a token, since the token names none


class TokenError(Exception):
    """The token is missing, invalid or expired. The message says which, and contains nothing of the token."""


class Claims(NamedTuple):
    """The claims of a token that are used."""

    topics: Collection[Topic] | None  # for which the token is valid; None for all
    expires: float | None  # when a connection with this token is to be closed, Unix seconds
    operator: bool = False  # whether the token is valid for the status and the metrics
    owner: str | None = None  # to whom a client id belongs that is used with the token; None without tokens
    text: str = NO_CLAIMS  # all claims, as `claims_json` makes them

    def allow(self, topic: Topic) -> bool:
        """Whether the token is valid for a match or another topic."""
        return self.topics is None or topic in self.topics


def is_same_owner(owner: str | None, other: str | None) -> bool:
    """Whether two tokens of one connection may be of the same owner: they have the same `sub`, or neither has one."""
    return owner == other or (_is_token(owner) and _is_token(other))


class Tokens:
    """Verifies tokens.

    Args:
        key: the secret for HS256, or the public key as PEM for RS256.
        algorithm: the only one that is accepted, whatever a token's header says.
        other_keys: the claims that name topics which are no matches.
    """

    def __init__(self, key: str, algorithm: str, other_keys: Collection[str] = ()) -> None:
        import jwt  # noqa: PLC0415 - with cryptography it takes 10 MB, and many workers verify no token

        # Not one warning for each token: gunicorn_conf logs a short secret once, at start.
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        # sub and jti name things of whoever makes the tokens, and may be numbers.
        self._jwt = jwt.PyJWT({"verify_aud": False, "verify_sub": False, "verify_jti": False})
        self._other_keys = other_keys
        self._key, self._algorithm = jwt.get_algorithm_by_name(algorithm).prepare_key(key), algorithm

    def verify(self, token: str | None) -> Claims:
        """Return the claims of a token, or raise `TokenError`."""
        import jwt  # noqa: PLC0415 - as above

        if not token:
            raise TokenError("a token is needed: Authorization: Bearer, or ?token=")
        try:
            claims = self._jwt.decode(token, self._key, algorithms=[self._algorithm], leeway=LEEWAY_SECONDS)
            expires, topics, text = _expires(claims), self._topics(claims), claims_json(claims)
        except jwt.ExpiredSignatureError:
            raise TokenError("the token has expired") from None
        except (jwt.InvalidTokenError, RecursionError, OverflowError, TypeError, ValueError) as error:
            raise TokenError(f"the token is not valid ({type(error).__name__})") from None
        return Claims(topics, expires, claims.get("operator") is True, _owner(claims, token), text)

    def _topics(self, claims: dict[str, Any]) -> frozenset[Topic] | None:
        """Return what the claim `matches` and those of the other keys name; None if there is none of them.

        One of them alone is no right to the rest: events of a match may have the other keys too.
        """
        matches = _ids(claims, "matches")
        named: list[frozenset[Topic]] = [] if matches is None else [frozenset(matches)]
        for key in self._other_keys:
            value = claims.get(key)
            ids = _ids({key: value if value is None or isinstance(value, list) else [value]}, key)
            if ids is not None:
                named.append(frozenset(KeyValue(key, each) for each in ids))
        return frozenset().union(*named) if named else None


def _expires(claims: dict[str, Any]) -> float | None:
    """Return when a connection with a valid token is to be closed.

    That is at `exp`. A token that comes later, within the leeway, is good until the leeway is over.
    """
    if "exp" not in claims:
        return None
    expires = float(claims["exp"])
    return expires if expires > time.time() else expires + LEEWAY_SECONDS


def _owner(claims: dict[str, Any], token: str) -> str:
    """Return the claim `sub`. Without it, each token is another owner: nothing says that two are of the same one."""
    subject = claims.get("sub")
    return f"{_BY_TOKEN}{hash(token)}" if subject is None else f"sub {subject}"


def _is_token(owner: str | None) -> bool:
    return owner is not None and owner.startswith(_BY_TOKEN)


def _ids(claims: dict[str, Any], name: str) -> frozenset[str] | None:
    """Return a claim that is a list of ids, as their texts; None without it."""
    ids = claims.get(name)
    if ids is None:
        return None
    if not isinstance(ids, list):
        raise TokenError(f"the token's claim {name} is not a list")
    texts = frozenset(match_from_claim(each) for each in ids)
    if None in texts:
        raise TokenError(f"the token's claim {name} has an entry that is neither a number nor a string")
    return frozenset(filter(None, texts))
