"""A token's claims as text, and the part of them that a query names."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.claims import NO_CLAIMS, NO_NAMES, ClaimNames, claims_json

values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)
claims = st.dictionaries(st.sampled_from(["tenant", "role", "sub", "é", "a,b"]), values)


@given(claims, claims, st.sets(st.sampled_from(["tenant", "role", "é"])))
def test_two_tokens_share_a_result_if_and_only_if_the_named_claims_are_equal(
    one: dict[str, Any], other: dict[str, Any], names: set[str]
) -> None:
    named = ClaimNames(frozenset(names))
    parts = [{name: value for name, value in each.items() if name in names} for each in (one, other)]
    texts = [named.of(claims_json(each)) for each in (one, other)]
    # In JSON, true is not 1, though they are equal in Python.
    assert (texts[0] == texts[1]) == (json.dumps(parts[0], sort_keys=True) == json.dumps(parts[1], sort_keys=True))
    assert [json.loads(text) for text in texts] == parts


def test_a_query_gets_all_claims_none_or_those_it_names() -> None:
    text = claims_json({"tenant": 7, "role": "fan"})
    assert ClaimNames(is_all=True).of(text) == '{"role":"fan","tenant":7}'
    assert NO_NAMES.of(text) == NO_CLAIMS == "{}"
    both = ClaimNames(frozenset({"tenant"})) | ClaimNames(frozenset({"role"}))
    assert both.of(text) == text
    assert (bool(both), bool(NO_NAMES), bool(ClaimNames(is_all=True))) == (True, False, True)


def test_claims_are_ascii_and_only_what_json_has() -> None:
    assert claims_json({"é": "\ud800"}) == '{"\\u00e9":"\\ud800"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        claims_json({"exp": float("inf")})
