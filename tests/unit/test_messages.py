"""The messages that clients receive, and the match of an event."""

import json
from typing import Any

import msgspec
import pytest
from websockets.frames import Frame, Opcode

from app.broadcast.messages import PING, Message, MessageBatch, Update, initial_load, recovered, resync
from app.broadcast.router import Router
from app.broadcast.topic import KeyValue, Topic
from notifymux.event import NULL, Event, EventId

ROW = b'{"id": 7, "n": 1.10}'


def event(payload: bytes, channel: str = "match_change", event_id: str | None = "5-6") -> Event:
    return Event(channel, msgspec.Raw(payload), event_id)


def decoded(payload: bytes, channel: str = "match_change", event_id: str | None = "5-6", key: str = "match_id") -> Any:
    """Return an event's update as a client decodes it."""
    update = Router(key).route(event(payload, channel, event_id))
    assert update
    return json.loads(update.text)


def parts(update: Update) -> tuple[str | None, bytes, bytes, bytes]:
    return update.match, bytes(update.match_id), bytes(update.operation), bytes(update.data)


@pytest.mark.parametrize(
    ("channel", "kind", "extra"),
    [
        ("matchdata_change", "match-update", None),
        ("match_change", "match-update", None),
        ("scoreboard_change", "match-update", None),
        ("gameclock_change", "gameclock-update", "gameclock"),
        ("playclock_change", "playclock-update", "playclock"),
        ("football_event_change", "event-update", None),
        ("player_match_change", "players-update", None),
        ("weather", "weather", None),
        ('"ünï\\', '"ünï\\', None),
    ],
)
def test_an_update_of_each_channel(channel: str, kind: str, extra: str | None) -> None:
    payload = b'{"table": "t", "operation": "UPDATE", "match_id": 1, "data": %b, "new_id": 7}' % ROW
    expected: dict[str, object] = {
        "type": kind,
        "id": "5-6",
        "channel": channel,
        "match_id": 1,
        "operation": "UPDATE",
        "data": {"id": 7, "n": 1.1},
    }
    assert decoded(payload, channel) == expected | ({extra: expected["data"]} if extra else {})


def test_the_row_is_passed_on_byte_by_byte() -> None:
    row = b'{"b":1.10,  "a":12345678901234567890123, "b":2}'
    update = Router("match_id").route(event(b'{"match_id":1,"data":%b}' % row))
    assert update
    assert bytes(update.data) == row
    assert b'"data":%b}' % row in update.text


def test_an_event_without_an_id_has_null() -> None:
    assert decoded(b'{"match_id": 1, "data": {}}', event_id=None)["id"] is None


def test_a_payload_without_data_is_its_own_row() -> None:
    update = decoded(b'{"match_id": 1, "score": 3}')
    assert update["data"] == {"match_id": 1, "score": 3}
    assert update["operation"] is None


def test_data_that_is_null_stays_null() -> None:
    assert decoded(b'{"match_id": 1, "operation": "DELETE", "data": null}')["data"] is None


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (b"1", "1"),
        (b"-5", "-5"),
        (b"0", "0"),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b'"a b"', "a b"),
        (b'"1"', "1"),
        (b'"\\u00fc"', "ü"),
        ('"\N{SNOWMAN}"'.encode(), "\N{SNOWMAN}"),
    ],
)
def test_a_match_id_is_a_number_or_a_string(given: bytes, match: str) -> None:
    routed = Router("match_id").route(event(b'{"match_id": %b, "data": 1}' % given))
    assert routed
    assert parts(routed) == (match, given, NULL, b"1")


@pytest.mark.parametrize(
    "payload",
    [
        b"null",
        b"1",
        b'"text"',
        b"[]",
        b"{}",
        b'{"match_id": null}',
        b'{"match_id": true}',
        b'{"match_id": [1]}',
        b'{"match_id": {"a": 1}}',
        b'{"match_id": ""}',
        b'{"Match_Id": 1}',
        b'{"data": {"match_id": 1}}',
    ],
)
def test_a_payload_that_names_no_match_goes_to_no_client(payload: bytes) -> None:
    assert Router("match_id").route(event(payload)) is None


@pytest.mark.parametrize("key", ["game", "key", "match id", "ünï"])
def test_another_key_may_route(key: str) -> None:
    payload = json.dumps({key: "g7", "match_id": 1, "operation": "INSERT", "data": [1]}).encode()
    routed = Router(key).route(event(payload))
    assert routed
    assert parts(routed) == ("g7", b'"g7"', b'"INSERT"', b"[1]")


def test_the_initial_load_has_the_snapshot_and_the_position() -> None:
    assert json.loads(initial_load("1", EventId(5, 6), b'{"a": 1}', None).text) == {
        "type": "initial-load",
        "recovered": False,
        "id": "5-6",
        "match_id": 1,
        "data": {"a": 1},
    }


