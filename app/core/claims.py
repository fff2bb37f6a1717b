"""A token's claims as JSON text, and the part of them that a query names."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

NO_CLAIMS = "{}"


def claims_json(claims: Mapping[str, Any]) -> str:
    """Return claims as JSON with sorted keys, so that equal claims have equal texts.

    Raises:
        ValueError: a number is none that JSON has.
    """
    return json.dumps(claims, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class ClaimNames:
    """The claims that a query depends on; clients with the same values of them share its result.

    Args:
        names: these only.
        is_all: every claim of the token instead.
    """

    names: frozenset[str] = frozenset()
    is_all: bool = False

    def __bool__(self) -> bool:
        """Whether it depends on any."""
        return self.is_all or bool(self.names)

    def __or__(self, other: "ClaimNames") -> "ClaimNames":
        """Return the claims that either depends on."""
        return ClaimNames(self.names | other.names, self.is_all or other.is_all)

    def of(self, claims: str) -> str:
        """Return the part of `claims` that is named, both as `claims_json` makes them."""
        return claims if self.is_all else _part(claims, self.names) if self.names else NO_CLAIMS


NO_NAMES = ClaimNames()


@lru_cache(maxsize=1024)
def _part(claims: str, names: frozenset[str]) -> str:
    return claims_json({name: value for name, value in json.loads(claims).items() if name in names})
