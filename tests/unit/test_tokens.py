"""Which tokens are valid, and for which matches."""

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.web.tokens import TokenError, Tokens

SECRET = "a secret that is long enough for HS256, and also long enough for HS512"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = PRIVATE.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def signed(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm)


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


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


def test_a_token_without_matches_is_valid_for_all_and_one_with_an_empty_list_for_none() -> None:
    tokens = Tokens(SECRET, "HS256")
    assert tokens.verify(signed({})).allow("1")
    assert not tokens.verify(signed({"matches": []})).allow("1")


def test_a_token_has_its_expiry() -> None:
    soon = int(time.time()) + 60
    assert Tokens(SECRET, "HS256").verify(signed({"exp": soon})).expires == soon


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
    import hashlib
    import hmac

    signature = base64.urlsafe_b64encode(hmac.new(PUBLIC, body.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    assert "InvalidAlgorithmError" in reason(Tokens(PUBLIC.decode(), "RS256"), f"{body}.{signature}")


def test_the_reason_contains_nothing_of_the_token() -> None:
    token = signed({"matches": [1], "name": "Joan"}, "another secret that is long enough")
    message = reason(Tokens(SECRET, "HS256"), token)
    assert not any(part in message for part in token.split("."))
    assert "Joan" not in message
