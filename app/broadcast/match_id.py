"""A match id as text: ids are equal if their texts are (docs/protocol.md, Match ids).

A string is the text of its characters. A number is that of its value, in decimal without an exponent or needless
zeros: `1`, `1.0` and `1e0` are one id. A path has the text itself.
"""

import re
from decimal import Decimal

import msgspec

# Every double is within it. The exponent of a larger one could make a text of a billion digits out of a few bytes.
_MAX_EXPONENT = 400
_NUMBER_TEXT = re.compile(r"0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]")


def match_from_json(value: bytes) -> str | None:
    """Return the text of an id that is a JSON string or number; None for any other JSON, and for an empty string."""
    if value.isdigit():
        return value.decode()
    if value[:1] == b'"':
        try:
            text: str = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return None  # half of a surrogate pair, which no path can have
        return text or None
    return _decimal(value.decode()) if value[:1] in b"-0123456789" else None


def match_from_claim(value: object) -> str | None:
    """Return the text of an id in a token, whose JSON is decoded; None if it is neither a string nor a finite number.

    A number with a point or an exponent has there the precision of a double.
    """
    match value:
        case str():
            return value
        case bool():
            return None
        case int():
            return str(value)
        case float():
            return _decimal(repr(value))
        case _:
            return None


def match_to_json(text: str) -> bytes:
    """Return an id's text as JSON: as a number if it reads as the text of one."""
    return text.encode() if _NUMBER_TEXT.fullmatch(text) else msgspec.json.encode(text)


def _decimal(number: str) -> str | None:
    try:
        value = Decimal(number)
    except ArithmeticError:
        return None  # an exponent beyond what Decimal holds
    if not value:
        return "0"
    if not value.is_finite() or ("e" in number.lower() and abs(value.adjusted()) > _MAX_EXPONENT):
        return None
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
