"""WebSocket clients that break the protocol, after they were let in."""

import struct

import pytest

from tests.http.raw_client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawClient, frame, frames
from tests.http.server import Server

BROKEN = {
    "an unknown data opcode": (1002, frame(0x3, b"x")),
    "an unknown control opcode": (1002, frame(0xB)),
    "not masked": (1002, frame(TEXT, b"x", masked=False)),
    "a first reserved bit": (1002, frame(TEXT, b"x", flags=0x40)),
    "all reserved bits": (1002, frame(TEXT, b"x", flags=0x70)),
    "a ping in fragments": (1002, frame(PING, b"x", fin=False)),
    "a close in fragments": (1002, frame(CLOSE, b"\x03\xe8", fin=False)),
    "a ping of 126 bytes": (1002, frame(PING, b"x" * 126)),
    "a pong of 64 KiB": (1009, frame(PONG, b"x" * 65536)),
    "a continuation of nothing": (1002, frame(CONTINUATION, b"x")),
    "a text within a text": (1002, frame(TEXT, b"x", fin=False) + frame(TEXT, b"x")),
    "a close of one byte": (1002, frame(CLOSE, b"\x03")),
    "a close with a code that nobody may send": (1002, frame(CLOSE, struct.pack("!H", 1005))),
    "a close with a code out of range": (1002, frame(CLOSE, struct.pack("!H", 7))),
    "a close whose reason is not text": (1007, frame(CLOSE, b"\x03\xe8\xff")),
    "a text that is none": (1007, frame(TEXT, b"\xff\xfe")),
    "a text cut within a character": (1007, frame(TEXT, "ü".encode()[:1])),
    "a text that is none, in fragments": (1007, frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"\xff")),
    "a surrogate": (1007, frame(TEXT, b"\xed\xa0\x80")),
    "a text that is none, before a close": (1000, frame(TEXT, b"\xff") + frame(CLOSE, b"\x03\xe8")),
    "4,097 bytes": (1009, frame(TEXT, b"x" * 4097)),
    "4,097 bytes in fragments": (1009, frame(BINARY, b"x" * 4000, fin=False) + frame(CONTINUATION, b"x" * 97)),
    "2^63 - 1 bytes, by its word": (1009, struct.pack("!BBQI", 0x82, 0xFF, 2**63 - 1, 0)),
    "1,001 messages": (1008, frame(TEXT, b"x") * 1001),
    "60,000 pings": (1008, frame(PING) * 60_000),
    "60,000 pongs": (1008, frame(PONG) * 60_000),
    "60,000 fragments of nothing": (1008, frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 60_000),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_client_that_breaks_the_protocol_is_closed_with_the_documented_code(house: Server, case: str) -> None:
    code, said = BROKEN[case]
    with house.unharmed(), RawClient(house.port).enter() as stranger:
        assert stranger.say(said).closed() == code


def test_a_client_may_say_what_it_likes_within_bounds(house: Server) -> None:
    with house.unharmed(), RawClient(house.port).enter() as stranger:
        fragments = frame(TEXT, b"x" * 4000, fin=False) + frame(PING, b"amid") + frame(CONTINUATION, b"x" * 96)
        stranger.say(fragments + frame(BINARY, b"\xff" * 4096) + frame(PONG, b"unasked") + frame(TEXT) * 50)
        stranger.say(frame(CLOSE, struct.pack("!H", 1000)))
        said = frames(stranger.rest())
        assert [got.payload for got in said if got.opcode == PONG] == [b"amid"]
        assert said[-1] == (CLOSE, struct.pack("!H", 1000))


def test_a_byte_at_a_time_is_as_good_as_all_at_once(house: Server) -> None:
    with house.unharmed(), RawClient(house.port).enter() as stranger:
        for byte in frame(PING, b"slow") + frame(CLOSE, struct.pack("!H", 1000)):
            stranger.say(bytes([byte]))
        assert [got.payload for got in frames(stranger.rest()) if got.opcode == PONG] == [b"slow"]