def test_the_initial_load_after_a_failed_query_has_an_error() -> None:
    message = json.loads(initial_load("1", None, NULL, 'it "failed"').text)
    assert message == {
        "type": "initial-load",
        "recovered": False,
        "id": None,
        "match_id": 1,
        "data": None,
        "error": 'it "failed"',
    }


def test_a_resync_has_a_fresh_snapshot() -> None:
    assert json.loads(resync("x", EventId(5, 0), b"[1]", None).text) == {
        "type": "resync",
        "id": "5-0",
        "match_id": "x",
        "data": [1],
    }


@pytest.mark.parametrize(
    ("match", "given"),
    [
        ("1", 1),
        ("0", 0),
        ("007", "007"),
        ("x", "x"),
        ("1.5", 1.5),
        ("-5", -5),
        ("\u0661", "\u0661"),
        ("\u00b2", "\u00b2"),
        ("", ""),
    ],
)
def test_a_match_id_from_a_path_is_a_number_where_it_is_one(match: str, given: object) -> None:
    assert json.loads(resync(match, None, NULL, None).text)["match_id"] == given


def test_a_client_that_gets_what_it_missed_is_told_so_and_keeps_its_position() -> None:
    message = recovered("1", EventId(5, 6))
    assert message.event_id == "5-6"
    assert json.loads(message.text) == {
        "type": "initial-load",
        "recovered": True,
        "id": "5-6",
        "match_id": 1,
        "data": None,
    }


def test_a_server_sent_event_is_an_id_line_and_a_data_line() -> None:
    message = Router("match_id").route(event(b'{"match_id": 1, "data": {"text": "two\\nlines"}}'))
    assert message
    assert message.sse_chunk == b"id: 5-6\ndata: " + message.text + b"\n\n"
    assert PING.sse_chunks == b'data: {"type":"ping"}\n\n'
    assert initial_load("1", None, NULL, None).sse_chunk.startswith(b"id: \ndata: ")


@pytest.mark.parametrize(
    ("channel", "data", "identified"),
    [
        ("gameclock_change", b'{"id": 7, "s": 1}', True),
        ("gameclock_change", b'{"s": 1, "id": "x"}', True),
        ("gameclock_change", b'{"s": 1}', False),
        ("gameclock_change", b"[1]", False),
        ("gameclock_change", b"null", False),
        ("match_change", b'{"id": 7}', False),
    ],
)
def test_a_row_is_identified_on_the_channels_whose_latest_wins(channel: str, data: bytes, identified: bool) -> None:
    router = Router("match_id", ["gameclock_change", "playclock_change"])
    routed = router.route(event(b'{"match_id": 1, "data": %b}' % data, channel))
    assert routed
    assert (routed.row is not None) == identified


def test_equal_ids_on_two_channels_are_two_rows() -> None:
    router = Router("match_id", ["gameclock_change", "playclock_change"])
    payload = b'{"match_id": 1, "data": {"id": 7}}'
    game, play = (router.route(event(payload, channel)) for channel in ("gameclock_change", "playclock_change"))
    assert game
    assert play
    assert game.row != play.row


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_is_the_one_that_websockets_encodes(size: int) -> None:
    text = b"x" * size
    assert MessageBatch([Message(text)]).websocket_frames == Frame(Opcode.TEXT, text).serialize(mask=False)


def test_a_batch_is_its_messages_one_after_the_other() -> None:
    messages = [Message(b'{"n":%d}' % number, f"5-{number}") for number in range(3)]
    assert MessageBatch(messages).websocket_frames == b"".join(
        MessageBatch([message]).websocket_frames for message in messages
    )
    assert MessageBatch(messages).sse_chunks == b"".join(message.sse_chunk for message in messages)


def test_an_updates_text_is_the_same_each_time() -> None:
    update = Router("match_id").route(event(b'{"match_id": 1, "data": {"id": 7}}', "gameclock_change"))
    assert update
    assert update.text == update.text
    assert update.sse_chunk.endswith(update.text + b"\n\n")


@pytest.mark.parametrize(
    ("payload", "topics", "keys"),
    [
        (
            b'{"game":1,"cup":5,"season":"a"}',
            ("1", KeyValue("cup", "5"), KeyValue("season", "a")),
            b'1,"cup":5,"season":"a"',
        ),
        (b'{"game":1,"cup":null}', ("1",), b"1"),
        (b'{"cup":5.0}', (KeyValue("cup", "5"),), b'null,"cup":5.0'),
        (b'{"game":true,"cup":{},"season":"5"}', (KeyValue("season", "5"),), b'true,"season":"5"'),
        (b'{"game":true,"cup":[5]}', None, b""),
    ],
)
def test_an_event_is_of_each_key_that_its_payload_has(
    payload: bytes, topics: tuple[Topic, ...] | None, keys: bytes
) -> None:
    update = Router("game", other_keys=["cup", "season"]).route(event(payload))
    assert (update.topics if update else None) == topics
    if update:
        assert b',"match_id":%b,"operation":null,' % keys in update.text
