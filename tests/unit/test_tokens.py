"""Which tokens are valid, and for which matches."""

import base64
import hashlib
import hmac
import json
import time
from contextlib import suppress
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from app.broadcast.topic import KeyValue, Topic
from app.web.tokens import LEEWAY_SECONDS, TokenError, Tokens

SECRET = "a secret that is long enough for HS256, and also long enough for HS512"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = PRIVATE.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def signed(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm)


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def signed_parts(claims: dict[str, Any] | str) -> list[str]:
    """Sign claims that PyJWT would not: it checks some types. A text is the claims' JSON."""
    body = claims if isinstance(claims, str) else json.dumps(claims)
    parts = [base64.urlsafe_b64encode(each.encode()).rstrip(b"=") for each in ('{"alg":"HS256"}', body)]
    signature = hmac.new(SECRET.encode(), b".".join(parts), hashlib.sha256).digest()
    return [each.decode() for each in (*parts, base64.urlsafe_b64encode(signature).rstrip(b"="))]


def reason(tokens: Tokens, token: str | None) -> str:
    with pytest.raises(TokenError) as caught:
        tokens.verify(token)
    return str(caught.value)


def test_a_token_is_valid_for_the_matches_it_names_numbers_and_strings() -> None:
    claims = Tokens(SECRET, "HS256").verify(signed({"matches": [1, "final"]}))
    assert claims.allow("1")
    assert claims.allow("final")
    assert not claims.allow("2")
    assert claims.expires is None


def test_a_token_that_names_values_of_any_key_is_valid_for_these_only() -> None:
    tokens = Tokens(SECRET, "HS256", ("cup", "season"))
    five, six, season = KeyValue("cup", "5"), KeyValue("cup", "6"), KeyValue("season", "5")
    given: list[tuple[dict[str, Any], set[Topic]]] = [
        ({}, {"5", five, six, season}),
        ({"cup": None, "other": 7}, {"5", five, six, season}),
        ({"matches": [5]}, {"5"}),
        ({"cup": 5}, {five}),
        ({"cup": "5"}, {five}),
        ({"cup": [5, "6"], "matches": []}, {five, six}),
        ({"cup": [], "season": 5.0}, {season}),
    ]
    for claims, allowed in given:
        verified = tokens.verify(signed(claims))
        assert {topic for topic in ("5", five, six, season) if verified.allow(topic)} == allowed
    for wrong in ({"id": 5}, True, [[5]], [None]):
        assert reason(tokens, signed({"cup": wrong})) == (
            "the token's claim cup has an entry that is neither a number nor a string"
        )


def test_a_token_without_matches_is_valid_for_all_and_one_with_an_empty_list_for_none() -> None:
    tokens = Tokens(SECRET, "HS256")
    assert tokens.verify(signed({})).allow("1")
    assert not tokens.verify(signed({"matches": []})).allow("1")


def test_a_token_has_its_expiry() -> None:
    soon = int(time.time()) + 60
    assert Tokens(SECRET, "HS256").verify(signed({"exp": soon})).expires == soon


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_from_a_clock_that_is_up_to_30_seconds_ahead_is_valid(claim: str) -> None:
    assert LEEWAY_SECONDS == 30
    tokens = Tokens(SECRET, "HS256")
    assert tokens.verify(signed({claim: time.time() + 25})).allow("1")
    assert reason(tokens, signed({claim: time.time() + 40})) == "the token is not valid (ImmatureSignatureError)"


def test_a_token_that_comes_up_to_30_seconds_after_its_expiry_is_valid_until_these_are_over() -> None:
    tokens, expiry = Tokens(SECRET, "HS256"), int(time.time()) - 20
    assert tokens.verify(signed({"exp": expiry})).expires == expiry + 30
    assert reason(tokens, signed({"exp": expiry - 20})) == "the token has expired"


