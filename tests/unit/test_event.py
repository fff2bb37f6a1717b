"""An event's id and its JSON text."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifymux.event import NULL, Event, EventId, Origin, decode, encode, payload_json

ids = st.builds(EventId, st.integers(0, 2**62), st.integers(0, 2**62))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def received_payload(notified: bytes) -> bytes:
    """The payload that a receiver of the event reads for what was notified."""
    return bytes(decode(encode("c", payload_json(notified), 1.0)).payload)


def _not_json(_: str) -> None:
    raise ValueError


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_text_is_received_as_it_was_notified(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=_not_json)
    except ValueError:
        expected = text
    assert json.loads(received_payload(text.encode())) == expected


@given(json_values, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_valid_json_is_embedded_byte_by_byte_on_one_line(
    value: object, ascii_only: bool, indent: int | str | None
) -> None:
    try:
        notified = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:
        return  # PostgreSQL can't store a lone surrogate
    if b"\\ud" in notified:
        assert json.loads(received_payload(notified)) in (
            value,
            notified.decode(),
        )  # both are valid
    else:
        assert received_payload(notified) == notified.replace(b"\n", b" ")


@given(st.binary(min_size=1))
def test_any_bytes_become_json_that_every_parser_accepts(notified: bytes) -> None:
    json.loads(payload_json(notified).decode())
    assert decode(encode("c", payload_json(notified), 1.0)).channel == "c"


@pytest.mark.parametrize(
    ("notified", "expected"),
    [
        (b"", b"null"),
        (b"null", b"null"),
        (b" 1.10 ", b" 1.10 "),
        (b'{"b":1,"a":12345678901234567890123.0}', b'{"b":1,"a":12345678901234567890123.0}'),
        (b'{"a":1,"a":2}', b'{"a":1,"a":2}'),
        (b"NaN", b'"NaN"'),
        (b"{} {}", b'"{} {}"'),
        (b'{\r\n"a":\n1}', b'{  "a": 1}'),
        (b"two\nlines", rb'"two\nlines"'),
        (b'{"a":1},"id":"9-9"', rb'"{\"a\":1},\"id\":\"9-9\""'),
        (b"\xff", '"\N{REPLACEMENT CHARACTER}"'.encode()),
        (b'"\xff"', '"\\"\N{REPLACEMENT CHARACTER}\\""'.encode()),
    ],
)
def test_a_payload_as_json(notified: bytes, expected: bytes) -> None:
    assert payload_json(notified) == expected


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), json_values)
def test_an_event_is_one_line(text: str, value: object) -> None:
    for notified in (text.encode(), json.dumps(value, indent=2).replace("\n", "\r\n").encode()):
        assert len(encode("c\n", payload_json(notified), 1.0).splitlines()) == 1


@pytest.mark.parametrize("depth", [99, 101, 500])
def test_json_of_a_usual_depth_is_embedded_unchanged(depth: int) -> None:
    notified = b"[" * depth + b"]" * depth
    assert received_payload(notified) == notified


@pytest.mark.parametrize("depth", [1000, 3999])
def test_json_that_is_too_deep_for_a_parser_becomes_a_string(depth: int) -> None:
    notified = b"[" * depth + b"]" * depth
    assert json.loads(received_payload(notified)) == notified.decode()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), ids | st.none(), st.floats(0, 2**33))
def test_an_encoded_event_decodes_to_the_same_fields(channel: str, event_id: EventId | None, at: float) -> None:
    text = encode(channel, b'{"a": 1}', at, event_id)
    event = decode(text)
    assert (event.channel, bytes(event.payload)) == (channel, b'{"a": 1}')
    assert event.id == (str(event_id) if event_id else None)
    assert event.at == pytest.approx(at, abs=0.001)
    assert set(json.loads(text)) == {"id", "channel", "payload", "at"}


def test_the_json_text_is_the_documented_one() -> None:
    text = encode("match_change", b'{"match_id": 1}', 1795375047.801, EventId(1795375047782, 42))
    assert text == (b'{"id":"1795375047782-42","channel":"match_change","payload":{"match_id": 1},"at":1795375047.801}')
    assert encode("a", NULL, 0.0) == b'{"id":null,"channel":"a","payload":null,"at":0.000}'


def test_a_fingerprint_is_written_on_our_own_channel_only() -> None:
    assert decode(encode("c", NULL, 0.0, origin=Origin("abc"))).fingerprint == "abc"
    assert b"fingerprint" not in encode("c", NULL, 0.0)


def test_what_earlier_publishers_send_is_an_event() -> None:
    event = decode(b'{"channel": "match_change", "payload": {"match_id": 1}, "more": [1]}')
    assert event == Event("match_change", msgspec.Raw(b'{"match_id": 1}'))
    assert (event.id, event.at) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b"{}",
        b'{"channel": 1}',
        b'{"channel": "c", "id": 1}',
        b'{"channel": "c", "payload": }',
        b'{"channel": "c"} x',
        b'{"channel": "c", "payload": "\xff"}',
        b'{"channel": "c", "payload": "half',
        b'{"channel": "c", "payload": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_is_not_an_event_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(text)


@given(ids)
def test_an_id_is_parsed_from_its_text(event_id: EventId) -> None:
    assert EventId.parse(str(event_id)) == event_id


@given(ids, ids)
def test_ids_are_ordered_by_epoch_and_then_by_sequence(one: EventId, other: EventId) -> None:
    assert (one < other) == ((one.epoch, one.sequence) < (other.epoch, other.sequence))


@pytest.mark.parametrize("text", ["", "1", "-", "1-", "-1", "1-2-3", "a-1", "1-b", "+1-2", "1 -2", "1_0-2", "\u0661-2"])
def test_what_is_not_an_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an event id"):
        EventId.parse(text)
    with pytest.raises(ValueError, match="is not an event id"):
        _ = Event("c", id=text).parsed_id


def test_an_event_has_its_id_as_numbers_and_the_next_id_is_one_more() -> None:
    assert Event("c").parsed_id is None
    at = Event("c", id="7-41").parsed_id
    assert at == (7, 41)
    assert at.next == EventId(7, 42)
