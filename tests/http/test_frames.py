"""WebSocket clients that break the protocol after the handshake."""

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
    "a continuation without a beginning": (1002, frame(CONTINUATION, b"x")),
    "a text within a text": (1002, frame(TEXT, b"x", fin=False) + frame(TEXT, b"x")),
    "a close of one byte": (1002, frame(CLOSE, b"\x03")),
    "a close with a reserved code": (1002, frame(CLOSE, struct.pack("!H", 1005))),
    "a close with a code out of range": (1002, frame(CLOSE, struct.pack("!H", 7))),
    "a close whose reason is not UTF-8": (1007, frame(CLOSE, b"\x03\xe8\xff")),
    "a text that is not UTF-8": (1007, frame(TEXT, b"\xff\xfe")),
    "a text cut within a character": (1007, frame(TEXT, "ü".encode()[:1])),
    "a text that is not UTF-8, in fragments": (1007, frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"\xff")),
    "a surrogate": (1007, frame(TEXT, b"\xed\xa0\x80")),
    "a text that is not UTF-8, before a close": (1000, frame(TEXT, b"\xff") + frame(CLOSE, b"\x03\xe8")),
    "4,097 bytes": (1009, frame(TEXT, b"x" * 4097)),
    "4,097 bytes in fragments": (1009, frame(BINARY, b"x" * 4000, fin=False) + frame(CONTINUATION, b"x" * 97)),
    "a head that announces 2^63 - 1 bytes": (1009, struct.pack("!BBQI", 0x82, 0xFF, 2**63 - 1, 0)),
    "1,001 messages": (1008, frame(TEXT, b"x") * 1001),
    "60,000 pings": (1008, frame(PING) * 60_000),
    "60,000 pongs": (1008, frame(PONG) * 60_000),
    "60,000 empty fragments": (1008, frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 60_000),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_client_that_breaks_the_protocol_is_closed_with_the_documented_code(server: Server, case: str) -> None:
    code, sent = BROKEN[case]
    with server.unaffected(), RawClient(server.port).open_websocket() as client:
        assert client.send(sent).close_code() == code


def test_a_client_may_send_anything_within_the_limits(server: Server) -> None:
    with server.unaffected(), RawClient(server.port).open_websocket() as client:
        fragments = frame(TEXT, b"x" * 4000, fin=False) + frame(PING, b"between") + frame(CONTINUATION, b"x" * 96)
        client.send(fragments + frame(BINARY, b"\xff" * 4096) + frame(PONG, b"unasked") + frame(TEXT) * 50)
        client.send(frame(CLOSE, struct.pack("!H", 1000)))
        answers = frames(client.read_all())
        assert [answer.payload for answer in answers if answer.opcode == PONG] == [b"between"]
        assert answers[-1] == (CLOSE, struct.pack("!H", 1000))


def test_frames_sent_byte_by_byte_are_understood(server: Server) -> None:
    with server.unaffected(), RawClient(server.port).open_websocket() as client:
        for byte in frame(PING, b"slow") + frame(CLOSE, struct.pack("!H", 1000)):
            client.send(bytes([byte]))
        assert [answer.payload for answer in frames(client.read_all()) if answer.opcode == PONG] == [b"slow"]