@pytest.mark.parametrize("name", ["sub", "jti", "iss", "aud"])
@pytest.mark.parametrize("claim", [7, "seven", 7.5, None, ["7"], {"id": 7}])
def test_claims_that_name_things_of_whoever_makes_the_tokens_may_be_anything(name: str, claim: object) -> None:
    token = ".".join(signed_parts({name: claim}))
    assert Tokens(SECRET, "HS256").verify(token).allow("1")


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, "1e400", "NaN", "9" * 5000, "null", "[1]", "{}", '"x"'])
def test_a_time_that_is_none_is_valid_or_refused_with_a_reason(claim: str, number: str) -> None:
    token = ".".join(signed_parts(f'{{"{claim}": {number}}}'))
    with suppress(TokenError):  # an exception of any other kind would be a response 500
        Tokens(SECRET, "HS256").verify(token)


def test_an_expiry_of_400_digits_is_refused_with_a_reason() -> None:
    token = ".".join(signed_parts(f'{{"exp": {"9" * 400}}}'))
    assert reason(Tokens(SECRET, "HS256"), token) == "the token is not valid (OverflowError)"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=6,
)
_CLAIM_NAMES = st.sampled_from(["exp", "nbf", "iat", "sub", "jti", "iss", "aud", "matches", "operator", "other"])


@given(st.dictionaries(_CLAIM_NAMES, _JSON))
def test_whatever_is_signed_is_valid_or_refused_with_a_reason(claims: dict[str, Any]) -> None:
    with suppress(TokenError):
        Tokens(SECRET, "HS256").verify(".".join(signed_parts(claims)))


def test_a_token_signed_with_the_private_key_is_verified_with_the_public_key() -> None:
    token = jwt.encode({"matches": [1]}, PRIVATE, "RS256")
    assert Tokens(PUBLIC.decode(), "RS256").verify(token).allow("1")


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (None, "a token is needed"),
        ("", "a token is needed"),
        ("x", "not valid"),
        ("a.b.c", "not valid"),
        ("é.ü.ß", "not valid"),
        (signed({}, "another secret that is long enough"), "not valid (InvalidSignatureError)"),
        (signed({}, algorithm="HS512"), "not valid (InvalidAlgorithmError)"),
        (unsigned({"alg": "none"}, {}), "not valid"),
        (unsigned({"alg": "HS256"}, {}), "not valid"),
        (signed({"exp": 1}), "the token has expired"),
        (signed({"nbf": 2**40}), "not valid (ImmatureSignatureError)"),
        (signed({"exp": "soon"}), "not valid"),
        (signed({"matches": "1"}), "matches is not a list"),
        (signed({"matches": {"1": True}}), "matches is not a list"),
        (unsigned({"alg": "HS256"}, {"a": "["}) + "." * 5, "not valid"),
        ("." * 100_000, "not valid"),
        (unsigned({"alg": "HS256", "crit": ["x"]}, {}), "not valid"),
    ],
)
def test_an_invalid_token_is_refused_with_the_reason(token: str | None, expected: str) -> None:
    assert expected in reason(Tokens(SECRET, "HS256"), token)


def test_a_public_key_is_not_accepted_as_a_secret() -> None:
    """A known attack: HS256 with the public key, which is no secret, as the secret."""
    forged = unsigned({"alg": "HS256", "typ": "JWT"}, {"matches": [1]})
    body = forged.rpartition(".")[0]
    signature = base64.urlsafe_b64encode(hmac.new(PUBLIC, body.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    assert "InvalidAlgorithmError" in reason(Tokens(PUBLIC.decode(), "RS256"), f"{body}.{signature}")


def test_the_reason_contains_nothing_of_the_token() -> None:
    token = signed({"matches": [1], "name": "Joan"}, "another secret that is long enough")
    message = reason(Tokens(SECRET, "HS256"), token)
    assert not any(part in message for part in token.split("."))
    assert "Joan" not in message
