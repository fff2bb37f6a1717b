"""Which match ids are equal, in a payload, in a path, in a token and in what clients receive."""

import json

import jwt
import msgspec
import pytest

from app.broadcast.messages import initial_load
from app.broadcast.router import Router
from app.web.tokens import TokenError, Tokens
from notifymux.event import NULL, Event

SECRET = "a secret that is long enough for HS256"


def routed(match_in_json: str) -> str | None:
    update = Router("match_id").route(Event("c", msgspec.Raw(f'{{"match_id": {match_in_json}}}'.encode())))
    return update.match if update else None


EQUAL = [
    ("1", ["1", "1.0", "1e0", "10e-1", '"1"', "1.000"]),
    ("1000", ["1000", "1e3", "1E+3", "1000.0", '"1000"']),
    ("-5", ["-5", "-5.0", "-50e-1", '"-5"']),
    ("0", ["0", "-0", "0.0", "-0.0", "0e9999", '"0"']),
    ("0.5", ["0.5", "5e-1", "0.50"]),
    ("12345678901234567890123", ["12345678901234567890123", "12345678901234567890123.0"]),
    ("1.0", ['"1.0"']),
    ("a/b", ['"a/b"', '"a\\/b"', '"\\u0061/b"']),
    ("\u00e9", ['"\u00e9"', '"\\u00e9"']),
    ("e\u0301", ['"e\u0301"']),
]


@pytest.mark.parametrize(("text", "written"), EQUAL)
def test_ids_of_one_value_are_equal_however_they_are_written(text: str, written: list[str]) -> None:
    assert {one: routed(one) for one in written} == dict.fromkeys(written, text)


@pytest.mark.parametrize("value", ["1e401", "-1e-999999999", "1e99999999999999999999", '"\\ud800"', '""'])
def test_what_no_path_can_have_is_no_id(value: str) -> None:
    assert routed(value) is None


@pytest.mark.parametrize(
    "text",
    ["1", "-5", "0", "0.5", "-0.5", "12345678901234567890123", "1.0", "01", "-0", "1e3", "+1", "\u0663", "", "x"],
)
def test_the_id_that_a_client_receives_is_the_one_in_its_path(text: str) -> None:
    sent = json.dumps(json.loads(initial_load(text, None, NULL, None).text)["match_id"])
    assert (routed(sent) or "") == text
    assert isinstance(json.loads(sent), str) is (text in {"1.0", "01", "-0", "1e3", "+1", "\u0663", "", "x"})


def test_a_token_names_ids_as_a_payload_does() -> None:
    claims = Tokens(SECRET, "HS256").verify(jwt.encode({"matches": [1.0, 1e3, -5, "a/b", 1e16, "2.0"]}, SECRET))
    permitted = {text for text in ("1", "1000", "-5", "a/b", "10000000000000000", "2", "1.0") if claims.allow(text)}
    assert permitted == {"1", "1000", "-5", "a/b", "10000000000000000"}


@pytest.mark.parametrize("entry", [True, None, [1], {"a": 1}, float("inf"), float("nan")])
def test_a_token_that_names_something_else_as_an_id_is_refused(entry: object) -> None:
    with pytest.raises(TokenError, match="neither a number nor a string"):
        Tokens(SECRET, "HS256").verify(jwt.encode({"matches": [1, entry]}, SECRET))
